#include "device/arena.h"

#include <string.h>

#include "core/error.h"
#include "core/memory.h"

#define ALIGNMENT  ((size_t)256)
#define SLAB_BYTES ((size_t)64 << 20)

/* A block or a hole. */
typedef struct segment {
    size_t offset, bytes;
    size_t plan_offset; /* of a live block in a growing arena: where a fixed arena would have put it */
    bool live;
} segment;

/* Offsets 0..top handed out, as address-ordered segments without gaps between them; beyond top all is
 * free, and the last segment is live (a hole there is given back to the top).
 *
 * A request takes the smallest hole below the top that fits, the lowest of equals, and only when none
 * fits the top. So where a block lands depends on the requests before it and not on the capacity: a sequence that
 * reached `peak` once fits a capacity of `peak` always. */
typedef struct space {
    segment *segments;
    int n, capacity_n;
    size_t top, peak;
} space;

typedef struct slab {
    char *memory;
    size_t capacity;
    space space;
} slab;

struct mz_arena {
    mz_device *device;
    bool growing;
    slab *slabs;
    int n_slabs;
    space plan; /* growing: the same requests in one unbounded space, to know the peak */
    size_t used;
};

/* Room for one more segment. */
static mz_status space_reserve(space *s)
{
    if (s->n < s->capacity_n)
        return MZ_OK;
    int capacity_n = s->capacity_n ? 2 * s->capacity_n : 64;
    segment *segments = mz_realloc(s->segments, (size_t)capacity_n * sizeof *segments);
    if (!segments)
        return MZ_ERR_MEMORY;
    s->segments = segments;
    s->capacity_n = capacity_n;
    return MZ_OK;
}

/* Index of the smallest hole that holds `bytes`, or -1. */
static int space_best_hole(const space *s, size_t bytes)
{
    int best = -1;
    for (int i = 0; i < s->n; i++) {
        const segment *g = &s->segments[i];
        if (!g->live && g->bytes >= bytes && (best < 0 || g->bytes < s->segments[best].bytes))
            best = i;
    }
    return best;
}

/* Takes `bytes` from hole `i`, or from the top with i == -1. Needs space_reserve before. */
static segment *space_take(space *s, int i, size_t bytes)
{
    if (i < 0) {
        segment *g = &s->segments[s->n++];
        *g = (segment){.offset = s->top, .bytes = bytes, .live = true};
        s->top += bytes;
        if (s->top > s->peak)
            s->peak = s->top;
        return g;
    }
    segment *g = &s->segments[i];
    if (g->bytes > bytes) {
        memmove(g + 2, g + 1, (size_t)(s->n - i - 1) * sizeof *g);
        g[1] = (segment){.offset = g->offset + bytes, .bytes = g->bytes - bytes};
        g->bytes = bytes;
        s->n++;
    }
    g->live = true;
    return g;
}

static void space_remove(space *s, int i)
{
    memmove(&s->segments[i], &s->segments[i + 1], (size_t)(s->n - i - 1) * sizeof s->segments[0]);
    s->n--;
}

