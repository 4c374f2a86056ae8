/* sample-wrap [WIDTH]: fills the paragraphs of standard input. */
#include <sample/text.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char paragraph[1 << 16], out[1 << 17];

static int flush(size_t width)
{
	if (!*paragraph)
		return 0;
	if (sample_text_wrap(paragraph, width, out, sizeof out) == (size_t)-1)
		return 1;
	puts(out);
	*paragraph = 0;
	return 0;
}

int main(int argc, char **argv)
{
	size_t width = argc > 1 ? (size_t)atoi(argv[1]) : 72;
	char line[4096];

	while (fgets(line, sizeof line, stdin)) {
		if (*line == '\n') {
			if (flush(width))
				return 1;
			puts("");
			continue;
		}
		if (strlen(paragraph) + strlen(line) >= sizeof paragraph && flush(width))
			return 1;
		strcat(paragraph, line);
	}
	return flush(width) || fflush(stdout) != 0;
}
