#include <sample/text.h>

#include <stdio.h>

int main(int argc, char **argv)
{
	char line[512], text[256];

	snprintf(text, sizeof text, "Hello, %s!", argc > 1 ? argv[1] : "swarm");
	if (sample_text_centre(text, 60, line, sizeof line) == (size_t)-1)
		return 1;
#ifdef WITH_COLOR
	printf("\033[1;32m%s\033[0m\n", line);
#else
	puts(line);
#endif
	return fflush(stdout) != 0;
}
