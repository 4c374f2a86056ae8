/* Discrete Fourier transforms of small sizes, generated one by one. */
#ifndef SAMPLE_CODELET_H
#define SAMPLE_CODELET_H

struct sample_complex {
	double re, im;
};

typedef void sample_dft_fn(const struct sample_complex *restrict in, struct sample_complex *restrict out);

/* sample_dft returns the transform of n points, or 0 where there is none. */
sample_dft_fn *sample_dft(int n);

#endif
