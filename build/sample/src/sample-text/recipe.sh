src_compile() {
	compile text.c check.c
	library sample-text 2 text.o
	link check check.o -L. -lsample-text
	run ./check
}

src_install() {
	install_into usr/include/sample 0644 text.h
	install_library sample-text 2
}
