/* CRC-32C of the shards' blocks, by the update itself: what it has just written is in the cache, so that a save
 * need not read it again. For that the update's chunks are cut where blocks begin and end. */
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/file.h"
#include "core/memory.h"

#include "zero/internal.h"

/* Where a shard of parameters lies. */
typedef struct place {
    uintptr_t begin;
    int64_t count, block;
    int64_t first; /* of its blocks among those of all such shards */
} place;

typedef struct place_list {
    place *places; /* by address */
    int64_t n, n_blocks;
    int64_t size; /* of an element, in bytes */
} place_list;

static int compare_places(const void *a, const void *b)
{
    const uintptr_t x = ((const place *)a)->begin, y = ((const place *)b)->begin;
    return (x > y) - (x < y);
}

static mz_status list_places(const mz_zero *z, int64_t (*block_of)(int64_t), place_list *list)
{
    list->size = (int64_t)mz_dtype_size(z->master_dtype);
    list->places = mz_calloc((size_t)z->n_shards + 1, sizeof *list->places);
    if (!list->places)
        return MZ_ERR_MEMORY;
    for (int64_t i = 0; i < z->n_shards && z->shards[i].kind == MZ_SHARD_PARAM; i++) {
        const mz_shard *shard = &z->shards[i];
        const int64_t block = block_of(shard->count);
        list->places[list->n++] = (place){
            .begin = (uintptr_t)shard->data, .count = shard->count, .block = block, .first = list->n_blocks};
        list->n_blocks += (shard->count + block - 1) / block;
    }
    qsort(list->places, (size_t)list->n, sizeof *list->places, compare_places);
    return MZ_OK;
}

/* The first place that ends behind `at`; NULL when there is none. */
static const place *find_place(const place_list *list, uintptr_t at)
{
    int64_t low = 0, high = list->n;
    while (low < high) {
        const int64_t middle = (low + high) / 2;
        const place *p = &list->places[middle];
        if (p->begin + (uintptr_t)(p->count * list->size) > at)
            high = middle;
        else
            low = middle + 1;
    }
    return low < list->n ? &list->places[low] : NULL;
}

/* How many of the n elements from `at` on lie in one block, or in none; *block: which, -1: none; *begins: its first
 * is among them. */
static int64_t cut(const place_list *list, uintptr_t at, int64_t n, int64_t *block, bool *begins)
{
    const place *p = find_place(list, at);
    *block = -1;
    *begins = false;
    if (!p || p->begin >= at + (uintptr_t)(n * list->size))
        return n;
    if (p->begin > at)
        return (int64_t)(p->begin - at) / list->size;
    const int64_t done = (int64_t)(at - p->begin) / list->size, end = (done / p->block + 1) * p->block;
    const int64_t left = (end < p->count ? end : p->count) - done;
    *block = p->first + done / p->block;
    *begins = done % p->block == 0;
    return left < n ? left : n;
}

static void *element_at(const void *base, int64_t i, mz_dtype dtype)
{
    return base ? (uint8_t *)(uintptr_t)base + (size_t)i * mz_dtype_size(dtype) : NULL;
}

/* What the update keeps in full: the masters, or where there are none the parameters. */
static const void *weights_of(const mz_optim_chunk *chunk)
{
    return chunk->master ? (const void *)chunk->master : chunk->param;
}

static mz_optim_chunk part_of(const mz_zero *z, const mz_optim_chunk *chunk, int64_t begin, int64_t n)
{
    mz_optim_chunk part = *chunk;
    part.master = element_at(chunk->master, begin, MZ_F32);
    part.state1 = element_at(chunk->state1, begin, z->state_dtype);
    part.state2 = element_at(chunk->state2, begin, z->state_dtype);
    part.grad = element_at(chunk->grad, begin, z->shard_dtype);
    part.param = element_at(chunk->param, begin, z->dtype);
    part.n = n;
    part.first += begin;
    return part;
}

/* Cuts all chunks of the updater; only counts the parts while there is no room for them. */
static void cut_chunks(const mz_zero *z, const place_list *list, mz_checksums *sums)
{
    const mz_updater *u = &z->updater;
    sums->n_chunks = 0;
    for (int g = 0; g < u->n_groups; g++) {
        const int first = sums->n_chunks;
        for (int i = u->groups[g].first; i < u->groups[g].first + u->groups[g].n; i++) {
            const mz_optim_chunk *chunk = &u->chunks[i];
            for (int64_t done = 0, n, block; done < chunk->n; done += n) {
                bool begins;
                n = cut(list, (uintptr_t)weights_of(chunk) + (uintptr_t)(done * list->size), chunk->n - done,
                        &block, &begins);
                if (sums->chunks) {
                    sums->chunks[sums->n_chunks] = part_of(z, chunk, done, n);
                    sums->targets[sums->n_chunks] =
                        (mz_checksum_target){.crc = block < 0 ? NULL : sums->crcs + block, .begins = begins};
                }
                sums->n_chunks++;
            }
        }
        if (sums->groups)
            sums->groups[g] = (mz_optim_group){first, sums->n_chunks - first, u->groups[g].elements};
    }
}

mz_status mz_zero_checksums_prepare(mz_zero *z, int64_t (*block_of)(int64_t count))
{
    mz_checksums *sums = &z->checksums;
    place_list list = {0};
    if (sums->chunks || z->inference || strcmp(z->device->ops->name, "cpu") != 0)
        return MZ_OK;
    mz_status status = list_places(z, block_of, &list);
    if (!status) {
        cut_chunks(z, &list, sums);
        sums->n_blocks = list.n_blocks;
        sums->crcs = mz_calloc((size_t)(list.n_blocks * MZ_N_SHARD_KINDS) + 1, sizeof *sums->crcs);
        sums->groups = mz_calloc((size_t)z->updater.n_groups + 1, sizeof *sums->groups);
        sums->targets = mz_calloc((size_t)sums->n_chunks + 1, sizeof *sums->targets);
        sums->chunks = mz_calloc((size_t)sums->n_chunks + 1, sizeof *sums->chunks);
        status = sums->crcs && sums->groups && sums->targets && sums->chunks ? MZ_OK : MZ_ERR_MEMORY;
    }
    if (status)
        mz_zero_checksums_free(z);
    else
        cut_chunks(z, &list, sums);
    mz_free(list.places);
    return status;
}

void mz_zero_checksums_free(mz_zero *z)
{
    mz_free(z->checksums.crcs);
    mz_free(z->checksums.groups);
    mz_free(z->checksums.targets);
    mz_free(z->checksums.chunks);
    z->checksums = (mz_checksums){0};
}

void mz_zero_checksums_add(void *zero, const mz_optim_chunk *chunk, int64_t begin, int64_t end)
{
    const mz_zero *z = zero;
    const mz_checksum_target *target = &z->checksums.targets[chunk - z->checksums.chunks];
    const void *const values[MZ_N_SHARD_KINDS] = {weights_of(chunk), chunk->state1, chunk->state2};
    const bool begins = target->begins && begin == 0;
    for (int kind = 0; target->crc && kind <= z->n_states; kind++) {
        uint32_t *crc = target->crc + kind * z->checksums.n_blocks;
        const mz_dtype dtype = mz_zero_kind_dtype(z, (mz_shard_kind)kind);
        *crc = mz_crc32c(begins ? 0 : *crc, element_at(values[kind], begin, dtype),
                         (size_t)(end - begin) * mz_dtype_size(dtype));
    }
}

const uint32_t *mz_zero_checksums(const mz_zero *z)
{
    return z->checksums.present ? z->checksums.crcs : NULL;
}
