EAPI=8

DESCRIPTION="Has no keyword"
HOMEPAGE="https://github.com/build-swarm/swarm"
S="${WORKDIR}"

LICENSE="Apache-2.0"
SLOT="0"
KEYWORDS=""
