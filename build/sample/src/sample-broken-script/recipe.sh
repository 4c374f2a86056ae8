src_compile() {
	echo "checking for what is not there"
	die "sample-broken-script fails on purpose"
}

src_install() {
	:
}
