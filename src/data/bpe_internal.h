/* The model that bpe.c builds and bpe_encode.c uses. */
#ifndef MZ_DATA_BPE_INTERNAL_H
#define MZ_DATA_BPE_INTERNAL_H

#include "data/bpe.h"
#include "data/bpe_words.h"

enum { MZ_BPE_ALPHABET_END = 0x144 }; /* one past the last character that stands for a byte */

typedef struct mz_bpe_token {
    size_t offset; /* into mz_bpe.text */
    uint32_t bytes;
    bool used; /* ids may have holes */
} mz_bpe_token;

typedef struct mz_bpe_merge {
    uint64_t pair; /* mz_bpe_pair; 0: an empty slot */
    uint32_t rank;
    int32_t id; /* of the two joined */
} mz_bpe_merge;

struct mz_bpe {
    mz_word_pattern *pattern;

    mz_bpe_token *tokens; /* [capacity], by id */
    int64_t n_ids, capacity;
    uint64_t n_tokens;
    char *text; /* of all tokens, as the file has them */
    size_t text_bytes, text_room;
    uint32_t *by_text; /* [by_text_mask + 1] open addressing: id + 1, 0 empty */
    uint64_t by_text_mask;

    mz_bpe_merge *merges; /* [merges_mask + 1] open addressing */
    uint64_t merges_mask;
    uint32_t n_merges;

    int32_t byte_ids[256];                /* first symbol of each byte */
    int16_t byte_of[MZ_BPE_ALPHABET_END]; /* byte of each character, -1 none */
};

static inline uint64_t mz_bpe_pair(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)(left + 1) << 32 | (uint32_t)right;
}

/* Where the pair is, or the empty slot where it would go. */
static inline mz_bpe_merge *mz_bpe_merge_slot(const mz_bpe *bpe, uint64_t pair)
{
    uint64_t i = (pair * 0x9e3779b97f4a7c15u >> 32 ^ pair) & bpe->merges_mask;
    while (bpe->merges[i].pair && bpe->merges[i].pair != pair)
        i = (i + 1) & bpe->merges_mask;
    return &bpe->merges[i];
}

#endif
