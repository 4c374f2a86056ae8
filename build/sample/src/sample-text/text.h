/* Text in columns: UTF-8 aware counting, wrapping and centring. */
#ifndef SAMPLE_TEXT_H
#define SAMPLE_TEXT_H

#include <stddef.h>

/* sample_text_columns counts code points of s; bytes that are no UTF-8 count
 * as one each. */
size_t sample_text_columns(const char *s);

/* sample_text_wrap copies s into out with lines of at most width columns,
 * breaking at spaces; a longer word stands alone. It returns the bytes written
 * without the final zero, or (size_t)-1 where out is too small. */
size_t sample_text_wrap(const char *s, size_t width, char *out, size_t size);

/* sample_text_centre copies s into out with spaces in front. Returns as
 * sample_text_wrap. */
size_t sample_text_centre(const char *s, size_t width, char *out, size_t size);

#endif
