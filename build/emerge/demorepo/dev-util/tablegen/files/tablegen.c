#include <stdio.h>
#include <stdlib.h>

/* Prints a C table of squares: tablegen NAME COUNT */
int main(int argc, char **argv)
{
	int i, n;

	if (argc != 3) {
		fprintf(stderr, "usage: tablegen NAME COUNT\n");
		return 2;
	}
	n = atoi(argv[2]);
	printf("static const int %s[%d] = {\n", argv[1], n);
	for (i = 0; i < n; i++)
		printf("\t%d,\n", i * i);
	printf("};\n");
	return 0;
}
