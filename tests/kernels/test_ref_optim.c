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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dropout_follows_the_sample),
        cmocka_unit_test(optimisers_walk_as_pytorch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
