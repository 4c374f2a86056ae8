src_compile() {
	compile gen.c
	link sample-gen gen.o -lm
	./sample-gen dft 4 | grep -q sample_dft_4 || die "sample-gen does not generate"
}

src_install() {
	install_into usr/bin 0755 sample-gen
}
