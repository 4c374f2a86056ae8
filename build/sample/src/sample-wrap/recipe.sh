src_compile() {
	compile wrap.c
	link sample-wrap wrap.o -L"$ROOT/usr/$LIBDIR" -lsample-text
	[ "$(echo one two three | run ./sample-wrap 8 | head -n 1)" = "one two" ] || die "sample-wrap does not wrap"
}

src_install() {
	install_into usr/bin 0755 sample-wrap
}
