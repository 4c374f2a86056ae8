EAPI=8

inherit swarm-cc

DESCRIPTION="A small library that keeps tallies of words"
HOMEPAGE="https://github.com/build-swarm/swarm"

LICENSE="Apache-2.0"
SLOT="0/2"
KEYWORDS="amd64 arm arm64 loong ppc64 riscv x86"
IUSE="+cache static-libs"

src_unpack() {
	cp "${FILESDIR}"/libtally.[ch] "${WORKDIR}" || die
}

src_compile() {
	local def=( -DTALLY_ABI=2 )
	use cache && def+=( -DTALLY_CACHE=1 )
	swarm-cc_run -fPIC "${def[@]}" -c libtally.c -o libtally.o
	swarm-cc_run -shared -Wl,-soname,libtally.so.2 libtally.o -o libtally.so.2
	if use static-libs; then
		ar rcD libtally.a libtally.o || die
	fi
}

src_install() {
	insinto /usr/include
	doins libtally.h
	exeinto /usr/lib
	doexe libtally.so.2
	dosym libtally.so.2 /usr/lib/libtally.so
	if use static-libs; then
		insinto /usr/lib
		doins libtally.a
	fi
}
