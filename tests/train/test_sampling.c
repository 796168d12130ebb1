/* Choosing tokens: greedy, top-k, top-p, and the distribution that temperature gives. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "train/sampling.h"

enum { VOCAB = 6, DRAWS = 20000 };
static const float logits[VOCAB] = {0.5f, 2.0f, -1.0f, 2.0f, 1.0f, -30.0f};

static void count_draws(const mz_sampling *sampling, int counts[VOCAB])
{
    int32_t scratch[VOCAB];
    for (int i = 0; i < VOCAB; i++)
        counts[i] = 0;
    for (int i = 0; i < DRAWS; i++) {
        int32_t token = mz_sample_token(sampling, logits, VOCAB, 3, (uint64_t)i, scratch);
        assert_in_range(token, 0, VOCAB - 1);
        counts[token]++;
    }
}

static void greedy_takes_the_first_largest(void **state)
{
    (void)state;
    const mz_sampling sampling = {.temperature = 0, .top_p = 1};
    assert_int_equal(mz_sample_token(&sampling, logits, VOCAB, 0, 0, NULL), 1);
}

static void temperature_gives_softmax(void **state)
{
    (void)state;
    const mz_sampling sampling = {.temperature = 0.7, .top_p = 1, .seed = 9};
    int counts[VOCAB];
    double total = 0;
    count_draws(&sampling, counts);
    for (int i = 0; i < VOCAB; i++)
        total += exp(logits[i] / 0.7);
    for (int i = 0; i < VOCAB; i++) {
        double p = exp(logits[i] / 0.7) / total;
        double spread = sqrt(p * (1 - p) * DRAWS);
        assert_true(fabs(counts[i] - p * DRAWS) <= 4.5 * spread + 1);
    }
}

static void top_k_and_top_p_cut(void **state)
{
    (void)state;
    int counts[VOCAB];
    const mz_sampling two = {.temperature = 1, .top_k = 2, .top_p = 1};
    count_draws(&two, counts);
    assert_int_equal(counts[1] + counts[3], DRAWS);
    assert_true(counts[1] > DRAWS / 3 && counts[3] > DRAWS / 3);
    const mz_sampling tiny = {.temperature = 1, .top_p = 1e-9};
    count_draws(&tiny, counts);
    assert_int_equal(counts[1], DRAWS);
    /* p(1) = p(3) = 0.38, p(4) = 0.14, p(0) = 0.08: 0.85 needs tokens 1, 3 and 4 */
    const mz_sampling most = {.temperature = 1, .top_p = 0.85};
    count_draws(&most, counts);
    assert_int_equal(counts[1] + counts[3] + counts[4], DRAWS);
    assert_true(counts[4] > 0);
}

static void draws_repeat(void **state)
{
    (void)state;
    const mz_sampling sampling = {.temperature = 1, .top_p = 1, .seed = 5};
    int32_t scratch[VOCAB];
    int differs = 0;
    for (uint64_t i = 0; i < 100; i++) {
        int32_t a = mz_sample_token(&sampling, logits, VOCAB, 0, i, scratch);
        assert_int_equal(a, mz_sample_token(&sampling, logits, VOCAB, 0, i, scratch));
        differs += a != mz_sample_token(&sampling, logits, VOCAB, 1, i, scratch);
    }
    assert_true(differs > 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_takes_the_first_largest),
        cmocka_unit_test(temperature_gives_softmax),
        cmocka_unit_test(top_k_and_top_p_cut),
        cmocka_unit_test(draws_repeat),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
