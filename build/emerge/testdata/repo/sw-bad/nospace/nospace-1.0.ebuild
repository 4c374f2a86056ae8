EAPI=8

DESCRIPTION="Ends like a build on a full disk"
HOMEPAGE="https://github.com/build-swarm/swarm"
S="${WORKDIR}"

LICENSE="Apache-2.0"
SLOT="0"
KEYWORDS="amd64 arm arm64 loong ppc64 riscv x86"

src_compile() {
	echo "cc1: fatal error: error writing to /tmp/x.s: No space left on device" >&2
	die "compile failed"
}
