#include "libtally.h"

#include <stdlib.h>
#include <string.h>

struct entry {
	char *word;
	int count;
	struct entry *next;
};

struct tally {
	struct entry *first;
#ifdef TALLY_CACHE
	struct entry *last_seen;
#endif
};

struct tally *tally_new(void)
{
	return calloc(1, sizeof(struct tally));
}

static struct entry *find(const struct tally *t, const char *word)
{
	struct entry *e;

#ifdef TALLY_CACHE
	if (t->last_seen && strcmp(t->last_seen->word, word) == 0)
		return t->last_seen;
#endif
	for (e = t->first; e; e = e->next)
		if (strcmp(e->word, word) == 0)
			return e;
	return NULL;
}

void tally_add(struct tally *t, const char *word)
{
	struct entry *e = find(t, word);

	if (!e) {
		e = calloc(1, sizeof(*e));
		if (!e)
			return;
		e->word = strdup(word);
		e->next = t->first;
		t->first = e;
	}
	e->count++;
#ifdef TALLY_CACHE
	t->last_seen = e;
#endif
}

int tally_count(const struct tally *t, const char *word)
{
	struct entry *e = find(t, word);

	return e ? e->count : 0;
}

void tally_free(struct tally *t)
{
	struct entry *e, *next;

	for (e = t->first; e; e = next) {
		next = e->next;
		free(e->word);
		free(e);
	}
	free(t);
}

int tally_abi(void)
{
	return TALLY_ABI;
}
