/* The reference's dropout, and its optimisers against PyTorch's. */
#include "tests/core/cmocka_all.h"

#include <math.h>
#include <stdlib.h>

#include "core/half.h"
#include "kernels/kernels.h"

enum { N_DRAWS = 4096 };

/* The share that is kept, the scale, and that the mask follows the sample and not the place in the batch. */
static void dropout_follows_the_sample(void **state)
{
    (void)state;
    static float x[N_DRAWS], whole[N_DRAWS], half[N_DRAWS / 2];
    mz_rng_state rng = {.seed = 1, .step = 1, .first_sample = 0};
    mz_dropout dropout = {.p = 0.2f, .site = 9, .sample_elements = N_DRAWS / 4, .state = &rng};
    for (int i = 0; i < N_DRAWS; i++)
        x[i] = 1.0f;
    mz_dropout_args args = {.n = N_DRAWS, .dropout = dropout, .x = x, .y = whole, .dtype = MZ_F32};
    assert_int_equal(mz_kernels_ref.dropout(&args, NULL), MZ_OK);
    rng.first_sample = 2;
    args.n = N_DRAWS / 2;
    args.y = half;
    assert_int_equal(mz_kernels_ref.dropout(&args, NULL), MZ_OK);
    int n_kept = 0;
    for (int i = 0; i < N_DRAWS; i++) {
        assert_true(whole[i] == 0.0f || whole[i] == 1.25f);
        n_kept += whole[i] != 0.0f;
        if (i >= N_DRAWS / 2)
            assert_true(half[i - N_DRAWS / 2] == whole[i]);
    }
    assert_true(abs(n_kept - N_DRAWS * 8 / 10) < 4 * 26); /* four standard deviations */
}

enum { N_WEIGHTS = 4, N_STEPS = 3 };

typedef struct course {
    const char *name;
    mz_optim_kind kind;
    mz_optim_hyper hyper;
    float weight_decay;
    double expected[N_WEIGHTS];
} course;

/* Expected: the weights after three steps of torch.optim in double precision, with the settings given here; Lion
 * is worked out from the paper's algorithm: all signs are clear, and decay is the only other change. */
static const course courses[] = {
    {"AdamW",
     MZ_OPTIM_ADAMW,
     {.lr = 0.01f, .beta1 = 0.9f, .beta2 = 0.99f, .eps = 1e-6f},
     0.1f,
     {0.482597582033, -1.24424553939, 0.0111108761687, 2.01484313398}},
    {"Adam",
     MZ_OPTIM_ADAM,
     {.lr = 0.01f, .beta1 = 0.9f, .beta2 = 0.99f, .eps = 1e-6f},
     0.1f,
     {0.483004785703, -1.24067481641, 0.0110528947496, 2.00479093124}},
    {"SGD", MZ_OPTIM_SGD, {.lr = 0.1f}, 0.1f, {0.5258485, -1.29302175, -0.03670615625, 1.973552}},
    {"SGD, momentum and dampening",
     MZ_OPTIM_SGD,
     {.lr = 0.1f, .momentum = 0.9f, .dampening = 0.25f},
     0.1f,
     {0.45296103125, -1.22746660937, -0.0704704160156, 2.005556125}},
    {"SGD, Nesterov",
     MZ_OPTIM_SGD,
     {.lr = 0.1f, .momentum = 0.9f, .nesterov = 1},
     0.1f,
     {0.4833849115, -1.29373080825, -0.132899491344, 1.963381118}},
    {"Adagrad",
     MZ_OPTIM_ADAGRAD,
     {.lr = 0.1f, .eps = 1e-10f},
     0.1f,
     {0.390226492685, -1.27570125737, -0.112126615528, 1.96009324472}},
    {"Lion",
     MZ_OPTIM_LION,
     {.lr = 0.01f, .beta1 = 0.5f, .beta2 = 0.5f},
     0.0f,
     {0.5 - 0.01 - 0.01 + 0.01, -1.25 + 0.01 - 0.01 - 0.01, 0.03125 - 0.01 - 0.01 - 0.01,
      2.0 + 0.01 + 0.01 + 0.01}},
};

