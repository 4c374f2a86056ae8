EAPI=8

DESCRIPTION="Wants more memory than there is"
HOMEPAGE="https://github.com/build-swarm/swarm"
S="${WORKDIR}"

LICENSE="Apache-2.0"
SLOT="0"
KEYWORDS="amd64 arm arm64 loong ppc64 riscv x86"

pkg_pretend() {
	eerror "There is NOT at least 900 TiB RAM"
	die "Build requirements not met!"
}
