EAPI=8

DESCRIPTION="Does not compile"
HOMEPAGE="https://github.com/build-swarm/swarm"
S="${WORKDIR}"

LICENSE="Apache-2.0"
SLOT="0"
KEYWORDS="amd64 arm arm64 loong ppc64 riscv x86"

src_compile() {
	echo 'int main(void) { return undeclared; }' > fails.c
	cc fails.c -o fails || die "fails.c does not compile"
}
