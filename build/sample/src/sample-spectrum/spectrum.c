/* sample-spectrum N: the spectrum of N numbers from standard input. Small sizes
 * come from the library, larger ones are generated here. */
#include <sample/codelet.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

sample_dft_fn *large_dft(int n);

int main(int argc, char **argv)
{
	struct sample_complex in[64] = {{0, 0}}, out[64];
	int n = argc > 1 ? atoi(argv[1]) : 0, i;
	sample_dft_fn *f = 0;

	if (n > 0 && n <= 64) {
		f = sample_dft(n);
		if (!f)
			f = large_dft(n);
	}
	if (!f) {
		fprintf(stderr, "usage: sample-spectrum N < NUMBERS\n");
		return 2;
	}
	for (i = 0; i < n; i++)
		if (scanf("%lf", &in[i].re) != 1)
			in[i].re = 0;
	f(in, out);
	for (i = 0; i < n; i++)
		printf("%2d %.6f\n", i, hypot(out[i].re, out[i].im));
	return fflush(stdout) != 0;
}
