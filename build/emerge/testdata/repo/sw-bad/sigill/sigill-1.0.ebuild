EAPI=8

DESCRIPTION="Runs an instruction that the processor does not have"
HOMEPAGE="https://github.com/build-swarm/swarm"
S="${WORKDIR}"

LICENSE="Apache-2.0"
SLOT="0"
KEYWORDS="amd64 arm arm64 loong ppc64 riscv x86"

src_compile() {
	printf 'int main(void) { __builtin_trap(); }\n' > t.c
	cc t.c -o t || die
	bash -c 'kill -ILL $$' || die "t died of an illegal instruction"
}
