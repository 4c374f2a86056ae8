/* Counts how often each word was seen. Words are compared byte by byte. */
#ifndef LIBTALLY_H
#define LIBTALLY_H

struct tally;

struct tally *tally_new(void);
void tally_add(struct tally *t, const char *word);
int tally_count(const struct tally *t, const char *word);
void tally_free(struct tally *t);

#endif
