src_compile() {
	:
}

src_install() {
	:
}
