#include "codelet.h"

#include <math.h>
#include <stdio.h>

/* Each codelet against the sum it stands for. */
int main(void)
{
	struct sample_complex in[64], out[64];
	int n, j, k, bad = 0;

	for (n = 1; n <= 64; n++) {
		sample_dft_fn *f = sample_dft(n);

		if (!f)
			continue;
		for (j = 0; j < n; j++) {
			in[j].re = sin(j * 1.7 + n);
			in[j].im = cos(j * 0.3 - n);
		}
		f(in, out);
		for (k = 0; k < n; k++) {
			double re = 0, im = 0;

			for (j = 0; j < n; j++) {
				double a = -6.283185307179586476925286766559 * j * k / n;

				re += in[j].re * cos(a) - in[j].im * sin(a);
				im += in[j].re * sin(a) + in[j].im * cos(a);
			}
			if (fabs(re - out[k].re) + fabs(im - out[k].im) > 1e-9) {
				fprintf(stderr, "error: transform of %d points is wrong at %d\n", n, k);
				bad++;
				break;
			}
		}
	}
	return bad != 0;
}
