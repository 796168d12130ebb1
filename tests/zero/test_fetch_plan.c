/* The schedule of gathers: replayed, it never runs a unit without its parameters, never puts two units into the
 * same place, and each limit has its effect. */
#include "tests/core/cmocka_all.h"
#include "core/memory.h"
#include "core/rng.h"
#include "zero/fetch_plan.h"

enum { UNITS = 12 };

typedef struct fixture {
    int64_t elements[UNITS];
    int own[UNITS][2];
    const int *needs[UNITS];
    int n_needs[UNITS];
    mz_fetch_options options;
} fixture;

/* A transformer's shape: a large embedding that the last unit uses too, equal blocks, a last unit of its own. */
static void transformer(fixture *f)
{
    for (int u = 0; u < UNITS; u++) {
        f->elements[u] = u == 0 ? 5000 : u == UNITS - 1 ? 100 : 1000;
        f->own[u][0] = u;
        f->needs[u] = f->own[u];
        f->n_needs[u] = 1;
    }
    f->own[UNITS - 1][1] = 0;
    f->n_needs[UNITS - 1] = 2;
    f->options = (mz_fetch_options){.n_units = UNITS,
                                    .elements = f->elements,
                                    .needs = f->needs,
                                    .n_needs = f->n_needs,
                                    .training = true,
                                    .prefetch = 1000,
                                    .max_live = 1000000,
                                    .max_reuse = 1000000};
}

typedef struct tally {
    int demands, aheads, releases;
    int64_t gathered, most_ahead; /* elements */
} tally;

static void replay(const fixture *f, const mz_fetch_plan *plan, tally *out)
{
    int64_t offset[UNITS], live = 0, ahead = 0;
    bool waiting[UNITS] = {false};
    *out = (tally){0};
    for (int u = 0; u < UNITS; u++)
        offset[u] = -1;
    for (int step = 0; step < plan->n_steps; step++) {
        const mz_fetch_step *s = &plan->steps[step];
        int runs = step < UNITS ? step : 2 * UNITS - 1 - step;
        for (int k = 0; k < f->n_needs[runs]; k++) {
            int need = f->needs[runs][k];
            ahead -= waiting[need] ? f->elements[need] : 0;
            waiting[need] = false;
        }
        for (int i = 0; i < s->n_before + s->n_after; i++) {
            const mz_fetch_action *a = &plan->actions[s->first + i];
            if (i == s->n_before) /* the unit runs here */
                for (int k = 0; k < f->n_needs[runs]; k++)
                    assert_true(f->elements[f->needs[runs][k]] == 0 || offset[f->needs[runs][k]] >= 0);
            if (a->kind == MZ_FETCH_RELEASE) {
                assert_true(offset[a->unit] >= 0);
                offset[a->unit] = -1;
                live -= f->elements[a->unit];
                out->releases++;
                continue;
            }
            assert_true(i < s->n_before && offset[a->unit] < 0);
            for (int u = 0; u < UNITS; u++)
                assert_true(offset[u] < 0 || offset[u] >= a->offset + f->elements[a->unit] ||
                            a->offset >= offset[u] + f->elements[u]);
            offset[a->unit] = a->offset;
            live += f->elements[a->unit];
            out->gathered += f->elements[a->unit];
            assert_true(a->offset + f->elements[a->unit] <= plan->pool && live <= plan->max_live);
            out->demands += a->kind == MZ_FETCH_DEMAND;
            out->aheads += a->kind == MZ_FETCH_AHEAD;
            if (a->kind == MZ_FETCH_AHEAD) {
                ahead += f->elements[a->unit];
                waiting[a->unit] = true;
            }
        }
        out->most_ahead = ahead > out->most_ahead ? ahead : out->most_ahead;
    }
    assert_int_equal(live, 0); /* nothing stays for the next step, where parameters differ */
}

static void play(const fixture *f, int64_t *pool, int64_t *max_live, tally *out)
{
    mz_fetch_plan *plan = NULL;
    assert_int_equal(mz_fetch_plan_create(&f->options, &plan), MZ_OK);
    replay(f, plan, out);
    *pool = plan->pool;
    *max_live = plan->max_live;
    mz_fetch_plan_destroy(plan);
}

static void limits_have_effects(void **state)
{
    (void)state;
    fixture f;
    tally t, without;
    int64_t pool, live;
    transformer(&f);

    play(&f, &pool, &live, &t); /* everything may stay: gathered once */
    assert_int_equal(t.gathered, 5000 + 10 * 1000 + 100);
    assert_int_equal(t.demands, 1);
    assert_int_equal(pool, 15100);

    f.options.prefetch = 0;
    play(&f, &pool, &live, &without);
    assert_int_equal(without.aheads, 0);
    assert_int_equal(without.demands, UNITS);

    transformer(&f);
    f.options.max_reuse = 0; /* only what is used in the next step stays */
    play(&f, &pool, &live, &t);
    assert_int_equal(t.gathered, 2 * (5000 + 10 * 1000) + 5000 + 100);
    assert_true(pool <= 5000 + 2 * 1000 + 100);

    transformer(&f);
    f.options.max_live = 8000;
    play(&f, &pool, &live, &t);
    assert_true(live <= 8000);
    assert_true(t.gathered > 15100);

    transformer(&f);
    f.options.max_live = 1; /* what a unit needs is gathered regardless, and nothing else */
    play(&f, &pool, &live, &t);
    assert_int_equal(live, 5100);
    assert_int_equal(t.aheads, 0);

    transformer(&f);
    f.options.prefetch = 2500;
    f.options.max_reuse = 0;
    play(&f, &pool, &live, &t);
    assert_true(t.most_ahead >= 2500 && t.most_ahead < 2500 + 5000);
}

static void random_models_replay(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 300; seed++) {
        fixture f;
        tally t;
        int64_t pool, live;
        transformer(&f);
        for (int u = 0; u < UNITS; u++) {
            f.elements[u] = mz_rng_u32(seed, 1, 0, (uint64_t)u) % 4 * (mz_rng_u32(seed, 2, 0, (uint64_t)u) % 1000);
            f.n_needs[u] = u > 0 && mz_rng_u32(seed, 3, 0, (uint64_t)u) % 3 == 0 ? 2 : 1;
            f.own[u][1] = u > 0 ? (int)(mz_rng_u32(seed, 4, 0, (uint64_t)u) % (uint32_t)u) : 0;
        }
        f.options.training = seed % 4 != 0;
        f.options.prefetch = mz_rng_u32(seed, 5, 0, 0) % 3000;
        f.options.max_live = mz_rng_u32(seed, 6, 0, 0) % 9000;
        f.options.max_reuse = mz_rng_u32(seed, 7, 0, 0) % 9000;
        play(&f, &pool, &live, &t);
    }
}

static void failed_allocations_leave_nothing(void **state)
{
    (void)state;
    fixture f;
    mz_fetch_plan *plan = NULL;
    mz_status status = MZ_ERR_MEMORY;
    transformer(&f);
    for (long n = 1; status; n++) {
        mz_memory_fail_at(n);
        status = mz_fetch_plan_create(&f.options, &plan);
        mz_memory_fail_at(0);
        assert_true(status == MZ_OK || (status == MZ_ERR_MEMORY && !plan));
    }
    mz_fetch_plan_destroy(plan);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(limits_have_effects),
        cmocka_unit_test(random_models_replay),
        cmocka_unit_test(failed_allocations_leave_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
