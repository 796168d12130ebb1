/* What tokenising a file in pieces needs of a tokenizer. */
#ifndef MZ_DATA_TOKENIZER_PIECES_H
#define MZ_DATA_TOKENIZER_PIECES_H

#include "data/tokenizer.h"

/* True when text[0, cut) and text[cut, bytes) encoded apart give the same ids as together. text[cut - 1] is a
 * line's end. */
bool mz_tokenizer_may_cut(const mz_tokenizer *tokenizer, const char *text, size_t bytes, size_t cut);

/* Appends one id to an array that mz_tokenizer_encode grows. */
mz_status mz_tokenizer_append(int32_t **ids, int64_t *n, int64_t *capacity, int32_t id);

#endif
