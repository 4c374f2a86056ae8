EAPI=8

DESCRIPTION="Needs its own older slot to be built"
HOMEPAGE="https://github.com/build-swarm/swarm"
S="${WORKDIR}"

LICENSE="Apache-2.0"
SLOT="2"
KEYWORDS="amd64 arm arm64 loong ppc64 riscv x86"
BDEPEND="sw-good/slotted:1"
src_install() { dodir /usr/share/slotted-2; cp "${BROOT}"/usr/share/slotted-1/v "${ED}"/usr/share/slotted-2/v || die; }
