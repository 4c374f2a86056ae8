EAPI=8

inherit swarm-cc

DESCRIPTION="Breaks lines of text at a width"
HOMEPAGE="https://github.com/build-swarm/swarm"

LICENSE="Apache-2.0"
SLOT="0"
KEYWORDS="amd64 arm arm64 loong ppc64 riscv x86"

src_compile() {
	swarm-cc_run "${FILESDIR}"/wordwrap.c -o wordwrap
}

src_install() {
	dobin wordwrap
}
