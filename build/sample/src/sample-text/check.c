#include "text.h"

#include <stdio.h>
#include <string.h>

static int want(const char *what, const char *got, const char *expected)
{
	if (strcmp(got, expected) == 0)
		return 0;
	fprintf(stderr, "error: %s gave \"%s\", wanted \"%s\"\n", what, got, expected);
	return 1;
}

int main(void)
{
	char out[64];
	int bad = 0;

	sample_text_wrap("one  two three\nfour", 8, out, sizeof out);
	bad += want("wrap", out, "one two\nthree\nfour");
	sample_text_centre("gr\303\274n", 8, out, sizeof out);
	bad += want("centre", out, "  gr\303\274n");
	if (sample_text_columns("gr\303\274n") != 4) {
		fprintf(stderr, "error: columns\n");
		bad++;
	}
	if (sample_text_wrap("too long", 8, out, 4) != (size_t)-1) {
		fprintf(stderr, "error: wrap into a small buffer\n");
		bad++;
	}
	return bad != 0;
}
