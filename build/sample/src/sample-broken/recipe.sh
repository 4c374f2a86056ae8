src_compile() {
	compile broken.c
}

src_install() {
	:
}
