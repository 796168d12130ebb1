#include "data/tokenizer.h"

#include <pthread.h>
#include <string.h>

#include "core/error.h"
#include "core/memory.h"
#include "data/hash.h"
#include "data/tokenizer_files.h"
#include "data/tokenizer_pieces.h"
#include "data/utf8.h"

enum { BYTE_END = 256, BYTE_VOCAB = 257 };

typedef struct idle_encoder {
    mz_bpe_encoder *encoder;
    struct idle_encoder *next;
} idle_encoder;

struct mz_tokenizer {
    char *name, *folder;
    mz_tokenizer_parts parts; /* bpe NULL: the byte tokenizer */
    bool begins_added[256];   /* first bytes of added tokens */
    bool one_piece;           /* no place is safe to cut a text at */
    pthread_mutex_t lock;     /* of the idle encoders, which keep their caches of words between calls */
    idle_encoder *idle;
};

mz_status mz_tokenizer_from_parts(const char *name, const char *folder, mz_tokenizer_parts *parts,
                                  mz_tokenizer **out)
{
    mz_tokenizer *tokenizer = mz_calloc(1, sizeof *tokenizer);
    if (!tokenizer) {
        mz_tokenizer_parts_free(parts);
        return MZ_ERR_MEMORY;
    }
    pthread_mutex_init(&tokenizer->lock, NULL);
    tokenizer->parts = *parts;
    *parts = (mz_tokenizer_parts){.end_id = -1};
    tokenizer->name = mz_strdup(name);
    tokenizer->folder = folder ? mz_strdup(folder) : NULL;
    if (!tokenizer->name || (folder && !tokenizer->folder)) {
        mz_tokenizer_close(tokenizer);
        return MZ_ERR_MEMORY;
    }
    tokenizer->one_piece = tokenizer->parts.prefix != MZ_PREFIX_NONE;
    for (int i = 0; i < tokenizer->parts.n_added; i++) {
        const mz_added_token *added = &tokenizer->parts.added[i];
        tokenizer->begins_added[(uint8_t)added->text[0]] = true;
        tokenizer->one_piece |= added->strip_left || added->strip_right || strchr(added->text, '\n');
    }
    *out = tokenizer;
    return MZ_OK;
}

mz_status mz_tokenizer_open(const char *spec, mz_tokenizer **tokenizer)
{
    mz_tokenizer_parts parts = {.end_id = BYTE_END};
    if (strcmp(spec, "byte") == 0)
        return mz_tokenizer_from_parts(spec, NULL, &parts, tokenizer);
    const mz_status status = mz_tokenizer_read_folder(spec, &parts);
    return status ? status : mz_tokenizer_from_parts(spec, spec, &parts, tokenizer);
}

void mz_tokenizer_close(mz_tokenizer *tokenizer)
{
    if (!tokenizer)
        return;
    for (idle_encoder *idle = tokenizer->idle, *next; idle; idle = next) {
        next = idle->next;
        mz_bpe_encoder_destroy(idle->encoder);
        mz_free(idle);
    }
    pthread_mutex_destroy(&tokenizer->lock);
    mz_tokenizer_parts_free(&tokenizer->parts);
    mz_free(tokenizer->name);
    mz_free(tokenizer->folder);
    mz_free(tokenizer);
}

int64_t mz_tokenizer_vocab(const mz_tokenizer *tokenizer)
{
    return tokenizer->parts.bpe ? mz_bpe_n_ids(tokenizer->parts.bpe) : BYTE_VOCAB;
}

int32_t mz_tokenizer_end_id(const mz_tokenizer *tokenizer)
{
    return tokenizer->parts.end_id;
}

const char *mz_tokenizer_name(const mz_tokenizer *tokenizer)
{
    return tokenizer->name;
}

const char *mz_tokenizer_folder(const mz_tokenizer *tokenizer)
{
    return tokenizer->folder;
}

