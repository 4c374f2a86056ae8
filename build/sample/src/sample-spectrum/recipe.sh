sizes="25 26 27 28 29 30 31 32 33"

src_compile() {
	{
		echo '#include <sample/codelet.h>'
		for n in $sizes; do
			echo "sample_dft_fn sample_dft_$n;"
		done
		echo 'sample_dft_fn *large_dft(int n); sample_dft_fn *large_dft(int n) { switch (n) {'
		for n in $sizes; do
			echo "case $n: return sample_dft_$n;"
		done
		echo '} return 0; }'
	} > table.c
	echo '#include <sample/codelet.h>' > codelet.h
	objects="table.o spectrum.o" sources="table.c spectrum.c"
	for n in $sizes; do
		"$ROOT/usr/bin/sample-gen" dft "$n" > "dft_$n.c" || die "sample-gen failed"
		sources="$sources dft_$n.c" objects="$objects dft_$n.o"
	done
	compile $sources
	link sample-spectrum $objects -L"$ROOT/usr/$LIBDIR" -lsample-dft -lm
	echo 1 | run ./sample-spectrum 32 | grep -q '^31 1.000000' || die "sample-spectrum is wrong"
}

src_install() {
	install_into usr/bin 0755 sample-spectrum
}
