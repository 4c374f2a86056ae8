#include <stdio.h>
#include <string.h>

int main(void)
{
	char word[256];
	size_t column = 0, n;

	while (scanf("%255s", word) == 1) {
		n = strlen(word);
		if (column && column + 1 + n > 72) {
			putchar('\n');
			column = 0;
		}
		column += (size_t)printf(column ? " %s" : "%s", word);
	}
	putchar('\n');
	return 0;
}