uint64_t mz_tokenizer_fingerprint(const mz_tokenizer *tokenizer)
{
    const mz_tokenizer_parts *parts = &tokenizer->parts;
    uint64_t h = parts->bpe ? mz_bpe_fingerprint(parts->bpe) : mz_hash64(0, "byte", 4);
    for (int i = 0; i < parts->n_added; i++) {
        const mz_added_token *added = &parts->added[i];
        const int32_t fields[4] = {added->id, added->special, added->strip_left, added->strip_right};
        h = mz_hash64(mz_hash64(h, fields, sizeof fields), added->text, added->bytes);
    }
    const int32_t fields[2] = {parts->end_id, (int32_t)parts->prefix};
    return mz_hash64(h, fields, sizeof fields);
}

/* ---- text to ids ---- */

static mz_status encode_bytes(const char *text, size_t bytes, mz_ids *ids)
{
    if (mz_ids_reserve(ids, (int64_t)bytes))
        return MZ_ERR_MEMORY;
    for (size_t i = 0; i < bytes; i++)
        ids->ids[ids->n++] = (uint8_t)text[i];
    return MZ_OK;
}

/* The longest added token at text[0]; NULL when there is none. */
static const mz_added_token *added_at(const mz_tokenizer *tokenizer, const char *text, size_t bytes, bool special)
{
    const mz_added_token *longest = NULL;
    for (int i = 0; i < tokenizer->parts.n_added; i++) {
        const mz_added_token *added = &tokenizer->parts.added[i];
        if ((special || !added->special) && added->bytes <= bytes && (!longest || added->bytes > longest->bytes) &&
            memcmp(added->text, text, added->bytes) == 0)
            longest = added;
    }
    return longest;
}

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Encodes a stretch without added tokens, with a space in front when `prefix`. */
static mz_status encode_stretch(mz_bpe_encoder *encoder, const char *text, size_t bytes, bool prefix, mz_ids *ids)
{
    if (!prefix)
        return mz_bpe_encode(encoder, text, bytes, ids);
    char *prefixed = mz_alloc(bytes + 1);
    if (!prefixed)
        return MZ_ERR_MEMORY;
    prefixed[0] = ' ';
    memcpy(prefixed + 1, text, bytes);
    const mz_status status = mz_bpe_encode(encoder, prefixed, bytes + 1, ids);
    mz_free(prefixed);
    return status;
}

/* Cuts the text at added tokens and encodes what lies between them. */
static mz_status encode_bpe(const mz_tokenizer *tokenizer, mz_bpe_encoder *encoder, const char *text, size_t bytes,
                            bool special, mz_ids *ids)
{
    mz_status status = MZ_OK;
    size_t begin = 0, i = 0;
    while (!status && i < bytes) {
        const mz_added_token *added = NULL;
        for (; i < bytes; i++) {
            if (tokenizer->begins_added[(uint8_t)text[i]] &&
                (added = added_at(tokenizer, text + i, bytes - i, special)) != NULL)
                break;
        }
        size_t end = i;
        while (added && added->strip_left && end > begin && is_blank(text[end - 1]))
            end--;
        const mz_prefix where = tokenizer->parts.prefix;
        const bool prefix = (where == MZ_PREFIX_SEGMENT && end > begin && text[begin] != ' ') ||
                            (where == MZ_PREFIX_TEXT && begin == 0 && !is_blank(*text));
        status = encode_stretch(encoder, text + begin, end - begin, prefix, ids);
        if (status || !added)
            break;
        status = mz_ids_reserve(ids, 1);
        if (!status)
            ids->ids[ids->n++] = added->id;
        i += added->bytes;
        while (added->strip_right && i < bytes && is_blank(text[i]))
            i++;
        begin = i;
    }
    return status;
}

/* An encoder that no other thread uses, with the node that holds it while idle. */
static mz_status take_encoder(mz_tokenizer *tokenizer, idle_encoder **taken)
{
    pthread_mutex_lock(&tokenizer->lock);
    idle_encoder *idle = tokenizer->idle;
    if (idle)
        tokenizer->idle = idle->next;
    pthread_mutex_unlock(&tokenizer->lock);
    if (!idle) {
        idle = mz_calloc(1, sizeof *idle);
        const mz_status status = idle ? mz_bpe_encoder_create(tokenizer->parts.bpe, &idle->encoder) : MZ_ERR_MEMORY;
        if (status) {
            mz_free(idle);
            return status;
        }
    }
    *taken = idle;
    return MZ_OK;
}

