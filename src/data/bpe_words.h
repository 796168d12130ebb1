/* Cutting text into words by GPT-2's published pattern. */
#ifndef MZ_DATA_BPE_WORDS_H
#define MZ_DATA_BPE_WORDS_H

#include <stddef.h>

#include "mpizero/status.h"

typedef struct mz_word_pattern mz_word_pattern; /* compiled; constant and shared */
typedef struct mz_word_matcher mz_word_matcher; /* state of a search; one thread at a time */

mz_status mz_word_pattern_create(mz_word_pattern **pattern);
void mz_word_pattern_destroy(mz_word_pattern *pattern);

mz_status mz_word_matcher_create(const mz_word_pattern *pattern, mz_word_matcher **matcher);
void mz_word_matcher_destroy(mz_word_matcher *matcher);

/* The end of the word that begins at text[begin], begin < bytes. text is well-formed UTF-8. */
mz_status mz_word_end(mz_word_matcher *matcher, const char *text, size_t bytes, size_t begin, size_t *end);

#endif
