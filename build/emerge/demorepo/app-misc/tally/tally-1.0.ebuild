EAPI=8

inherit swarm-cc

DESCRIPTION="Counts the words it is given"
HOMEPAGE="https://github.com/build-swarm/swarm"

LICENSE="Apache-2.0"
SLOT="0"
KEYWORDS="amd64 arm arm64 loong ppc64 riscv x86"
IUSE="color"

DEPEND=">=dev-libs/libtally-1.0:="
RDEPEND="${DEPEND}"
BDEPEND="dev-util/tablegen"

src_compile() {
	tablegen squares 64 > squares.h || die "tablegen failed"
	swarm-cc_run -I. $(usex color -DCOLOR=1 '') $(swarm-cc_flags) \
		"${FILESDIR}"/tally.c -o tally -ltally
}

src_install() {
	dobin tally
}
