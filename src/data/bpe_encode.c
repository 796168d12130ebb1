#include <string.h>

#include "core/error.h"
#include "core/memory.h"
#include "data/bpe.h"
#include "data/bpe_internal.h"
#include "data/hash.h"
#include "data/utf8.h"

enum { CACHE_SLOTS = 1 << 14, CACHED_BYTES = 26, CACHED_IDS = 6, NO_RANK = -1 };

/* A word and its ids; one cache line or less. */
typedef struct cached_word {
    uint64_t hash;
    uint8_t bytes, n_ids; /* bytes 0: empty */
    char text[CACHED_BYTES];
    int32_t ids[CACHED_IDS];
} cached_word;

/* Symbols of the word in hand, linked in order; a joined one leaves the list. */
typedef struct symbol {
    int32_t id;
    int32_t previous, next; /* -1 at the ends */
    int64_t rank;           /* of the pair (this, next); NO_RANK when it does not merge */
} symbol;

/* A pair that could merge; stale when its symbol's rank has changed since. */
typedef struct candidate {
    uint32_t rank;
    int32_t position;
} candidate;

struct mz_bpe_encoder {
    const mz_bpe *bpe; /* borrowed */
    mz_word_matcher *matcher;
    cached_word *cache; /* [CACHE_SLOTS] */
    symbol *symbols;    /* [room] */
    candidate *heap;    /* [2 * room] smallest (rank, position) first */
    size_t room;
    int64_t n_heap;
};

mz_status mz_bpe_encoder_create(const mz_bpe *bpe, mz_bpe_encoder **out)
{
    mz_bpe_encoder *encoder = mz_calloc(1, sizeof *encoder);
    if (!encoder)
        return MZ_ERR_MEMORY;
    encoder->bpe = bpe;
    encoder->cache = mz_calloc(CACHE_SLOTS, sizeof *encoder->cache);
    mz_status status = encoder->cache ? mz_word_matcher_create(bpe->pattern, &encoder->matcher) : MZ_ERR_MEMORY;
    if (status) {
        mz_bpe_encoder_destroy(encoder);
        return status;
    }
    *out = encoder;
    return MZ_OK;
}

void mz_bpe_encoder_destroy(mz_bpe_encoder *encoder)
{
    if (!encoder)
        return;
    mz_word_matcher_destroy(encoder->matcher);
    mz_free(encoder->cache);
    mz_free(encoder->symbols);
    mz_free(encoder->heap);
    mz_free(encoder);
}

/* ---- the heap of candidates ---- */

static bool before(candidate a, candidate b)
{
    return a.rank != b.rank ? a.rank < b.rank : a.position < b.position;
}

static void push(mz_bpe_encoder *encoder, candidate c)
{
    candidate *heap = encoder->heap;
    int64_t i = encoder->n_heap++;
    for (; i > 0 && before(c, heap[(i - 1) / 2]); i = (i - 1) / 2)
        heap[i] = heap[(i - 1) / 2];
    heap[i] = c;
}

