EAPI=8

DESCRIPTION="Has no fixed content"
HOMEPAGE="https://github.com/build-swarm/swarm"
S="${WORKDIR}"

LICENSE="Apache-2.0"
PROPERTIES="live"
SLOT="0"
KEYWORDS="amd64 arm arm64 loong ppc64 riscv x86"
