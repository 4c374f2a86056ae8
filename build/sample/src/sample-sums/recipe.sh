keys="1 2 3 4 5 6 7 8"

src_compile() {
	{
		echo '#include "mix.h"'
		for k in $keys; do
			echo "uint64_t sample_mix_$k(uint64_t h, const uint64_t w[8]);"
		done
		echo 'typedef uint64_t mix_fn(uint64_t h, const uint64_t w[8]);'
		echo 'extern mix_fn *const sample_mixes[]; extern const int sample_mix_count;'
		echo 'mix_fn *const sample_mixes[] = {'
		for k in $keys; do
			echo "sample_mix_$k,"
		done
		echo '}; const int sample_mix_count = sizeof sample_mixes / sizeof *sample_mixes;'
	} > table.c
	objects="table.o sums.o" sources="table.c sums.c"
	for k in $keys; do
		"$ROOT/usr/bin/sample-gen" mix 160 "$k" > "mix_$k.c" || die "sample-gen failed"
		sources="$sources mix_$k.c" objects="$objects mix_$k.o"
	done
	compile $sources
	link sample-sums $objects
	a=$(echo hello | ./sample-sums) b=$(echo hellp | ./sample-sums)
	[ "$a" != "$b" ] || die "sample-sums does not tell files apart"
}

src_install() {
	install_into usr/bin 0755 sample-sums
}
