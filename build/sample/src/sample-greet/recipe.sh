src_compile() {
	sh ./sample-greet tester | grep -q tester || die "sample-greet does not greet"
}

src_install() {
	install_into usr/bin 0755 sample-greet
}
