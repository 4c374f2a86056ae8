sizes="2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24"

src_compile() {
	{
		echo '#include "codelet.h"'
		for n in $sizes; do
			echo "sample_dft_fn sample_dft_$n;"
		done
		echo 'sample_dft_fn *sample_dft(int n) { switch (n) {'
		for n in $sizes; do
			echo "case $n: return sample_dft_$n;"
		done
		echo '} return 0; }'
	} > table.c
	objects=table.o sources=table.c
	for n in $sizes; do
		"$ROOT/usr/bin/sample-gen" dft "$n" > "dft_$n.c" || die "sample-gen failed"
		sources="$sources dft_$n.c" objects="$objects dft_$n.o"
	done
	compile $sources check.c
	library sample-dft 1 $objects
	link check check.o -L. -lsample-dft -lm
	run ./check
}

src_install() {
	install_into usr/include/sample 0644 codelet.h
	install_library sample-dft 1
}
