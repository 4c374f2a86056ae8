EAPI=8

DESCRIPTION="Its REQUIRED_USE is not met"
HOMEPAGE="https://github.com/build-swarm/swarm"
S="${WORKDIR}"

LICENSE="Apache-2.0"
SLOT="0"
KEYWORDS="amd64 arm arm64 loong ppc64 riscv x86"
IUSE="left right"
REQUIRED_USE="^^ ( left right )"
