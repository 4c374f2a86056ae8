EAPI=8

DESCRIPTION="Is content with either of two"
HOMEPAGE="https://github.com/build-swarm/swarm"
S="${WORKDIR}"

LICENSE="Apache-2.0"
SLOT="0"
KEYWORDS="amd64 arm arm64 loong ppc64 riscv x86"
DEPEND="|| ( sw-good/left sw-good/right )"
RDEPEND="${DEPEND}"

src_install() {
	insinto /usr/share/choice
	ls "${ESYSROOT}"/usr/share/choice | newins - chosen
}
