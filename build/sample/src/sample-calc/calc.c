/* sample-calc A,B,... X,Y,...: the cyclic convolution of two short lists, by
 * way of their spectra. */
#include <sample/codelet.h>
#include <sample/text.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int parse(const char *s, struct sample_complex *v, int max)
{
	int n = 0;

	while (*s && n < max) {
		char *end;

		v[n].re = strtod(s, &end);
		v[n++].im = 0;
		if (end == s)
			return 0;
		s = *end == ',' ? end + 1 : end;
	}
	return *s ? 0 : n;
}

int main(int argc, char **argv)
{
	struct sample_complex a[20], b[20], fa[20], fb[20], c[20];
	char text[1024] = "", line[2048];
	int n, i;
	sample_dft_fn *f;

	if (argc != 3 || (n = parse(argv[1], a, 20)) < 2 || parse(argv[2], b, 20) != n || !(f = sample_dft(n))) {
		fprintf(stderr, "usage: sample-calc A,B,... X,Y,...  (two lists of 2 to 20 numbers)\n");
		return 2;
	}
	f(a, fa);
	f(b, fb);
	for (i = 0; i < n; i++) {
		/* Conjugated, so that the forward transform is the way back. */
		c[i].re = fa[i].re * fb[i].re - fa[i].im * fb[i].im;
		c[i].im = -(fa[i].re * fb[i].im + fa[i].im * fb[i].re);
	}
	f(c, fa);
	for (i = 0; i < n; i++)
		snprintf(text + strlen(text), sizeof text - strlen(text), "%.6g ", fa[i].re / n);
	if (sample_text_wrap(text, 72, line, sizeof line) == (size_t)-1)
		return 1;
	puts(line);
	return fflush(stdout) != 0;
}
