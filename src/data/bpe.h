/* Byte-level byte-pair encoding as GPT-2 defined it (Radford et al., "Language models are unsupervised multitask
 * learners", 2019; Sennrich, Haddow, Birch, "Neural machine translation of rare words with subword units", 2016).
 *
 * Text is cut into words by GPT-2's pattern. A word's bytes are its first symbols; the adjacent pair of symbols
 * with the lowest merge rank is joined until no pair has a rank. In the files each byte is written as a
 * printable character (mz_bpe_byte_character). */
#ifndef MZ_DATA_BPE_H
#define MZ_DATA_BPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mpizero/status.h"

typedef struct mz_bpe mz_bpe;
typedef struct mz_bpe_encoder mz_bpe_encoder;

/* A growing array of ids. */
typedef struct mz_ids {
    int32_t *ids;
    int64_t n, capacity;
} mz_ids;
mz_status mz_ids_reserve(mz_ids *ids, int64_t more);

/* ---- building: all tokens, then all merges in order of rank, then seal ---- */

mz_status mz_bpe_create(mz_bpe **bpe);
void mz_bpe_destroy(mz_bpe *bpe);

/* `text` as the file has it, copied. Errors (no file or line in the message; the reader adds them): id out of
 * range or taken, text taken. */
mz_status mz_bpe_add_token(mz_bpe *bpe, const char *text, size_t bytes, int64_t id);
/* The next merge. Errors: a part or the whole is no token, the pair has a rank already. */
mz_status mz_bpe_add_merge(mz_bpe *bpe, const char *left, size_t left_bytes, const char *right, size_t right_bytes);
/* Bytes without a token of their own get unknown_id (-1: they are refused in text). */
mz_status mz_bpe_seal(mz_bpe *bpe, int32_t unknown_id);

/* ---- use: the model is constant and may be shared; an encoder belongs to one thread at a time ---- */

int64_t mz_bpe_n_ids(const mz_bpe *bpe);                                /* largest id + 1 */
int32_t mz_bpe_find(const mz_bpe *bpe, const char *text, size_t bytes); /* -1: no such token */
uint64_t mz_bpe_fingerprint(const mz_bpe *bpe);

mz_status mz_bpe_encoder_create(const mz_bpe *bpe, mz_bpe_encoder **encoder);
void mz_bpe_encoder_destroy(mz_bpe_encoder *encoder);
/* Appends the ids of well-formed UTF-8. */
mz_status mz_bpe_encode(mz_bpe_encoder *encoder, const char *text, size_t bytes, mz_ids *ids);

/* Writes the bytes that token `id` stands for to `out`, when there is room; returns their number, -1 when there is
 * no such token. */
int64_t mz_bpe_decode(const mz_bpe *bpe, int32_t id, char *out, size_t room);

#endif
