src_compile() {
	sh -n ./sample-menu || die "sample-menu does not parse"
}

src_install() {
	install_into usr/bin 0755 sample-menu
}
