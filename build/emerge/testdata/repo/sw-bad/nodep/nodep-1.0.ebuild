EAPI=8

DESCRIPTION="Depends on what does not exist"
HOMEPAGE="https://github.com/build-swarm/swarm"
S="${WORKDIR}"

LICENSE="Apache-2.0"
SLOT="0"
KEYWORDS="amd64 arm arm64 loong ppc64 riscv x86"
RDEPEND="sw-good/absent"
