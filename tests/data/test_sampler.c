#include "tests/core/cmocka_all.h"

#include <stdlib.h>

#include "data/sampler.h"

/* Counts how often each sample comes in the steps of one epoch. */
static int *count_epoch(const mz_sampler *sampler, int64_t epoch)
{
    const int64_t steps = mz_sampler_steps_per_epoch(sampler);
    int *counts = calloc((size_t)sampler->n_samples, sizeof *counts);
    for (int64_t step = epoch * steps; step < (epoch + 1) * steps; step++) {
        for (int64_t p = 0; p < sampler->global_batch; p++) {
            const int64_t sample = mz_sampler_at(sampler, step, p);
            assert_true(sample >= 0 && sample < sampler->n_samples);
            counts[sample]++;
        }
    }
    return counts;
}

static void every_sample_once_an_epoch(void **state)
{
    static const int64_t sizes[][2] = {{1, 1}, {7, 1}, {7, 3}, {8, 4}, {100, 7}, {1000, 64}, {3, 8}, {1, 5}};
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (int flags = 0; flags < 4; flags++) {
            const mz_sampler sampler = {.n_samples = sizes[i][0],
                                        .global_batch = sizes[i][1],
                                        .seed = 11,
                                        .shuffle = flags & 1,
                                        .drop_last = flags & 2};
            const int64_t n = sizes[i][0], batch = sizes[i][1],
                          drawn = mz_sampler_steps_per_epoch(&sampler) * batch;
            assert_true(drawn > 0);
            for (int64_t epoch = 0; epoch < 3; epoch++) {
                int *counts = count_epoch(&sampler, epoch);
                int64_t total = 0, absent = 0;
                for (int64_t s = 0; s < n; s++) {
                    total += counts[s];
                    absent += counts[s] == 0;
                    /* dropped or filled ones differ by one from the others */
                    assert_true(counts[s] >= drawn / n && counts[s] <= (drawn + n - 1) / n);
                }
                assert_int_equal(total, drawn);
                assert_int_equal(absent, drawn < n ? n - drawn : 0);
                free(counts);
            }
        }
    }
}

static void steps_of_an_epoch(void **state)
{
    mz_sampler sampler = {.n_samples = 10, .global_batch = 4};
    (void)state;
    assert_int_equal(mz_sampler_steps_per_epoch(&sampler), 3);
    assert_true(mz_sampler_epoch(&sampler, 3) == 1.0 && mz_sampler_epoch(&sampler, 6) == 2.0);
    sampler.drop_last = true;
    assert_int_equal(mz_sampler_steps_per_epoch(&sampler), 2);
    sampler.n_samples = 3; /* less than a batch: one step, or nothing would ever be drawn */
    assert_int_equal(mz_sampler_steps_per_epoch(&sampler), 1);
}

static void file_order_without_shuffle(void **state)
{
    const mz_sampler sampler = {.n_samples = 10, .global_batch = 4, .seed = 3};
    static const int64_t expected[6][4] = {{0, 1, 2, 3}, {4, 5, 6, 7}, {8, 9, 0, 1},
                                           {0, 1, 2, 3}, {4, 5, 6, 7}, {8, 9, 0, 1}};
    (void)state;
    for (int step = 0; step < 6; step++) {
        for (int p = 0; p < 4; p++)
            assert_int_equal(mz_sampler_at(&sampler, step, p), expected[step][p]);
    }
}

static void epochs_and_seeds_differ(void **state)
{
    const mz_sampler one = {.n_samples = 1000, .global_batch = 10, .seed = 1, .shuffle = true};
    mz_sampler two = one;
    int same_epoch = 0, same_seed = 0, moved = 0;
    two.seed = 2;
    (void)state;
    for (int64_t i = 0; i < 1000; i++) {
        const int64_t sample = mz_sampler_at(&one, i / 10, i % 10);
        same_epoch += sample == mz_sampler_at(&one, 100 + i / 10, i % 10);
        same_seed += sample == mz_sampler_at(&two, i / 10, i % 10);
        moved += sample != i;
        assert_int_equal(sample, mz_sampler_at(&one, i / 10, i % 10)); /* a resume draws the same */
    }
    assert_true(same_epoch < 20 && same_seed < 20 && moved > 980);
}

/* The samples of one optimiser step, as ranks and micro-steps take them, are the same set for any division. */
static void any_number_of_ranks(void **state)
{
    const mz_sampler sampler = {.n_samples = 500, .global_batch = 24, .seed = 5, .shuffle = true};
    static const int divisions[][2] = {{1, 24}, {2, 4}, {3, 8}, {4, 3}, {8, 1}, {24, 1}}; /* ranks, micro-batch */
    (void)state;
    for (int64_t step = 0; step < 45; step += 11) {
        for (size_t d = 0; d < sizeof divisions / sizeof *divisions; d++) {
            const int n_ranks = divisions[d][0], micro = divisions[d][1], n_micro = 24 / (n_ranks * micro);
            int seen[500] = {0};
            for (int a = 0; a < n_micro; a++) {
                for (int r = 0; r < n_ranks; r++) {
                    for (int i = 0; i < micro; i++)
                        seen[mz_sampler_at(&sampler, step, (int64_t)(a * n_ranks + r) * micro + i)]++;
                }
            }
            for (int p = 0; p < 24; p++)
                assert_int_equal(seen[mz_sampler_at(&sampler, step, p)], 1);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_sample_once_an_epoch), cmocka_unit_test(steps_of_an_epoch),
        cmocka_unit_test(file_order_without_shuffle), cmocka_unit_test(epochs_and_seeds_differ),
        cmocka_unit_test(any_number_of_ranks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
