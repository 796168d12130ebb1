/* The layout of random models: every element has one place and one owner. */
#include "tests/core/cmocka_all.h"
#include "core/memory.h"
#include "core/rng.h"
#include "zero/layout.h"

enum { MAX_TENSORS = 40 };

typedef struct random_model {
    mz_layout_input tensors[MAX_TENSORS];
    mz_layout_options options;
} random_model;

static int64_t draw(uint64_t seed, uint32_t site, uint32_t n)
{
    return mz_rng_u32(seed, site, 0, 0) % n;
}

static void make(uint64_t seed, random_model *m)
{
    int n = (int)draw(seed, 1, MAX_TENSORS + 1), unit = 0;
    for (int t = 0; t < n; t++) {
        unit += (int)draw(seed, 100 + (uint32_t)t, 3); /* some units have no tensors */
        int64_t large = draw(seed, 200 + (uint32_t)t, 2) ? 5000 : 70;
        m->tensors[t] = (mz_layout_input){.numel = 1 + draw(seed, 300 + (uint32_t)t, (uint32_t)large),
                                          .room = draw(seed, 500 + (uint32_t)t, 2 * (uint32_t)large),
                                          .unit = unit,
                                          .decay = draw(seed, 400 + (uint32_t)t, 2) == 1};
    }
    m->options = (mz_layout_options){
        .tensors = m->tensors,
        .n_tensors = n,
        .n_units = unit + 1 + (int)draw(seed, 2, 3),
        .n_ranks = 1 + (int)draw(seed, 3, 9),
        .persistence_threshold = draw(seed, 4, 200),
        .model_persistence_threshold = draw(seed, 5, 1000),
    };
}

static void check_segments(const mz_layout *l, const mz_layout_options *o)
{
    int64_t sum = 0, persistent = 0;
    int n_placed = 0;
    for (int i = 0; i < l->n_segments; i++) {
        const mz_layout_segment *s = &l->segments[i];
        int64_t end = 0;
        assert_true(s->n > 0);
        assert_int_equal(s->length % ((int64_t)MZ_LAYOUT_ALIGN * o->n_ranks), 0);
        assert_int_equal(s->slice * o->n_ranks, s->length);
        assert_int_equal(s->first, n_placed);
        for (int k = s->first; k < s->first + s->n; k++) {
            int t = l->order[k];
            assert_int_equal(l->tensors[t].segment, i);
            assert_int_equal(l->tensors[t].offset % MZ_LAYOUT_ALIGN, 0);
            assert_true(l->tensors[t].offset >= end); /* in order, so nothing overlaps */
            int64_t room = o->tensors[t].room;
            end = l->tensors[t].offset + (room > o->tensors[t].numel ? room : o->tensors[t].numel);
            assert_int_equal(o->tensors[t].unit, s->unit);
            assert_int_equal(o->tensors[t].decay, l->tensors[t].offset < s->decay_end);
            assert_true(!s->persistent || o->tensors[t].numel < o->persistence_threshold);
            persistent += s->persistent ? o->tensors[t].numel : 0;
        }
        assert_true(end <= s->length);
        n_placed += s->n;
        sum += s->length;
    }
    assert_int_equal(n_placed, o->n_tensors);
    assert_int_equal(sum, l->elements);
    assert_true(persistent <= o->model_persistence_threshold);
}

static void check_owners(const mz_layout *l, const mz_layout_options *o)
{
    for (int t = 0; t < o->n_tensors; t++) {
        const mz_layout_segment *s = &l->segments[l->tensors[t].segment];
        int64_t next = 0;
        for (int rank = 0; rank < o->n_ranks; rank++) {
            int64_t offset, n;
            mz_layout_intersect(l, t, rank * s->slice, s->slice, &offset, &n);
            if (n == 0)
                continue;
            assert_int_equal(offset, next); /* runs follow each other: once, and without gaps */
            next += n;
        }
        assert_int_equal(next, o->tensors[t].numel);
    }
}

static void every_element_is_owned_once(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 500; seed++) {
        random_model m;
        mz_layout *l = NULL;
        make(seed, &m);
        assert_int_equal(mz_layout_create(&m.options, &l), MZ_OK);
        check_segments(l, &m.options);
        check_owners(l, &m.options);
        mz_layout_destroy(l);
    }
}

static void failed_allocations_leave_nothing(void **state)
{
    (void)state;
    random_model m;
    make(7, &m);
    mz_layout *l = NULL;
    mz_status status = MZ_ERR_MEMORY;
    for (long n = 1; status; n++) {
        mz_memory_fail_at(n);
        status = mz_layout_create(&m.options, &l);
        mz_memory_fail_at(0);
        assert_true(status == MZ_OK || (status == MZ_ERR_MEMORY && !l));
    }
    mz_layout_destroy(l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_element_is_owned_once),
        cmocka_unit_test(failed_allocations_leave_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