static void optimisers_walk_as_pytorch(void **state)
{
    (void)state;
    static const float gradients[N_STEPS][N_WEIGHTS] = {
        {0.1f, -0.2f, 0.3f, -0.4f}, {0.5f, 0.25f, -0.125f, 0.0f}, {-1.0f, 0.75f, 0.5f, 0.0625f}};
    for (size_t i = 0; i < sizeof courses / sizeof *courses; i++) {
        const course *c = &courses[i];
        float w[N_WEIGHTS] = {0.5f, -1.25f, 0.03125f, 2.0f}, state1[N_WEIGHTS] = {0}, state2[N_WEIGHTS] = {0};
        uint16_t param[N_WEIGHTS];
        float scaled[N_WEIGHTS], grad_scale_half = 0.5f;
        uint64_t nonfinite = 0;
        for (int step = 1; step <= N_STEPS; step++) {
            mz_optim_hyper hyper = c->hyper;
            hyper.bias_correction1 = (float)(1.0 - pow((double)hyper.beta1, step));
            hyper.bias_correction2 = (float)(1.0 - pow((double)hyper.beta2, step));
            hyper.first_step = step == 1;
            for (int k = 0; k < N_WEIGHTS; k++)
                scaled[k] = 2.0f * gradients[step - 1][k];
            mz_optim_chunk chunk = {.master = w,
                                    .state1 = state1,
                                    .state2 = state2,
                                    .grad = scaled,
                                    .param = param,
                                    .n = N_WEIGHTS,
                                    .weight_decay = c->weight_decay,
                                    .lr_scale = 1.0f};
            mz_optim_args args = {.kind = c->kind,
                                  .chunks = &chunk,
                                  .n_chunks = 1,
                                  .n_elements = N_WEIGHTS,
                                  .hyper = &hyper,
                                  .grad_scale = &grad_scale_half,
                                  .nonfinite = &nonfinite,
                                  .grad_dtype = MZ_F32,
                                  .param_dtype = MZ_BF16};
            assert_int_equal(mz_kernels_ref.optim(&args, NULL), MZ_OK);
        }
        for (int k = 0; k < N_WEIGHTS; k++) {
            if (!(fabs((double)w[k] - c->expected[k]) < 1e-6))
                fail_msg("%s: weight %d is %.9g, expected %.9g", c->name, k, (double)w[k], c->expected[k]);
            assert_int_equal(param[k], mz_f32_to_bf16(w[k]));
        }
    }
}

/* ---- without masters ---- */

enum { N_ROUNDED = 1 << 16 };

/* One step of SGD of the weights from `first` on, each w - lr * g. */
static void round_step(uint16_t *weights, const float *gradients, int64_t n, int64_t first, float lr, uint64_t step,
                       uint64_t seed)
{
    const mz_rng_state rng = {.seed = seed, .step = step};
    const mz_optim_hyper hyper = {.lr = lr};
    const float one = 1;
    const uint64_t nonfinite = 0;
    const mz_optim_chunk chunk = {.param = weights, .grad = gradients, .n = n, .first = first, .lr_scale = 1};
    const mz_optim_args args = {.kind = MZ_OPTIM_SGD,
                                .chunks = &chunk,
                                .n_chunks = 1,
                                .n_elements = n,
                                .hyper = &hyper,
                                .grad_scale = &one,
                                .nonfinite = &nonfinite,
                                .grad_dtype = MZ_F32,
                                .param_dtype = MZ_BF16,
                                .no_master = true,
                                .rounding = {.state = seed ? &rng : NULL, .site = 3}};
    assert_int_equal(mz_kernels_ref.optim(&args, NULL), MZ_OK);
}

/* Each update is a share of the way to the next bf16 number; the weights that go there are that share of all, and
 * the others stay. Rounding to the nearest moves all or none. */
static void stochastic_rounding_is_unbiased(void **state)
{
    static const float shares[] = {0.0f, 0.001f, 0.02f, 0.25f, 0.5f, 0.77f, 0.999f};
    static const float starts[] = {1.0f, -1.0f, 0.0078125f, -3.0e-5f, 1536.0f, 1e-39f, 3e38f};
    static uint16_t weights[N_ROUNDED];
    static float gradients[N_ROUNDED];
    (void)state;
    for (size_t a = 0; a < sizeof starts / sizeof *starts; a++)
        for (size_t b = 0; b < sizeof shares / sizeof *shares; b++) {
            const uint16_t start = mz_f32_to_bf16(starts[a]), next = (uint16_t)(start + 1);
            const double from = (double)mz_bf16_to_f32(start), to = (double)mz_bf16_to_f32(next);
            const double target = (double)(float)(from + (double)shares[b] * (to - from));
            const double share = (target - from) / (to - from);
            int64_t n_moved = 0;
            for (int64_t i = 0; i < N_ROUNDED; i++) {
                weights[i] = start;
                gradients[i] = (float)(from - target);
            }
            round_step(weights, gradients, N_ROUNDED, 1000003, 1, 1 + a, 17 + b);
            for (int64_t i = 0; i < N_ROUNDED; i++) {
                assert_true(weights[i] == start || weights[i] == next);
                n_moved += weights[i] == next;
            }
            /* a share that 16 bits do not hold is rounded down to one that they do */
            const double expected = floor(share * 65536) / 65536 * N_ROUNDED;
            const double deviation = sqrt(N_ROUNDED * share * (1 - share));
            if (fabs((double)n_moved - expected) > 4.5 * deviation + 1e-9)
                fail_msg("from %g, share %g: %lld of %d moved, expected %.0f +- %.0f", from, share,
                         (long long)n_moved, N_ROUNDED, expected, deviation);
            for (int64_t i = 0; i < N_ROUNDED; i++)
                weights[i] = start;
            round_step(weights, gradients, N_ROUNDED, 0, 1, 1, 0);
            assert_true(weights[0] == (share > 0.5 ? next : start) || share == 0.5);
        }
}

