/* The arena against a model of it, and what planning rests on: a peak once reached fits always. */
#include "tests/core/cmocka_all.h"

#include <stdbool.h>
#include <string.h>

#include "core/memory.h"
#include "device/arena.h"

enum { N_BLOCKS = 200, N_STEPS = 20000 };

static uint32_t random_u32(uint32_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

/* Mostly small requests, some large, some empty. */
static size_t random_bytes(uint32_t *seed)
{
    uint32_t kind = random_u32(seed) % 10, x = random_u32(seed);
    return kind == 0 ? 0 : kind < 7 ? x % 2000 : kind < 9 ? x % 50000 : x % 400000;
}

static size_t rounded(size_t bytes)
{
    return bytes ? (bytes + 255) / 256 * 256 : 256;
}

static mz_device *open_device(const char *name)
{
    mz_device *device;
    assert_int_equal(mz_device_open(name, 0, 1, &device), MZ_OK);
    return device;
}

typedef struct block {
    unsigned char *memory;
    size_t bytes;
    unsigned char mark;
} block;

static void assert_intact(const block *b)
{
    for (size_t i = 0; i < b->bytes; i++)
        assert_int_equal(b->memory[i], b->mark);
}

/* Random requests on real memory: every block is aligned, keeps what was written to it, and the sum of
 * live bytes is what the arena says. */
static void play_with_memory(mz_arena *arena, uint32_t seed)
{
    static block blocks[N_BLOCKS];
    memset(blocks, 0, sizeof blocks);
    size_t used = 0;
    for (int step = 0; step < N_STEPS / 4; step++) {
        block *b = &blocks[random_u32(&seed) % N_BLOCKS];
        if (b->memory) {
            assert_intact(b);
            mz_arena_free(arena, b->memory);
            used -= rounded(b->bytes);
            b->memory = NULL;
        } else {
            b->bytes = random_bytes(&seed) / 8;
            void *memory;
            assert_int_equal(mz_arena_alloc(arena, b->bytes, &memory), MZ_OK);
            assert_int_equal((uintptr_t)memory % 256, 0);
            b->memory = memory;
            b->mark = (unsigned char)step;
            memset(b->memory, b->mark, b->bytes);
            used += rounded(b->bytes);
        }
        assert_int_equal(mz_arena_used(arena), used);
        assert_true(mz_arena_peak(arena) >= used);
    }
    for (int i = 0; i < N_BLOCKS; i++)
        if (blocks[i].memory) {
            assert_intact(&blocks[i]);
            mz_arena_free(arena, blocks[i].memory);
        }
    assert_int_equal(mz_arena_used(arena), 0);
}

static void blocks_do_not_overlap(void **state)
{
    (void)state;
    mz_device *device = open_device("cpu");
    for (size_t fixed = 0; fixed < 2; fixed++) {
        mz_arena *arena;
        assert_int_equal(mz_arena_create(device, fixed * ((size_t)32 << 20), &arena), MZ_OK);
        play_with_memory(arena, 1 + (uint32_t)fixed);
        play_with_memory(arena, 3);
        mz_arena_destroy(arena);
    }
    mz_device_close(device);
}

/* The same random sequence each time for a seed; true when every request was met. */
static bool play(mz_arena *arena, uint32_t seed)
{
    static void *blocks[N_BLOCKS];
    memset(blocks, 0, sizeof blocks);
    for (int step = 0; step < N_STEPS; step++) {
        void **b = &blocks[random_u32(&seed) % N_BLOCKS];
        if (*b) {
            mz_arena_free(arena, *b);
            *b = NULL;
        } else if (mz_arena_alloc(arena, random_bytes(&seed), b)) {
            return false;
        }
    }
    return true;
}

static void a_planned_peak_fits_exactly(void **state)
{
    (void)state;
    mz_device *meta = open_device("meta");
    for (uint32_t seed = 1; seed <= 20; seed++) {
        mz_arena *growing, *huge, *exact, *less;
        assert_int_equal(mz_arena_create(meta, 0, &growing), MZ_OK);
        assert_true(play(growing, seed));
        size_t peak = mz_arena_peak(growing);

        assert_int_equal(mz_arena_create(meta, (size_t)1 << 40, &huge), MZ_OK);
        assert_true(play(huge, seed));
        assert_int_equal(mz_arena_peak(huge), peak);

        assert_int_equal(mz_arena_create(meta, peak, &exact), MZ_OK);
        for (int step = 0; step < 3; step++) {
            assert_true(play(exact, seed));
            assert_int_equal(mz_arena_peak(exact), peak);
            mz_arena_reset(exact);
        }
        assert_int_equal(mz_arena_create(meta, peak - 256, &less), MZ_OK);
        assert_false(play(less, seed));
        mz_arena_destroy(less);
        mz_arena_destroy(exact);
        mz_arena_destroy(huge);
        mz_arena_destroy(growing);
    }
    mz_device_close(meta);
}

static void freed_neighbours_merge(void **state)
{
    (void)state;
    mz_device *meta = open_device("meta");
    mz_arena *arena;
    void *p[5], *q;
    assert_int_equal(mz_arena_create(meta, 5 * 256, &arena), MZ_OK);
    for (int i = 0; i < 5; i++)
        assert_int_equal(mz_arena_alloc(arena, 256, &p[i]), MZ_OK);
    mz_arena_free(arena, p[1]);
    mz_arena_free(arena, p[3]);
    assert_int_equal(mz_arena_alloc(arena, 512, &q), MZ_ERR_MEMORY);
    mz_arena_free(arena, p[2]);
    assert_int_equal(mz_arena_alloc(arena, 768, &q), MZ_OK);
    assert_ptr_equal(q, p[1]);
    mz_arena_free(arena, q);
    mz_arena_free(arena, p[0]);
    mz_arena_free(arena, p[4]);
    mz_arena_free(arena, NULL);
    assert_int_equal(mz_arena_used(arena), 0);
    assert_int_equal(mz_arena_alloc(arena, 5 * 256, &q), MZ_OK);
    assert_ptr_equal(q, p[0]);
    mz_arena_destroy(arena);
    mz_device_close(meta);
}

static void a_full_arena_says_how_full(void **state)
{
    (void)state;
    mz_device *meta = open_device("meta");
    mz_arena *arena;
    void *p;
    assert_int_equal(mz_arena_create(meta, 4096, &arena), MZ_OK);
    assert_int_equal(mz_arena_alloc(arena, 3000, &p), MZ_OK);
    assert_int_equal(mz_arena_alloc(arena, 1025, &p), MZ_ERR_MEMORY);
    assert_non_null(strstr(mz_last_error(), "1025 bytes"));
    assert_non_null(strstr(mz_last_error(), "3072 in use"));
    assert_non_null(strstr(mz_last_error(), "1024 available"));
    assert_int_equal(mz_arena_alloc(arena, SIZE_MAX, &p), MZ_ERR_MEMORY);
    assert_int_equal(mz_arena_alloc(arena, 1024, &p), MZ_OK);
    mz_arena_destroy(arena);
    mz_arena_destroy(NULL);
    mz_device_close(meta);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_do_not_overlap),
        cmocka_unit_test(a_planned_peak_fits_exactly),
        cmocka_unit_test(freed_neighbours_merge),
        cmocka_unit_test(a_full_arena_says_how_full),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
