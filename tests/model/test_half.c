/* GPT-2 in 16 bits against the fp32 fixture: the error is that of rounding, not of a wrong sum. */
#include "tests/core/cmocka_all.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/half.h"
#include "core/memory.h"
#include "tests/model/model_rig.h"

static int64_t inputs_of(model_rig *m, mz_run *run)
{
    const mz_weights_tensor *ids = model_rig_expected(m, "ids", true);
    run->inputs[MZ_INPUT_IDS] = model_rig_input(m, "ids", 0, ids->shape[0]);
    run->inputs[MZ_INPUT_LABELS] = model_rig_input(m, "labels", 0, ids->shape[0]);
    run->inputs[MZ_INPUT_MASK] = model_rig_input(m, "mask", 0, ids->shape[0]);
    const int32_t *labels = mz_tensor_data(run->inputs[MZ_INPUT_LABELS]);
    int64_t targets = 0;
    for (int64_t i = 0; i < ids->numel; i++)
        targets += labels[i] != -100;
    return targets;
}

/* The worst relative difference of a gradient's norm; the loss is checked here. */
static double worst_gradient(model_rig *m, double loss_scale, double tolerance)
{
    mz_run run = {.goal = MZ_GOAL_LOSS, .training = true};
    mz_tensor *loss;
    float got, want;
    double worst = 0;
    m->base.loss_weight = 1.0f / (float)inputs_of(m, &run);
    m->base.grad_weight = (float)(m->base.loss_weight * loss_scale);
    model_rig_clear_grads(m->runner);
    rig_ok(mz_runner_forward(m->runner, m->base.tape, &run, &loss), "forward");
    memcpy(&got, mz_tensor_data(loss), sizeof got);
    memcpy(&want, model_rig_expected(m, "loss", true)->data, sizeof want);
    assert_true(fabs((double)got - want) <= tolerance * want);
    mz_tensor_release(loss);
    rig_ok(mz_runner_backward(m->runner, m->base.tape), "backward");
    for (int i = 0; i < mz_runner_n_params(m->runner); i++) {
        const mz_param *param = mz_runner_param(m->runner, i);
        char name[128];
        float *grad = mz_alloc((size_t)param->numel * sizeof *grad);
        assert_non_null(grad);
        mz_convert(grad, MZ_F32, param->grad, param->grad_dtype, param->numel);
        for (int64_t j = 0; j < param->numel; j++)
            grad[j] /= (float)loss_scale;
        snprintf(name, sizeof name, "grad.%s", param->spec.name);
        worst = fmax(worst, model_compare(grad, model_rig_expected(m, name, true)->data, param->numel).norm);
        mz_free(grad);
    }
    mz_tape_reset(m->base.tape);
    return worst;
}

static void check(const char *what, int flags, double loss_scale, double tolerance)
{
    model_rig m;
    model_rig_open(&m, "gpt2_odd", flags);
    for (int every = 0; every <= 1; every++) {
        mz_runner_set_checkpointing(m.runner, every);
        double worst = worst_gradient(&m, loss_scale, tolerance);
        print_message("  %s%s: gradients' norms differ by at most %.1e\n", what, every ? ", recomputed" : "",
                      worst);
        assert_true(worst <= tolerance);
    }
    model_rig_close(&m);
}

static void bf16(void **state)
{
    (void)state;
    check("bf16", RIG_BF16, 1, 0.03);
    check("bf16, gradients fp32", RIG_BF16 | RIG_GRAD_F32, 1, 0.03);
    check("bf16, recomputing what is cheap", RIG_BF16 | RIG_RECOMPUTE, 1, 0.03);
}

static void f16(void **state)
{
    (void)state;
    check("fp16", RIG_F16, 1024, 0.004);
    check("fp16, gradients fp32", RIG_F16 | RIG_GRAD_F32, 1024, 0.004);
    check("fp16, reference kernels", RIG_F16 | RIG_REFERENCE, 1024, 0.004);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(bf16), cmocka_unit_test(f16)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
