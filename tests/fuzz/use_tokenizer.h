/* What a tokenizer that was read must stand. */
#ifndef TESTS_FUZZ_USE_TOKENIZER_H
#define TESTS_FUZZ_USE_TOKENIZER_H

#include "data/tokenizer.h"

/* Encodes the text both ways; each id is in the vocabulary and decodes. */
void use_tokenizer(const mz_tokenizer *tokenizer, const char *text, size_t bytes);

#endif
