#include <libtally.h>
#include <stdio.h>

#include "squares.h"

#ifdef COLOR
#define WORD "\033[1m%s\033[0m"
#else
#define WORD "%s"
#endif

int main(int argc, char **argv)
{
	struct tally *t = tally_new();
	int i, n;

	for (i = 1; i < argc; i++)
		tally_add(t, argv[i]);
	for (i = 1; i < argc; i++) {
		n = tally_count(t, argv[i]);
		printf(WORD " %d %d\n", argv[i], n, squares[n & 63]);
	}
	tally_free(t);
	return 0;
}
