#include "data/bpe.h"

#include <string.h>

#include "core/error.h"
#include "core/memory.h"
#include "data/bpe_internal.h"
#include "data/hash.h"
#include "data/utf8.h"

enum { MAX_IDS = 1 << 21 }; /* the table of tokens goes by id: a wild one must not take the memory */

mz_status mz_ids_reserve(mz_ids *ids, int64_t more)
{
    if (ids->capacity - ids->n >= more)
        return MZ_OK;
    const int64_t capacity = (ids->n + more) + (ids->n + more) / 2 + 16;
    int32_t *larger = mz_realloc(ids->ids, (size_t)capacity * sizeof *larger);
    if (!larger)
        return MZ_ERR_MEMORY;
    ids->ids = larger;
    ids->capacity = capacity;
    return MZ_OK;
}

/* ---- the characters that stand for bytes ---- */

/* GPT-2 writes a byte as itself where Latin-1 prints it, and the others, in order, as U+0100 onwards. */
static bool prints_itself(uint32_t byte)
{
    return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);
}

/* Fills both directions: characters[byte], and bytes[character], -1 where a character stands for none. */
static void make_alphabet(uint32_t characters[256], int16_t bytes[MZ_BPE_ALPHABET_END])
{
    uint32_t next = 0x100;
    for (int c = 0; c < MZ_BPE_ALPHABET_END; c++)
        bytes[c] = -1;
    for (uint32_t byte = 0; byte < 256; byte++) {
        characters[byte] = prints_itself(byte) ? byte : next++;
        bytes[characters[byte]] = (int16_t)byte;
    }
}

/* ---- building ---- */

mz_status mz_bpe_create(mz_bpe **out)
{
    mz_bpe *bpe = mz_calloc(1, sizeof *bpe);
    if (!bpe)
        return MZ_ERR_MEMORY;
    uint32_t characters[256];
    make_alphabet(characters, bpe->byte_of);
    mz_status status = mz_word_pattern_create(&bpe->pattern);
    if (status) {
        mz_bpe_destroy(bpe);
        return status;
    }
    *out = bpe;
    return MZ_OK;
}

void mz_bpe_destroy(mz_bpe *bpe)
{
    if (!bpe)
        return;
    mz_word_pattern_destroy(bpe->pattern);
    mz_free(bpe->tokens);
    mz_free(bpe->text);
    mz_free(bpe->by_text);
    mz_free(bpe->merges);
    mz_free(bpe);
}

/* The slot of `text`: where it is, or the empty one where it would go. The table is never full. */
static uint32_t *text_slot(const mz_bpe *bpe, const char *text, size_t bytes)
{
    uint64_t i = mz_hash64(0, text, bytes) & bpe->by_text_mask;
    for (; bpe->by_text[i]; i = (i + 1) & bpe->by_text_mask) {
        const mz_bpe_token *token = &bpe->tokens[bpe->by_text[i] - 1];
        if (token->bytes == bytes && memcmp(bpe->text + token->offset, text, bytes) == 0)
            break;
    }
    return &bpe->by_text[i];
}

int32_t mz_bpe_find(const mz_bpe *bpe, const char *text, size_t bytes)
{
    return bpe->by_text ? (int32_t)*text_slot(bpe, text, bytes) - 1 : -1;
}

/* Room for ids up to `id` and for `bytes` more of text. */
static mz_status grow_tokens(mz_bpe *bpe, int64_t id, size_t bytes)
{
    if (id >= bpe->capacity) {
        const int64_t capacity = id + id / 2 + 1024;
        mz_bpe_token *tokens = mz_realloc(bpe->tokens, (size_t)capacity * sizeof *tokens);
        if (!tokens)
            return MZ_ERR_MEMORY;
        memset(tokens + bpe->capacity, 0, (size_t)(capacity - bpe->capacity) * sizeof *tokens);
        bpe->tokens = tokens;
        bpe->capacity = capacity;
    }
    if (bpe->text_bytes + bytes >= bpe->text_room) { /* at least one byte more, so that text is never NULL */
        const size_t room = (bpe->text_bytes + bytes) * 2 + 4096;
        char *text = mz_realloc(bpe->text, room);
        if (!text)
            return MZ_ERR_MEMORY;
        bpe->text = text;
        bpe->text_room = room;
    }
    return MZ_OK;
}