static void put_back(mz_tokenizer *tokenizer, idle_encoder *idle)
{
    pthread_mutex_lock(&tokenizer->lock);
    idle->next = tokenizer->idle;
    tokenizer->idle = idle;
    pthread_mutex_unlock(&tokenizer->lock);
}

mz_status mz_tokenizer_encode(const mz_tokenizer *tokenizer, const char *text, size_t bytes, bool parse_special,
                              int32_t **ids, int64_t *n, int64_t *capacity)
{
    mz_ids out = {*ids, *n, *capacity};
    mz_status status;
    if (!tokenizer->parts.bpe) {
        status = encode_bytes(text, bytes, &out);
    } else {
        const size_t valid = mz_utf8_valid_prefix(text, bytes);
        if (valid < bytes)
            return mz_fail(MZ_ERR_DATA, "byte %zu (0x%02x) of the text: expected UTF-8", valid,
                           (uint8_t)text[valid]);
        mz_tokenizer *shared = (mz_tokenizer *)(uintptr_t)tokenizer; /* the list of idle encoders has its lock */
        idle_encoder *idle;
        status = take_encoder(shared, &idle);
        if (status)
            return status;
        status = encode_bpe(tokenizer, idle->encoder, text, bytes, parse_special, &out);
        put_back(shared, idle);
    }
    *ids = out.ids;
    *capacity = out.capacity;
    if (!status)
        *n = out.n;
    return status;
}

mz_status mz_tokenizer_append(int32_t **ids, int64_t *n, int64_t *capacity, int32_t id)
{
    mz_ids out = {*ids, *n, *capacity};
    const mz_status status = mz_ids_reserve(&out, 1);
    if (!status)
        out.ids[out.n++] = id;
    *ids = out.ids;
    *n = out.n;
    *capacity = out.capacity;
    return status;
}

/* A line's end between two characters that are not white space is a word of its own, whatever stands around it. */
bool mz_tokenizer_may_cut(const mz_tokenizer *tokenizer, const char *text, size_t bytes, size_t cut)
{
    if (!tokenizer->parts.bpe)
        return true;
    if (tokenizer->one_piece || cut < 2 || cut >= bytes)
        return false;
    size_t before = cut - 2; /* the first byte of the last character before the line's end */
    while (before > 0 && cut - before < 5 && ((uint8_t)text[before] & 0xc0) == 0x80)
        before--;
    uint32_t left, right;
    return mz_utf8_decode(text + before, cut - before, &left) && !mz_utf8_is_blank(left) &&
           mz_utf8_decode(text + cut, bytes - cut, &right) && !mz_utf8_is_blank(right);
}

/* ---- ids to text ---- */

/* Bytes of one id, written when there is room; -1 for an unknown one. The byte tokenizer's end is no text. */
static int64_t decode_id(const mz_tokenizer *tokenizer, int32_t id, char *out, size_t room)
{
    if (tokenizer->parts.bpe)
        return mz_bpe_decode(tokenizer->parts.bpe, id, out, room);
    if (id < 0 || id >= BYTE_VOCAB)
        return -1;
    if (id != BYTE_END && room > 0)
        *out = (char)id;
    return id != BYTE_END;
}

mz_status mz_tokenizer_decode(const mz_tokenizer *tokenizer, const int32_t *ids, int64_t n, char **text,
                              size_t *bytes)
{
    size_t total = 0;
    for (int64_t i = 0; i < n; i++) {
        const int64_t more = decode_id(tokenizer, ids[i], NULL, 0);
        if (more < 0)
            return mz_fail(MZ_ERR_ARGUMENT, "tokenizer %s: expected ids from 0 to %lld, found %d at place %lld",
                           tokenizer->name, (long long)mz_tokenizer_vocab(tokenizer) - 1, ids[i], (long long)i);
        total += (size_t)more;
    }
    char *out = mz_alloc(total + 1);
    if (!out)
        return MZ_ERR_MEMORY;
    size_t used = 0;
    for (int64_t i = 0; i < n; i++)
        used += (size_t)decode_id(tokenizer, ids[i], out + used, total - used);
    out[used] = '\0';
    *text = out;
    *bytes = used;
    return MZ_OK;
}
