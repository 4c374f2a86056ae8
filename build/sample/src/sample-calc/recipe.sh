src_compile() {
	compile calc.c
	link sample-calc calc.o -L"$ROOT/usr/$LIBDIR" -lsample-dft -lsample-text
	[ "$(run ./sample-calc 1,2,3 0,1,0)" = "3 1 2" ] || die "sample-calc is wrong"
}

src_install() {
	install_into usr/bin 0755 sample-calc
}
