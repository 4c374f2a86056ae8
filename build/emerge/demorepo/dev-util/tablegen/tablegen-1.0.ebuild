EAPI=8

inherit swarm-cc

DESCRIPTION="Writes C tables, for use while other packages are built"
HOMEPAGE="https://github.com/build-swarm/swarm"

LICENSE="Apache-2.0"
SLOT="0"
KEYWORDS="amd64 arm arm64 loong ppc64 riscv x86"

src_compile() {
	swarm-cc_run "${FILESDIR}"/tablegen.c -o tablegen
}

src_install() {
	dobin tablegen
}
