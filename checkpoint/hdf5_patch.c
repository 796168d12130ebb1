#include "checkpoint/hdf5_patch.h"

#include <string.h>

#include "core/error.h"
#include "core/memory.h"

enum { MESSAGE_LAYOUT = 0x08, MESSAGE_ATTRIBUTE = 0x0c, MESSAGE_CONTINUATION = 0x10 };
enum { CHECKSUM = 4, MOST = 1 << 20, MOST_BLOCKS = 16 };

static uint64_t number(const uint8_t *p, int bytes)
{
    uint64_t n = 0;
    for (int i = bytes - 1; i >= 0; i--)
        n = n << 8 | p[i];
    return n;
}

static void put_number(uint8_t *p, uint32_t n)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(n >> 8 * i);
}

/* ---- Bob Jenkins' lookup3 (2006), hashlittle() from 0: HDF5's checksum ---- */

static uint32_t rotate(uint32_t x, int k)
{
    return x << k | x >> (32 - k);
}

static void mix(uint32_t v[3])
{
    static const int turns[6] = {4, 6, 8, 16, 19, 4};
    for (int i = 0; i < 6; i++) { /* a, c, b; b, a, c; c, b, a; and again */
        uint32_t *x = &v[i % 3], *y = &v[(i + 2) % 3], *z = &v[(i + 1) % 3];
        *x = (*x - *y) ^ rotate(*y, turns[i]);
        *y += *z;
    }
}

static void finish(uint32_t v[3])
{
    static const int turns[7] = {14, 11, 25, 16, 4, 14, 24};
    for (int i = 0; i < 7; i++) { /* c from b, a from c, b from a, ... */
        uint32_t *x = &v[(i + 2) % 3], *y = &v[(i + 1) % 3];
        *x = (*x ^ *y) - rotate(*y, turns[i]);
    }
}

static uint32_t checksum(const uint8_t *p, size_t bytes)
{
    uint32_t v[3];
    v[0] = v[1] = v[2] = 0xdeadbeefu + (uint32_t)bytes;
    for (; bytes > 12; p += 12, bytes -= 12) {
        for (int i = 0; i < 3; i++)
            v[i] += (uint32_t)number(p + 4 * i, 4);
        mix(v);
    }
    if (bytes == 0)
        return v[2];
    for (size_t i = 0; i < bytes; i++)
        v[i / 4] += (uint32_t)p[i] << 8 * (i % 4);
    finish(v);
    return v[2];
}

/* ---- reading headers ---- */

typedef struct search {
    const mz_sparse *memory;
    uint8_t *bytes; /* room for MOST: the block in hand */
    mz_hdf5_header header;
    struct {
        int64_t at, n;
    } next[MOST_BLOCKS]; /* blocks that continue the header */
    int n_next;
} search;

/* Reads a block of n bytes; false when it is none, by its signature or checksum. */
static bool read_block(search *s, int64_t at, int64_t n, const char *signature)
{
    if (at < 0 || n < 4 + CHECKSUM || n > MOST || at + n > s->memory->bytes)
        return false;
    mz_sparse_read(s->memory, at, s->bytes, (size_t)n);
    return memcmp(s->bytes, signature, 4) == 0 &&
           checksum(s->bytes, (size_t)n - CHECKSUM) == number(s->bytes + n - CHECKSUM, 4);
}

/* An attribute message of version 3, without shared parts: sizes, name, type, space, values. */
static void note_attribute(search *s, int64_t block, int64_t n_block, int64_t at, int64_t size)
{
    const uint8_t *p = s->bytes + at;
    if (size < 9 || p[0] != 3 || p[1] != 0)
        return;
    const int64_t name = (int64_t)number(p + 2, 2), type = (int64_t)number(p + 4, 2),
                  space = (int64_t)number(p + 6, 2);
    const int64_t values = 9 + name + type + space;
    if (values > size)
        return;
    const mz_hdf5_place place = {block, (int32_t)n_block, (int32_t)(at + values), (int32_t)(size - values)};
    if (name == 7 && memcmp(p + 9, "crc32c", 7) == 0)
        s->header.crc32c = place;
    else if (name == 5 && memcmp(p + 9, "step", 5) == 0)
        s->header.step = place;
}

