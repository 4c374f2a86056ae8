#include <ctype.h>

void tally_plugin_word(char *word)
{
	for (; *word; word++)
		*word = (char)toupper((unsigned char)*word);
}
