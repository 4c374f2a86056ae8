EAPI=8

DESCRIPTION="One half of a cycle of build dependencies"
HOMEPAGE="https://github.com/build-swarm/swarm"
S="${WORKDIR}"

LICENSE="Apache-2.0"
SLOT="0"
KEYWORDS="amd64 arm arm64 loong ppc64 riscv x86"
IUSE="+loop"
DEPEND="loop? ( sw-bad/cycle-b )"
