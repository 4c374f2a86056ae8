EAPI=8

DESCRIPTION="Never ends"
HOMEPAGE="https://github.com/build-swarm/swarm"
S="${WORKDIR}"

LICENSE="Apache-2.0"
SLOT="0"
KEYWORDS="amd64 arm arm64 loong ppc64 riscv x86"

src_compile() {
	echo "waiting for ever"
	( trap '' TERM; sleep 86400 & wait; sleep 86400 ) &
	sleep 86400
}
