src_compile() {
	printf 'NAME\ntest\n' | sh ./sample-doc test | grep -q '^.SH NAME' || die "sample-doc does not format"
}

src_install() {
	install_into usr/bin 0755 sample-doc
}