static candidate pop(mz_bpe_encoder *encoder)
{
    candidate *heap = encoder->heap;
    const candidate top = heap[0], last = heap[--encoder->n_heap];
    const int64_t n = encoder->n_heap;
    int64_t i = 0;
    for (int64_t child = 1; child < n; child = 2 * i + 1) {
        if (child + 1 < n && before(heap[child + 1], heap[child]))
            child++;
        if (!before(heap[child], last))
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = last;
    return top;
}

/* ---- merging one word ---- */

/* Looks up the pair that begins at symbol i and queues it when it merges. */
static void rank_pair(mz_bpe_encoder *encoder, int32_t i)
{
    symbol *s = &encoder->symbols[i];
    s->rank = NO_RANK;
    if (s->next < 0)
        return;
    const uint64_t pair = mz_bpe_pair(s->id, encoder->symbols[s->next].id);
    const mz_bpe_merge *merge = mz_bpe_merge_slot(encoder->bpe, pair);
    if (!merge->pair)
        return;
    s->rank = merge->rank;
    push(encoder, (candidate){merge->rank, i});
}

/* Joins symbol i with the one after it. */
static void join(mz_bpe_encoder *encoder, int32_t i)
{
    symbol *symbols = encoder->symbols, *s = &symbols[i], *gone = &symbols[s->next];
    s->id = mz_bpe_merge_slot(encoder->bpe, mz_bpe_pair(s->id, gone->id))->id;
    s->next = gone->next;
    gone->rank = NO_RANK;
    if (s->next >= 0)
        symbols[s->next].previous = i;
    rank_pair(encoder, i);
    if (s->previous >= 0)
        rank_pair(encoder, s->previous);
}

static mz_status reserve_symbols(mz_bpe_encoder *encoder, size_t n)
{
    if (n <= encoder->room)
        return MZ_OK;
    if (n > INT32_MAX / 4)
        return mz_fail(MZ_ERR_DATA, "a word of %zu bytes (text without a space) is too long to tokenise", n);
    const size_t room = n + n / 2 + 64;
    symbol *symbols = mz_realloc(encoder->symbols, room * sizeof *symbols);
    if (!symbols)
        return MZ_ERR_MEMORY;
    encoder->symbols = symbols;
    /* each pair is queued once at the start, and each of fewer than n joins queues two more */
    candidate *heap = mz_realloc(encoder->heap, 3 * room * sizeof *heap);
    if (!heap)
        return MZ_ERR_MEMORY;
    encoder->heap = heap;
    encoder->room = room;
    return MZ_OK;
}

/* Appends the ids of one word. */
static mz_status merge_word(mz_bpe_encoder *encoder, const uint8_t *word, size_t bytes, mz_ids *ids)
{
    mz_status status = reserve_symbols(encoder, bytes);
    if (!status)
        status = mz_ids_reserve(ids, (int64_t)bytes);
    if (status)
        return status;
    symbol *symbols = encoder->symbols;
    const int32_t n = (int32_t)bytes;
    for (int32_t i = 0; i < n; i++) {
        const int32_t id = encoder->bpe->byte_ids[word[i]];
        if (id < 0)
            return mz_fail(MZ_ERR_DATA,
                           "byte 0x%02x has no token: the vocabulary lacks it and names no unknown token", word[i]);
        symbols[i] = (symbol){.id = id, .previous = i - 1, .next = i + 1 < n ? i + 1 : -1};
    }
    encoder->n_heap = 0;
    for (int32_t i = 0; i < n; i++)
        rank_pair(encoder, i);
    while (encoder->n_heap > 0) {
        const candidate c = pop(encoder);
        if (symbols[c.position].rank == (int64_t)c.rank)
            join(encoder, c.position);
    }
    for (int32_t i = 0; i >= 0; i = symbols[i].next)
        ids->ids[ids->n++] = symbols[i].id;
    return MZ_OK;
}

static mz_status encode_word(mz_bpe_encoder *encoder, const char *word, size_t bytes, mz_ids *ids)
{
    if (bytes > CACHED_BYTES)
        return merge_word(encoder, (const uint8_t *)word, bytes, ids);
    const uint64_t hash = mz_hash64(0, word, bytes);
    cached_word *entry = &encoder->cache[hash % CACHE_SLOTS];
    if (entry->hash == hash && entry->bytes == bytes && memcmp(entry->text, word, bytes) == 0) {
        if (mz_ids_reserve(ids, CACHED_IDS))
            return MZ_ERR_MEMORY;
        memcpy(ids->ids + ids->n, entry->ids, sizeof entry->ids);
        ids->n += entry->n_ids;
        return MZ_OK;
    }
    const int64_t first = ids->n;
    mz_status status = merge_word(encoder, (const uint8_t *)word, bytes, ids);
    const int64_t n = ids->n - first;
    if (!status && n <= CACHED_IDS) {
        entry->hash = hash;
        entry->bytes = (uint8_t)bytes;
        entry->n_ids = (uint8_t)n;
        memcpy(entry->text, word, bytes);
        memcpy(entry->ids, ids->ids + first, (size_t)n * sizeof *entry->ids);
    }
    return status;
}

/* ---- text to words ---- */

mz_status mz_bpe_encode(mz_bpe_encoder *encoder, const char *text, size_t bytes, mz_ids *ids)
{
    mz_status status = MZ_OK;
    for (size_t begin = 0, end; !status && begin < bytes; begin = end) {
        status = mz_word_end(encoder->matcher, text, bytes, begin, &end);
        if (!status)
            status = encode_word(encoder, text + begin, end - begin, ids);
    }
    return status;
}
