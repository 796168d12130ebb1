/* The arena that GPT-2 124M needs for a step of 4 x 256 tokens in fp32, planned on the meta device. */
#include "tests/core/cmocka_all.h"

#include <stdio.h>

#include "tests/model/model_rig.h"

enum { B = 4, T = 256, D = 768, LAYERS = 12 };

typedef struct plan {
    size_t peak;
    double products; /* floating-point operations of matrix products */
} plan;

static plan plan_of(int every, int flags)
{
    rig r;
    mz_model *model;
    mz_runner *runner;
    mz_tensor *loss, *inputs[2];
    mz_run run = {.goal = MZ_GOAL_LOSS, .training = true};
    mz_meta_counts counts;
    rig_open(&r, "meta", flags);
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
    rig_ok(mz_device_meta_counts(r.device, &counts), "counts");
    plan p = {mz_arena_peak(r.arena), counts.matmul_flops};
    print_message("  checkpointing every %d%s: %.1f MiB at the peak, %.1f MiB after the forward pass, %.1f GFLOP\n",
                  every, flags & RIG_RECOMPUTE ? ", recomputing what is cheap" : "", (double)p.peak / 1048576.0,
                  (double)kept / 1048576.0, p.products * 1e-9);
    mz_tape_reset(r.tape);
    model_rig_free_params(&r, runner);
    mz_runner_destroy(runner);
    mz_model_destroy(model);
    rig_close(&r);
    return p;
}

static void peak(void **state)
{
    (void)state;
    plan all = plan_of(0, 0), one = plan_of(1, 0), two = plan_of(2, 0);
    plan cheap = plan_of(0, RIG_RECOMPUTE), least = plan_of(1, RIG_RECOMPUTE);
    size_t row = (size_t)B * T * D * sizeof(float), logits = (size_t)64 << 20;
    /* A block keeps ln_1's input and output, qkv (3), attention's output, the residual sum, ln_2's output and the
     * inner layer before and after its activation (4 + 4): 16 rows, of which 6 can cheaply be had again. Besides:
     * the head's chunk of logits, the gradient it gives, and a block's gradients. */
    assert_true(all.peak <= 16 * LAYERS * row + logits + 4 * row);
    assert_true(cheap.peak <= 10 * LAYERS * row + logits + 4 * row);
    assert_true(one.peak <= LAYERS * row + logits + 4 * row);
    assert_true(least.peak <= one.peak && one.peak < two.peak && two.peak < all.peak);
}

/* Recomputing a block leaves out its last product, which no gradient needs. */
static void products(void **state)
{
    (void)state;
    double tokens = B * T, block = 2.0 * tokens * 12.0 * D * D, head = 2.0 * tokens * D * 50257.0;
    double last = 2.0 * tokens * 4.0 * D * D;
    double all = plan_of(0, 0).products, one = plan_of(1, 0).products;
    assert_true(all == 3 * (LAYERS * block + head));
    assert_true(one == all + LAYERS * (block - last));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(peak), cmocka_unit_test(products)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