/* Keeps the table of texts at most half full. */
static mz_status grow_table(mz_bpe *bpe)
{
    if (bpe->by_text && (bpe->n_tokens + 1) * 2 <= bpe->by_text_mask)
        return MZ_OK;
    const uint64_t size = bpe->by_text ? (bpe->by_text_mask + 1) * 4 : 4096;
    uint32_t *table = mz_calloc(size, sizeof *table);
    if (!table)
        return MZ_ERR_MEMORY;
    mz_free(bpe->by_text);
    bpe->by_text = table;
    bpe->by_text_mask = size - 1;
    for (int64_t id = 0; id < bpe->n_ids; id++) {
        const mz_bpe_token *token = &bpe->tokens[id];
        if (token->used)
            *text_slot(bpe, bpe->text + token->offset, token->bytes) = (uint32_t)id + 1;
    }
    return MZ_OK;
}

mz_status mz_bpe_add_token(mz_bpe *bpe, const char *text, size_t bytes, int64_t id)
{
    if (id < 0 || id >= MAX_IDS)
        return mz_fail(MZ_ERR_MODEL, "token \"%.*s\": expected an id from 0 to %d, found %lld", (int)(bytes % 256),
                       text, MAX_IDS - 1, (long long)id);
    if (grow_tokens(bpe, id, bytes) || grow_table(bpe))
        return MZ_ERR_MEMORY;
    uint32_t *slot = text_slot(bpe, text, bytes);
    if (*slot || bpe->tokens[id].used)
        return mz_fail(MZ_ERR_MODEL, "token \"%.*s\": %s %lld is there twice", (int)(bytes % 256), text,
                       *slot ? "its text, here with id" : "its id", (long long)id);
    bpe->tokens[id] = (mz_bpe_token){.offset = bpe->text_bytes, .bytes = (uint32_t)bytes, .used = true};
    memcpy(bpe->text + bpe->text_bytes, text, bytes);
    bpe->text_bytes += bytes;
    *slot = (uint32_t)id + 1;
    bpe->n_tokens++;
    if (id >= bpe->n_ids)
        bpe->n_ids = id + 1;
    return MZ_OK;
}

static mz_status grow_merges(mz_bpe *bpe)
{
    if (bpe->merges && ((uint64_t)bpe->n_merges + 1) * 2 <= bpe->merges_mask)
        return MZ_OK;
    const uint64_t size = bpe->merges ? (bpe->merges_mask + 1) * 4 : 1024;
    mz_bpe_merge *old = bpe->merges, *table = mz_calloc(size, sizeof *table);
    if (!table)
        return MZ_ERR_MEMORY;
    const uint64_t n_old = old ? bpe->merges_mask + 1 : 0;
    bpe->merges = table;
    bpe->merges_mask = size - 1;
    for (uint64_t i = 0; i < n_old; i++) {
        if (old[i].pair)
            *mz_bpe_merge_slot(bpe, old[i].pair) = old[i];
    }
    mz_free(old);
    return MZ_OK;
}

