src_compile() {
	if use color; then
		CFLAGS="$CFLAGS -DWITH_COLOR"
	fi
	compile hello.c
	link sample-hello hello.o -L"$ROOT/usr/$LIBDIR" -lsample-text
	run ./sample-hello tester | grep -q 'Hello, tester!' || die "sample-hello does not greet"
}

src_install() {
	install_into usr/bin 0755 sample-hello
}
