/* Tokenizers: text to ids and back. */
#ifndef MZ_DATA_TOKENIZER_H
#define MZ_DATA_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mpizero/status.h"

typedef struct mz_tokenizer mz_tokenizer;

/* `spec`: "byte" (a token is the byte's value; 256 ends a text; vocabulary 257), or a Hugging Face folder with tokenizer.json, or
 * vocab.json and merges.txt (GPT-2's byte-level BPE). Errors name the file and line. */
mz_status mz_tokenizer_open(const char *spec, mz_tokenizer **tokenizer);
void mz_tokenizer_close(mz_tokenizer *tokenizer);
int64_t mz_tokenizer_vocab(const mz_tokenizer *tokenizer); /* number of ids */
int32_t mz_tokenizer_end_id(const mz_tokenizer *tokenizer); /* end of text; -1: none */
const char *mz_tokenizer_name(const mz_tokenizer *tokenizer);
/* Changes whenever the tokenizer would give other ids; for cache names. */
uint64_t mz_tokenizer_fingerprint(const mz_tokenizer *tokenizer);
/* The folder its files came from; NULL for "byte". */
const char *mz_tokenizer_folder(const mz_tokenizer *tokenizer);

/* Appends the ids of text to a growing array (*ids, *n, *capacity; start from NULL, 0, 0; free with mz_free). Special tokens in the
 * text ("<|endoftext|>") become their ids when parse_special. Thread-safe on one tokenizer. */
mz_status mz_tokenizer_encode(const mz_tokenizer *tokenizer, const char *text, size_t bytes, bool parse_special,
                              int32_t **ids, int64_t *n, int64_t *capacity);
/* Bytes of the ids, '\0' after them, owned by the caller. Unknown ids are MZ_ERR_ARGUMENT. */
mz_status mz_tokenizer_decode(const mz_tokenizer *tokenizer, const int32_t *ids, int64_t n, char **text,
                              size_t *bytes);

#endif
