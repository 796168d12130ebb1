/* The arena that GPT-2 124M needs for a step of 4 x 256 tokens in fp32, planned on the meta device. */
#include "tests/core/cmocka_all.h"

#include <stdio.h>

#include "tests/model/model_rig.h"

enum { B = 4, T = 256, D = 768, LAYERS = 12 };

static size_t peak_of(int every)
{
    rig r;
    mz_model *model;
    mz_runner *runner;
    mz_tensor *loss, *inputs[2];
    mz_run run = {.goal = MZ_GOAL_LOSS, .training = true};
    rig_open(&r, "meta", false);
    rig_ok(mz_model_from_config("gpt2",
                                "{\"model_type\": \"gpt2\", \"resid_pdrop\": 0.0, \"embd_pdrop\": 0.0,"
                                " \"attn_pdrop\": 0.0}",
                                &model),
           "model");
    rig_ok(mz_runner_create(model, MZ_F32, MZ_F32, &runner), "runner");
    model_rig_alloc_params(&r, runner);
    mz_runner_set_checkpointing(runner, every);
    for (int i = 0; i < 2; i++)
        rig_ok(mz_tensor_create(r.tape, MZ_I32, 2, (const int64_t[]){B, T}, &inputs[i]), "input");
    run.inputs[MZ_INPUT_IDS] = inputs[0];
    run.inputs[MZ_INPUT_LABELS] = inputs[1];
    rig_ok(mz_runner_forward(runner, r.tape, &run, &loss), "forward");
    size_t kept = mz_arena_used(r.arena);
    mz_tensor_release(loss);
    rig_ok(mz_runner_backward(runner, r.tape), "backward");
    size_t peak = mz_arena_peak(r.arena);
    print_message("  checkpointing every %d: %.1f MiB at the peak, %.1f MiB after the forward pass\n", every,
                  (double)peak / 1048576.0, (double)kept / 1048576.0);
    mz_tape_reset(r.tape);
    model_rig_free_params(&r, runner);
    mz_runner_destroy(runner);
    mz_model_destroy(model);
    rig_close(&r);
    return peak;
}

static void peak(void **state)
{
    (void)state;
    size_t all = peak_of(0), one = peak_of(1), two = peak_of(2);
    size_t row = (size_t)B * T * D * sizeof(float);
    /* Kept by a block: ln_1's input and output, qkv (3), attention's output, the residual sum, ln_2's output, and
     * the inner layer before and after its activation (4 + 4). Besides: the head's chunk of logits, dx, and a
     * block's gradients. */
    assert_true(all <= 16 * LAYERS * row + ((size_t)64 << 20) + 12 * row);
    assert_true(one <= LAYERS * row + 16 * row + ((size_t)64 << 20) + 8 * row);
    assert_true(one < two && two < all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(peak)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
