#include <libtally.h>
#include <stdio.h>

/* Prints the word that was given most often. */
int main(int argc, char **argv)
{
	struct tally *t = tally_new();
	const char *top = "";
	int i, best = 0;

	for (i = 1; i < argc; i++) {
		tally_add(t, argv[i]);
		if (tally_count(t, argv[i]) > best) {
			best = tally_count(t, argv[i]);
			top = argv[i];
		}
	}
	printf("%s %d\n", top, best);
	tally_free(t);
	return 0;
}
