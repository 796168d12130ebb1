#include "tests/core/cmocka_all.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/rng.h"
#include "core/rng_normal.h"

/* Known answers that Random123 publishes for philox4x32 with 10 rounds: counter, key, result. */
static void philox_known_answers(void **state)
{
    static const uint32_t cases[3][10] = {
        {0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
        {0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0x408f276d, 0x41c83b0e, 0xa20bc7c6,
         0x6d5451fd},
        {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, 0xd16cfe09, 0x94fdcceb, 0x5001e420,
         0x24126ea1},
    };
    (void)state;
    for (int i = 0; i < 3; i++) {
        uint32_t out[4];
        mz_philox4x32(cases[i], cases[i] + 4, out);
        assert_memory_equal(out, cases[i] + 6, sizeof out);
    }
}

static void sites_differ(void **state)
{
    (void)state;
    assert_int_not_equal(mz_rng_site("h.1", 0), mz_rng_site("h.1", 1));
    assert_int_not_equal(mz_rng_site("h.1", 0), mz_rng_site("h.2", 0));
    assert_int_equal(mz_rng_site("h.1", 7), mz_rng_site("h.1", 7));
}

static void uniform_is_open(void **state)
{
    (void)state;
    assert_true(mz_rng_uniform(0) > 0.0f);
    assert_true(mz_rng_uniform(UINT32_MAX) < 1.0f);
}

static void normal_has_its_moments(void **state)
{
    enum { N = 200000 };
    float *x = malloc(N * sizeof *x);
    double sum = 0, square = 0, fourth = 0;
    (void)state;
    mz_rng_fill_normal(42, 7, 0, N, x);
    for (int i = 0; i < N; i++) {
        const double v = x[i];
        sum += v;
        square += v * v;
        fourth += v * v * v * v;
    }
    free(x);
    assert_true(fabs(sum / N) < 5 / sqrt(N));
    assert_true(fabs(square / N - 1) < 5 * sqrt(2.0 / N));
    assert_true(fabs(fourth / N - 3) < 5 * sqrt(96.0 / N));
}

/* The values do not depend on the range they are asked in. */
static void normal_by_pieces(void **state)
{
    enum { N = 103 };
    float whole[N], piece[N];
    (void)state;
    mz_rng_fill_normal(1, 2, 5, N, whole);
    for (int first = 0; first < N; first++) {
        for (int n = 0; n <= N - first && n < 11; n++) {
            memset(piece, 0, sizeof piece);
            mz_rng_fill_normal(1, 2, 5 + first, n, piece);
            assert_memory_equal(piece, whole + first, (size_t)n * sizeof *piece);
            assert_true(n == N || piece[n] == 0.0f);
        }
    }
}

/* The plain formula in double precision, and the same bits from every instruction set. */
static void normal_of_each_set(void **state)
{
    enum { N = MZ_NORMAL_ELEMENTS };
    const double two_pi = 6.283185307179586477;
    (void)state;
    for (int s = 0; mz_normal_set_at(s); s++) {
        const mz_normal_set *set = mz_normal_set_at(s);
        double worst = 0;
        print_message("  %s\n", set->name);
        for (uint64_t block = 0; block < 40000; block += MZ_NORMAL_BLOCKS) {
            float z[N], best[N];
            set->fill(7, 8, block, z);
            mz_normal_set_at(0)->fill(7, 8, block, best);
            assert_memory_equal(z, best, sizeof z);
            for (int i = 0; i < N; i += 2) {
                const double u = mz_rng_uniform(mz_rng_u32(7, 8, 0, block * 4 + (uint64_t)i));
                const double v = mz_rng_uniform(mz_rng_u32(7, 8, 0, block * 4 + (uint64_t)i + 1));
                const double r = sqrt(-2 * log(u));
                worst = fmax(worst, fabs(z[i] - r * cos(two_pi * v)) / r);
                worst = fmax(worst, fabs(z[i + 1] - r * sin(two_pi * v)) / r);
            }
        }
        assert_true(worst < 4e-7);
    }
}

static void permutation_is_a_bijection(void **state)
{
    static const int64_t sizes[] = {1, 2, 3, 4, 5, 16, 17, 63, 64, 65, 1000, 4097, 65537};
    (void)state;
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        const int64_t n = sizes[s];
        char *seen = calloc((size_t)n, 1);
        for (int64_t i = 0; i < n; i++) {
            const int64_t j = mz_rng_permute(3, 4, n, i);
            assert_true(j >= 0 && j < n);
            assert_int_equal(seen[j]++, 0);
        }
        free(seen);
    }
}

/* Each value should come equally often to each place, over epochs: chi-square with 63 degrees of freedom,
 * whose 99.99 % point is 113. */
static void permutation_mixes(void **state)
{
    enum { N = 64, EPOCHS = 6400 };
    (void)state;
    for (int64_t place = 0; place < N; place += 21) {
        int count[N] = {0};
        double chi = 0;
        for (uint64_t epoch = 0; epoch < EPOCHS; epoch++)
            count[mz_rng_permute(9, epoch, N, place)]++;
        for (int v = 0; v < N; v++)
            chi += pow(count[v] - EPOCHS / N, 2) / (EPOCHS / N);
        assert_true(chi < 113);
    }
    assert_int_not_equal(mz_rng_permute(1, 0, 1 << 30, 0), mz_rng_permute(2, 0, 1 << 30, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_known_answers),
        cmocka_unit_test(sites_differ),
        cmocka_unit_test(uniform_is_open),
        cmocka_unit_test(normal_has_its_moments),
        cmocka_unit_test(normal_by_pieces),
        cmocka_unit_test(normal_of_each_set),
        cmocka_unit_test(permutation_is_a_bijection),
        cmocka_unit_test(permutation_mixes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
