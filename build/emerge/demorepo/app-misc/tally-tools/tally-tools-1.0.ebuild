EAPI=8

inherit swarm-cc

DESCRIPTION="More programs around the tally library"
HOMEPAGE="https://github.com/build-swarm/swarm"

LICENSE="Apache-2.0"
SLOT="0"
KEYWORDS="amd64 arm arm64 loong ppc64 riscv x86"

DEPEND="dev-libs/libtally:="
RDEPEND="${DEPEND}
	app-misc/tally"
PDEPEND="app-misc/tally-plugins"

src_compile() {
	swarm-cc_run $(swarm-cc_flags) "${FILESDIR}"/tally-top.c -o tally-top -ltally
}

src_install() {
	dobin tally-top
}
