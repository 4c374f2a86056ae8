#include "text.h"

#include <string.h>

size_t sample_text_columns(const char *s)
{
	size_t n = 0;

	for (; *s; s++)
		if (((unsigned char)*s & 0xc0) != 0x80)
			n++;
	return n;
}

/* word_end returns the end of the word that begins at s. */
static const char *word_end(const char *s)
{
	while (*s && *s != ' ' && *s != '\n' && *s != '\t')
		s++;
	return s;
}

size_t sample_text_wrap(const char *s, size_t width, char *out, size_t size)
{
	size_t used = 0, column = 0;

	if (size == 0)
		return (size_t)-1;
	for (;;) {
		const char *end;
		size_t bytes, columns = 0, i;

		while (*s == ' ' || *s == '\n' || *s == '\t')
			s++;
		if (!*s)
			break;
		end = word_end(s);
		bytes = (size_t)(end - s);
		for (i = 0; i < bytes; i++)
			if (((unsigned char)s[i] & 0xc0) != 0x80)
				columns++;
		if (used + bytes + 2 > size)
			return (size_t)-1;
		if (column > 0) {
			if (column + 1 + columns > width) {
				out[used++] = '\n';
				column = 0;
			} else {
				out[used++] = ' ';
				column++;
			}
		}
		memcpy(out + used, s, bytes);
		used += bytes;
		column += columns;
		s = end;
	}
	out[used] = 0;
	return used;
}

size_t sample_text_centre(const char *s, size_t width, char *out, size_t size)
{
	size_t columns = sample_text_columns(s), bytes = strlen(s), pad;

	pad = columns < width ? (width - columns) / 2 : 0;
	if (pad + bytes + 1 > size)
		return (size_t)-1;
	memset(out, ' ', pad);
	memcpy(out + pad, s, bytes + 1);
	return pad + bytes;
}
