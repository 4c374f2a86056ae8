src_compile() {
	sh -n ./sample-backup || die "sample-backup does not parse"
	"$ROOT/usr/bin/sample-doc" sample-backup < sample-backup.txt > sample-backup.1 || die "sample-doc failed"
}

src_install() {
	install_into usr/bin 0755 sample-backup
	install_into usr/share/man/man1 0644 sample-backup.1
}
