EAPI=8

DESCRIPTION="One of two choices"
HOMEPAGE="https://github.com/build-swarm/swarm"
S="${WORKDIR}"

LICENSE="Apache-2.0"
SLOT="0"
KEYWORDS="amd64 arm arm64 loong ppc64 riscv x86"

src_install() {
	insinto /usr/share/choice
	echo right | newins - right
}