/* Index of the live block at `offset`, or -1. */
static int space_find(const space *s, size_t offset)
{
    int low = 0, high = s->n;
    while (low < high) {
        int middle = (low + high) / 2;
        if (s->segments[middle].offset < offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low < s->n && s->segments[low].offset == offset && s->segments[low].live ? low : -1;
}

/* Makes block `i` a hole, joined with the holes beside it. */
static void space_give(space *s, int i)
{
    s->segments[i].live = false;
    if (i + 1 < s->n && !s->segments[i + 1].live) {
        s->segments[i].bytes += s->segments[i + 1].bytes;
        space_remove(s, i + 1);
    }
    if (i > 0 && !s->segments[i - 1].live) {
        s->segments[i - 1].bytes += s->segments[i].bytes;
        space_remove(s, i);
        i--;
    }
    if (i == s->n - 1) {
        s->top = s->segments[i].offset;
        s->n--;
    }
}

static void space_clear(space *s)
{
    s->n = 0;
    s->top = 0;
}

static mz_status add_slab(mz_arena *arena, size_t capacity)
{
    slab *slabs = mz_realloc(arena->slabs, (size_t)(arena->n_slabs + 1) * sizeof *slabs);
    if (!slabs)
        return MZ_ERR_MEMORY;
    arena->slabs = slabs;
    void *memory;
    mz_status status = arena->device->ops->alloc(arena->device, capacity, &memory);
    if (status)
        return status;
    slabs[arena->n_slabs++] = (slab){.memory = memory, .capacity = capacity};
    return MZ_OK;
}

mz_status mz_arena_create(mz_device *device, size_t bytes, mz_arena **arena)
{
    mz_arena *a = mz_calloc(1, sizeof *a);
    if (!a)
        return MZ_ERR_MEMORY;
    a->device = device;
    a->growing = bytes == 0;
    mz_status status = a->growing ? MZ_OK : add_slab(a, bytes);
    if (status) {
        mz_arena_destroy(a);
        return status;
    }
    *arena = a;
    return MZ_OK;
}

void mz_arena_destroy(mz_arena *arena)
{
    if (!arena)
        return;
    for (int i = 0; i < arena->n_slabs; i++) {
        arena->device->ops->free(arena->device, arena->slabs[i].memory);
        mz_free(arena->slabs[i].space.segments);
    }
    mz_free(arena->slabs);
    mz_free(arena->plan.segments);
    mz_free(arena);
}

/* The slab to take `bytes` from and its hole (-1: its top); NULL when no slab has room. */
static slab *find_room(const mz_arena *arena, size_t bytes, int *hole)
{
    slab *best = NULL;
    *hole = -1;
    for (int i = 0; i < arena->n_slabs; i++) {
        slab *s = &arena->slabs[i];
        int h = space_best_hole(&s->space, bytes);
        if (h >= 0 && (!best || s->space.segments[h].bytes < best->space.segments[*hole].bytes)) {
            best = s;
            *hole = h;
        }
    }
    for (int i = 0; !best && i < arena->n_slabs; i++)
        if (arena->slabs[i].capacity - arena->slabs[i].space.top >= bytes)
            best = &arena->slabs[i];
    return best;
}

static mz_status fail_full(const mz_arena *arena, size_t bytes)
{
    const slab *s = &arena->slabs[0];
    return mz_fail(MZ_ERR_MEMORY,
                   "arena of %zu bytes on %s is full: %zu bytes asked for, %zu in use, %zu available of which the "
                   "last %zu are in one piece",
                   s->capacity, arena->device->label, bytes, arena->used, s->capacity - arena->used,
                   s->capacity - s->space.top);
}

mz_status mz_arena_alloc(mz_arena *arena, size_t bytes, void **memory)
{
    if (bytes > SIZE_MAX / 2)
        return mz_fail(MZ_ERR_MEMORY, "arena on %s: %zu bytes asked for", arena->device->label, bytes);
    size_t rounded = bytes ? (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT : ALIGNMENT;

    int hole;
    slab *s = find_room(arena, rounded, &hole);
    if (!s && !arena->growing)
        return fail_full(arena, bytes);
    if (!s) {
        mz_status status = add_slab(arena, rounded > SLAB_BYTES ? rounded : SLAB_BYTES);
        if (status)
            return status;
        s = &arena->slabs[arena->n_slabs - 1];
    }
    mz_status status = space_reserve(&s->space);
    if (!status && arena->growing)
        status = space_reserve(&arena->plan);
    if (status)
        return status;

    segment *block = space_take(&s->space, hole, rounded);
    if (arena->growing)
        block->plan_offset = space_take(&arena->plan, space_best_hole(&arena->plan, rounded), rounded)->offset;
    arena->used += rounded;
    *memory = s->memory + block->offset;
    return MZ_OK;
}

void mz_arena_free(mz_arena *arena, void *memory)
{
    if (!memory)
        return;
    uintptr_t address = (uintptr_t)memory;
    for (int i = 0; i < arena->n_slabs; i++) {
        slab *s = &arena->slabs[i];
        uintptr_t begin = (uintptr_t)s->memory;
        if (address < begin || address >= begin + s->capacity)
            continue;
        int block = space_find(&s->space, address - begin);
        if (block < 0)
            return;
        arena->used -= s->space.segments[block].bytes;
        if (arena->growing)
            space_give(&arena->plan, space_find(&arena->plan, s->space.segments[block].plan_offset));
        space_give(&s->space, block);
        return;
    }
}

void mz_arena_reset(mz_arena *arena)
{
    for (int i = 0; i < arena->n_slabs; i++)
        space_clear(&arena->slabs[i].space);
    space_clear(&arena->plan);
    arena->used = 0;
}

size_t mz_arena_used(const mz_arena *arena)
{
    return arena->used;
}

size_t mz_arena_peak(const mz_arena *arena)
{
    return arena->growing ? arena->plan.peak : arena->slabs[0].space.peak;
}