/* The messages from `at` on of the block in hand. */
static void read_messages(search *s, int64_t block, int64_t n_block, int64_t at, bool ordered)
{
    for (const int64_t head = ordered ? 6 : 4; at + head <= n_block - CHECKSUM;) {
        const uint8_t *p = s->bytes + at;
        const int64_t size = (int64_t)number(p + 1, 2), data = at + head;
        if (data + size > n_block - CHECKSUM)
            return;
        if (p[0] == MESSAGE_LAYOUT && size >= 18 && (p[head] == 3 || p[head] == 4) && p[head + 1] == 1)
            s->header.data = (int64_t)number(p + head + 2, 8);
        else if (p[0] == MESSAGE_ATTRIBUTE)
            note_attribute(s, block, n_block, data, size);
        else if (p[0] == MESSAGE_CONTINUATION && size >= 16 && s->n_next < MOST_BLOCKS) {
            s->next[s->n_next].at = (int64_t)number(p + head, 8);
            s->next[s->n_next++].n = (int64_t)number(p + head + 8, 8);
        }
        at = data + size;
    }
}

/* Reads the object header at `at`; false when there is none. */
static bool read_header(search *s, int64_t at)
{
    uint8_t start[30];
    if (at + (int64_t)sizeof start > s->memory->bytes)
        return false;
    mz_sparse_read(s->memory, at, start, sizeof start);
    if (start[4] != 2)
        return false;
    const int flags = start[5], width = 1 << (flags & 3);
    const int64_t size_at = 6 + (flags & 0x20 ? 16 : 0) + (flags & 0x10 ? 4 : 0);
    if (size_at + width > (int64_t)sizeof start)
        return false;
    const int64_t n = (int64_t)number(start + size_at, width), begin = size_at + width;
    if (n > MOST || !read_block(s, at, begin + n + CHECKSUM, "OHDR"))
        return false;
    s->header = (mz_hdf5_header){.data = -1};
    s->n_next = 0;
    read_messages(s, at, begin + n + CHECKSUM, begin, flags & 4);
    for (int i = 0; i < s->n_next; i++)
        if (read_block(s, s->next[i].at, s->next[i].n, "OCHK"))
            read_messages(s, s->next[i].at, s->next[i].n, 4, flags & 4);
    return true;
}

mz_status mz_hdf5_headers(const mz_sparse *memory, mz_hdf5_header_fn found, void *context)
{
    search s = {.memory = memory, .bytes = mz_alloc(MOST)};
    if (!s.bytes)
        return MZ_ERR_MEMORY;
    for (int64_t at = 0; at < memory->bytes;) {
        size_t n = (size_t)(memory->bytes - at);
        const char *piece = mz_sparse_next(memory, &at, &n);
        for (size_t i = 0; piece && i < n; i++) {
            char signature[4];
            if (piece[i] != 'O' || at + (int64_t)i + 4 > memory->bytes)
                continue;
            mz_sparse_read(memory, at + (int64_t)i, signature, 4);
            if (memcmp(signature, "OHDR", 4) == 0 && read_header(&s, at + (int64_t)i))
                found(context, &s.header);
        }
        at += (int64_t)n;
    }
    mz_free(s.bytes);
    return MZ_OK;
}

mz_status mz_hdf5_patch(mz_sparse *memory, const mz_hdf5_place *place, const void *values, size_t bytes)
{
    uint8_t *block = mz_alloc((size_t)place->n_block);
    if (!block)
        return MZ_ERR_MEMORY;
    mz_sparse_read(memory, place->block, block, (size_t)place->n_block);
    memcpy(block + place->at, values, bytes);
    put_number(block + place->n_block - CHECKSUM, checksum(block, (size_t)place->n_block - CHECKSUM));
    const bool good = mz_sparse_write(memory, place->block, block, (size_t)place->n_block);
    mz_free(block);
    return good ? MZ_OK : MZ_ERR_MEMORY;
}
