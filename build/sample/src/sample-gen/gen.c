/* sample-gen writes C: straight-line code that nobody would write by hand.
 *
 *   sample-gen dft N         the discrete Fourier transform of N points
 *   sample-gen mix ROUNDS K  a 64-bit mixing function of ROUNDS unrolled rounds
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* term writes one factor times one input, and nothing for a factor of zero. */
static void term(double factor, const char *part, int j)
{
	if (fabs(factor) < 1e-12)
		return;
	if (fabs(factor - 1) < 1e-12)
		printf("\n\t\t+ in[%d].%s", j, part);
	else if (fabs(factor + 1) < 1e-12)
		printf("\n\t\t- in[%d].%s", j, part);
	else
		printf("\n\t\t%c %.17g * in[%d].%s", factor < 0 ? '-' : '+', fabs(factor), j, part);
}

static void dft(int n)
{
	const double turn = 6.283185307179586476925286766559 / n;
	int j, k;

	printf("#include \"codelet.h\"\n\n");
	printf("void sample_dft_%d(const struct sample_complex *restrict in, struct sample_complex *restrict out)\n{\n", n);
	for (k = 0; k < n; k++) {
		printf("\tout[%d].re = 0", k);
		for (j = 0; j < n; j++) {
			double angle = turn * ((long)j * k % n);

			term(cos(angle), "re", j);
			term(sin(angle), "im", j);
		}
		printf(";\n\tout[%d].im = 0", k);
		for (j = 0; j < n; j++) {
			double angle = turn * ((long)j * k % n);

			term(cos(angle), "im", j);
			term(-sin(angle), "re", j);
		}
		printf(";\n");
	}
	printf("}\n");
}

/* next is splitmix64: constants for the rounds. */
static uint64_t next(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15u);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static void mix(int rounds, int key)
{
	uint64_t state = (uint64_t)key;
	int i;

	printf("#include \"mix.h\"\n\n");
	printf("uint64_t sample_mix_%d(uint64_t h, const uint64_t w[8])\n{\n", key);
	printf("\tuint64_t a = h, b = w[0], c = w[1], d = w[2];\n\n");
	for (i = 0; i < rounds; i++) {
		uint64_t r = next(&state);
		int x = 1 + (int)(r % 62), y = 1 + (int)(r / 64 % 62);

		printf("\ta += (b ^ w[%d]) * 0x%llxu;\n", i % 8, (unsigned long long)(r | 1));
		printf("\td = (d ^ a) << %d | (d ^ a) >> %d;\n", x, 64 - x);
		printf("\tc += d & 0x%llxu ? w[%d] : b;\n", (unsigned long long)next(&state), (i + 3) % 8);
		printf("\tb = (b ^ c) << %d | (b ^ c) >> %d;\n", y, 64 - y);
		if (i % 16 == 15)
			printf("\tif ((a ^ c) < 0x%llxu)\n\t\td += w[%d] * b;\n", (unsigned long long)next(&state), i / 16 % 8);
	}
	printf("\treturn a ^ b ^ c ^ d;\n}\n");
}

int main(int argc, char **argv)
{
	if (argc == 3 && strcmp(argv[1], "dft") == 0 && atoi(argv[2]) > 0 && atoi(argv[2]) <= 256)
		dft(atoi(argv[2]));
	else if (argc == 4 && strcmp(argv[1], "mix") == 0 && atoi(argv[2]) > 0)
		mix(atoi(argv[2]), atoi(argv[3]));
	else {
		fprintf(stderr, "usage: sample-gen dft N | mix ROUNDS KEY\n");
		return 2;
	}
	return fflush(stdout) != 0;
}