/* Many steps, each a hundredth of the distance between neighbours: on average they arrive where fp32 would;
 * rounding to the nearest does not move at all. */
static void small_updates_add_up(void **state)
{
    enum { N = 4096, STEPS_TAKEN = 1000 };
    static uint16_t weights[N], nearest[N];
    static float gradients[N];
    const double ulp = 0x1p-7, step = 0.01 * ulp;
    double sum = 0;
    (void)state;
    for (int i = 0; i < N; i++) {
        weights[i] = nearest[i] = mz_f32_to_bf16(1.0f);
        gradients[i] = -1;
    }
    for (int k = 1; k <= STEPS_TAKEN; k++) {
        round_step(weights, gradients, N, 0, (float)step, (uint64_t)k, 5);
        round_step(nearest, gradients, N, 0, (float)step, (uint64_t)k, 0);
    }
    for (int i = 0; i < N; i++) {
        sum += (double)mz_bf16_to_f32(weights[i]);
        assert_int_equal(nearest[i], mz_f32_to_bf16(1.0f));
    }
    /* each step has the variance ulp^2 * 0.01 * 0.99, and the mean is over N weights */
    const double deviation = ulp * sqrt(STEPS_TAKEN * 0.01 * 0.99 / N), mean = sum / N,
                 expected = 1 + STEPS_TAKEN * step;
    if (fabs(mean - expected) > 4 * deviation)
        fail_msg("mean %.9g, expected %.9g +- %.2g", mean, expected, deviation);
}

/* Draws follow the element's number and the step: however the elements are cut, and not the same in the next step.
 */
static void draws_follow_the_element(void **state)
{
    enum { N = 1000 };
    static uint16_t whole[N], parts[N], other[N];
    static float gradients[N];
    int n_other = 0;
    (void)state;
    for (int i = 0; i < N; i++) {
        whole[i] = parts[i] = other[i] = mz_f32_to_bf16(1.0f);
        gradients[i] = -0x1p-8f; /* half way to the next */
    }
    round_step(whole, gradients, N, 77, 1, 3, 5);
    round_step(other, gradients, N, 77, 1, 4, 5);
    for (int begin = 0, n; begin < N; begin += n) {
        n = begin % 7 * 31 + 1 < N - begin ? begin % 7 * 31 + 1 : N - begin;
        round_step(parts + begin, gradients + begin, n, 77 + begin, 1, 3, 5);
    }
    assert_memory_equal(whole, parts, sizeof whole);
    for (int i = 0; i < N; i++)
        n_other += whole[i] != other[i];
    assert_in_range(n_other, 400, 600);
}

/* Infinities and NaNs stay what they are. */
static void what_is_not_finite_stays(void **state)
{
    (void)state;
    for (uint32_t random = 0; random < 0x10000; random += 0xfff) {
        const uint32_t nans[] = {0x7fffffffu, 0xffffffffu, 0x7f800001u, 0xff800001u};
        assert_int_equal(mz_f32_to_bf16_stochastic(INFINITY, random), 0x7f80);
        assert_int_equal(mz_f32_to_bf16_stochastic(-INFINITY, random), 0xff80);
        for (int i = 0; i < 4; i++) {
            float nan;
            memcpy(&nan, &nans[i], sizeof nan);
            assert_true(isnan(mz_bf16_to_f32(mz_f32_to_bf16_stochastic(nan, random))));
        }
        assert_int_equal(mz_f32_to_bf16_stochastic(0.0f, random), 0);
        assert_int_equal(mz_f32_to_bf16_stochastic(-0.0f, random), 0x8000);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dropout_follows_the_sample),      cmocka_unit_test(optimisers_walk_as_pytorch),
        cmocka_unit_test(stochastic_rounding_is_unbiased), cmocka_unit_test(small_updates_add_up),
        cmocka_unit_test(draws_follow_the_element),        cmocka_unit_test(what_is_not_finite_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