mz_status mz_bpe_add_merge(mz_bpe *bpe, const char *left, size_t left_bytes, const char *right, size_t right_bytes)
{
    const int32_t left_id = mz_bpe_find(bpe, left, left_bytes), right_id = mz_bpe_find(bpe, right, right_bytes);
    if (left_id < 0 || right_id < 0)
        return mz_fail(MZ_ERR_MODEL, "merge \"%.*s %.*s\": its %s part is not in the vocabulary",
                       (int)(left_bytes % 256), left, (int)(right_bytes % 256), right,
                       left_id < 0 ? "first" : "second");
    if (grow_tokens(bpe, 0, left_bytes + right_bytes) || grow_merges(bpe))
        return MZ_ERR_MEMORY;
    char *whole = bpe->text + bpe->text_bytes; /* spare room, not kept */
    memcpy(whole, left, left_bytes);
    memcpy(whole + left_bytes, right, right_bytes);
    const int32_t id = mz_bpe_find(bpe, whole, left_bytes + right_bytes);
    if (id < 0)
        return mz_fail(MZ_ERR_MODEL, "merge \"%.*s %.*s\": the two joined are not in the vocabulary",
                       (int)(left_bytes % 256), left, (int)(right_bytes % 256), right);
    const uint64_t pair = mz_bpe_pair(left_id, right_id);
    mz_bpe_merge *slot = mz_bpe_merge_slot(bpe, pair);
    if (slot->pair)
        return mz_fail(MZ_ERR_MODEL, "merge \"%.*s %.*s\" is there twice", (int)(left_bytes % 256), left,
                       (int)(right_bytes % 256), right);
    *slot = (mz_bpe_merge){.pair = pair, .rank = bpe->n_merges++, .id = id};
    return MZ_OK;
}

mz_status mz_bpe_seal(mz_bpe *bpe, int32_t unknown_id)
{
    uint32_t characters[256];
    int16_t unused[MZ_BPE_ALPHABET_END];
    make_alphabet(characters, unused);
    for (int byte = 0; byte < 256; byte++) {
        char character[4];
        const int bytes = mz_utf8_encode(characters[byte], character);
        const int32_t id = mz_bpe_find(bpe, character, (size_t)bytes);
        bpe->byte_ids[byte] = id >= 0 ? id : unknown_id;
    }
    return grow_merges(bpe); /* so that there is a table even without merges */
}

/* ---- use ---- */

int64_t mz_bpe_n_ids(const mz_bpe *bpe)
{
    return bpe->n_ids;
}

uint64_t mz_bpe_fingerprint(const mz_bpe *bpe)
{
    uint64_t h = 1;
    for (int64_t id = 0; id < bpe->n_ids; id++) {
        const mz_bpe_token *token = &bpe->tokens[id];
        h = mz_hash64(h + token->used, bpe->text + token->offset, token->used ? token->bytes : 0);
    }
    /* The order in the table depends on how it grew, not on the model: a sum does not. */
    uint64_t sum = 0;
    for (uint64_t i = 0; bpe->merges && i <= bpe->merges_mask; i++) {
        const mz_bpe_merge *merge = &bpe->merges[i];
        const uint64_t fields[3] = {merge->pair, merge->rank, (uint64_t)merge->id};
        if (merge->pair)
            sum += mz_hash64(2, fields, sizeof fields);
    }
    h = mz_hash64(h ^ sum, bpe->byte_ids, sizeof bpe->byte_ids);
    return h;
}

int64_t mz_bpe_decode(const mz_bpe *bpe, int32_t id, char *out, size_t room)
{
    if (id < 0 || id >= bpe->n_ids || !bpe->tokens[id].used)
        return -1;
    const mz_bpe_token *token = &bpe->tokens[id];
    const char *text = bpe->text + token->offset;
    size_t n = 0;
    for (size_t i = 0; i < token->bytes; n++) {
        uint32_t code;
        const int length = mz_utf8_decode(text + i, token->bytes - i, &code);
        if (length == 0 || code >= MZ_BPE_ALPHABET_END || bpe->byte_of[code] < 0) {
            /* not written in the alphabet of bytes: the token is its own text */
            if (token->bytes <= room)
                memcpy(out, text, token->bytes);
            return (int64_t)token->bytes;
        }
        if (n < room)
            out[n] = (char)bpe->byte_of[code];
        i += (size_t)length;
    }
    return (int64_t)n;
}
