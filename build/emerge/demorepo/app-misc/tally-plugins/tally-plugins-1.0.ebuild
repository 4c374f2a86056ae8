EAPI=8

inherit swarm-cc

DESCRIPTION="A plugin that the tally tools can load"
HOMEPAGE="https://github.com/build-swarm/swarm"

LICENSE="Apache-2.0"
SLOT="0"
KEYWORDS="amd64 arm arm64 loong ppc64 riscv x86"

RDEPEND="app-misc/tally-tools"

src_compile() {
	swarm-cc_run -shared -fPIC "${FILESDIR}"/upper.c -o upper.so
}

src_install() {
	exeinto /usr/lib/tally
	doexe upper.so
}
