EAPI=8

DESCRIPTION="Old slot"
HOMEPAGE="https://github.com/build-swarm/swarm"
S="${WORKDIR}"

LICENSE="Apache-2.0"
SLOT="1"
KEYWORDS="amd64 arm arm64 loong ppc64 riscv x86"
src_install() { dodir /usr/share/slotted-1; echo 1 > "${ED}"/usr/share/slotted-1/v || die; }
