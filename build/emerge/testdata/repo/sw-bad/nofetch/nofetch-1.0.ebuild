EAPI=8

DESCRIPTION="Has a source that nobody serves"
HOMEPAGE="https://github.com/build-swarm/swarm"
S="${WORKDIR}"

LICENSE="Apache-2.0"
SRC_URI="http://127.0.0.1:9/nofetch-1.0.tar.gz"
SLOT="0"
KEYWORDS="amd64 arm arm64 loong ppc64 riscv x86"
RESTRICT="mirror"
