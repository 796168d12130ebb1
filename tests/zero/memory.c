/* Planning on the meta device: what each rank of GPT-2 124M would hold is the formula's figure, within 2 %; a step
 * can be played; and a creation that runs out of host memory anywhere leaves nothing behind. */
#include "rig.h"

/* What is kept: fp32; bf16 with fp32 masters and moments; bf16 with fp32 moments; bf16 throughout. */
typedef enum keeping { FP32, MASTERS, NO_MASTERS, ALL_BF16, N_KEEPINGS } keeping;

static double formula(int stage, int ranks, keeping kept, double n)
{
    static const double rests[N_KEEPINGS] = {8, 12, 8, 4};
    double params = kept == FP32 ? 4 : 2, grads = params, rest = rests[kept], r = ranks;
    if (stage == 0)
        return n * (params + grads + rest);
    if (stage == 1)
        return n * (params + grads + rest / r);
    if (stage == 2)
        return n * (params + (grads + rest) / r);
    return n * (params + grads + rest) / r;
}

static void check(const mz_model *model, int stage, int ranks, int rank, keeping kept)
{
    static const char *const names[N_KEEPINGS] = {"fp32", "bf16", "bf16, no masters", "bf16 throughout"};
    const mz_dtype dtype = kept == FP32 ? MZ_F32 : MZ_BF16;
    mz_device *device = NULL;
    mz_stream *stream = NULL;
    mz_runner *runner = NULL;
    mz_zero *zero = NULL;
    mz_config c;
    mz_zero_memory m;
    rig_config(&c);
    c.zero.stage = stage;
    c.zero.stage3_param_persistence_threshold = 100000;
    c.dtype = c.grad_accum_dtype = c.communication_data_type = dtype;
    c.bf16_master_weights_and_grads = kept >= NO_MASTERS;
    c.bf16_optimizer_states = c.stochastic_rounding = kept == ALL_BF16;
    REQUIRE(mz_device_open("meta", 0, 1, &device));
    REQUIRE(device->ops->stream_create(device, MZ_STREAM_COMPUTE, &stream));
    REQUIRE(mz_runner_create(model, dtype, dtype, &runner));
    mz_zero_options options = {
        .config = &c, .device = device, .compute = stream, .runner = runner, .plan_rank = rank, .plan_size = ranks};
    REQUIRE(mz_zero_create(&options, &zero));
    mz_zero_get_memory(zero, &m);
    double held = (double)(m.params + m.grads + m.master + m.optimizer);
    double expected = formula(stage, ranks, kept, (double)mz_model_n_params(model));
    CHECK(fabs(held - expected) < 0.02 * expected, "stage %d, rank %d of %d, %s: %.0f bytes, the formula says %.0f",
          stage, rank, ranks, names[kept], held, expected);
    CHECK((m.master > 0) == (kept == MASTERS), "%s: %zu bytes of masters", names[kept], m.master);
    CHECK((m.gather_buffers > 0) == (stage == 3 && ranks > 1), "stage %d: %zu bytes to gather", stage,
          m.gather_buffers);
    CHECK((m.reduce_buffers > 0) == (stage >= 2 && ranks > 1), "stage %d: %zu bytes to reduce", stage,
          m.reduce_buffers);
    CHECK(m.other < 100000, "stage %d: %zu other bytes", stage, m.other);
    if (rank == 0)
        printf("stage %d, %d ranks, %-16s: %7.1f MB (formula %7.1f), gather %6.1f, reduce %6.1f\n", stage, ranks,
               names[kept], held / 1e6, expected / 1e6, (double)m.gather_buffers / 1e6,
               (double)m.reduce_buffers / 1e6);
    mz_zero_destroy(zero);
    mz_runner_destroy(runner);
    device->ops->stream_destroy(stream);
    mz_device_close(device);
}

/* What a rank of 8 holds in MiCS's groups and with hpZ's second copy, in bf16. */
static void check_groups(const mz_model *model, int mics, int hpz)
{
    mz_device *device = NULL;
    mz_stream *stream = NULL;
    mz_runner *runner = NULL;
    mz_zero *zero = NULL;
    mz_config c;
    mz_zero_memory m;
    rig_config(&c);
    c.zero.stage = 3;
    c.zero.mics_shard_size = mics;
    c.zero.zero_hpz_partition_size = hpz;
    c.dtype = c.grad_accum_dtype = c.communication_data_type = MZ_BF16;
    REQUIRE(mz_device_open("meta", 0, 1, &device));
    REQUIRE(device->ops->stream_create(device, MZ_STREAM_COMPUTE, &stream));
    REQUIRE(mz_runner_create(model, MZ_BF16, MZ_BF16, &runner));
    mz_zero_options options = {
        .config = &c, .device = device, .compute = stream, .runner = runner, .plan_rank = 5, .plan_size = 8};
    REQUIRE(mz_zero_create(&options, &zero));
    mz_zero_get_memory(zero, &m);
    double held = (double)(m.params + m.grads + m.master + m.optimizer), n = (double)mz_model_n_params(model);
    double expected = formula(3, mics > 0 ? mics : 8, MASTERS, n) + (hpz > 1 ? 2 * n / hpz : 0);
    CHECK(fabs(held - expected) < 0.02 * expected, "MiCS %d, hpZ %d: %.0f bytes, the formula says %.0f", mics, hpz,
          held, expected);
    printf("8 ranks, MiCS %2d, hpZ %d: %7.1f MB (formula %7.1f)\n", mics, hpz, held / 1e6, expected / 1e6);
    mz_zero_destroy(zero);
    mz_runner_destroy(runner);
    device->ops->stream_destroy(stream);
    mz_device_close(device);
}

/* A training step and an evaluation of rank 1 of 3, with nobody to talk to. */
static void play_step(mz_device *device, mz_zero *zero, mz_runner *runner, mz_stream *stream)
{
    mz_arena *arena = NULL;
    mz_tape *tape = NULL;
    mz_runner_hooks hooks;
    mz_run run = {.goal = MZ_GOAL_LOSS, .training = true};
    mz_tensor *loss = NULL;
    mz_zero_step_info info = {.loss_scale = 1, .step = 1};
    const int64_t shape[2] = {2, RIG_TOKENS};
    int32_t ids[2 * RIG_TOKENS] = {0};
    REQUIRE(mz_arena_create(device, 0, &arena));
    mz_tape_options options = {.device = device,
                               .stream = stream,
                               .arena = arena,
                               .dtype = MZ_BF16,
                               .grad_request = mz_zero_grad_request,
                               .grad_context = zero};
    REQUIRE(mz_tape_create(&options, &tape));
    mz_zero_hooks(zero, &hooks);
    mz_runner_set_hooks(runner, &hooks);
    REQUIRE(mz_tensor_borrow(tape, MZ_I32, 2, shape, ids, &run.inputs[MZ_INPUT_IDS]));
    run.inputs[MZ_INPUT_LABELS] = run.inputs[MZ_INPUT_IDS];
    REQUIRE(mz_zero_begin_micro(zero, true, true, true));
    REQUIRE(mz_runner_forward(runner, tape, &run, &loss));
    REQUIRE(mz_runner_backward(runner, tape));
    REQUIRE(mz_zero_end_micro(zero));
    REQUIRE(mz_zero_update(zero, &info));
    mz_tensor_release(loss);
    run.training = false;
    REQUIRE(mz_zero_begin_micro(zero, false, false, false));
    REQUIRE(mz_runner_forward(runner, tape, &run, &loss));
    REQUIRE(mz_zero_end_micro(zero));
    CHECK(zero->position == mz_model_n_units(mz_runner_model(runner)), "%d units ran", zero->position);
    mz_tensor_release(loss);
    mz_tape_destroy(tape);
    mz_arena_destroy(arena);
}

static void check_plan(const mz_model *model, int stage, bool overlap, mz_dtype wire)
{
    mz_device *device = NULL;
    mz_stream *stream = NULL;
    mz_runner *runner = NULL;
    mz_zero *zero = NULL;
    mz_config c;
    rig_config(&c);
    c.zero.stage = stage;
    c.zero.overlap_comm = overlap;
    c.zero.reduce_bucket_size = 3000;
    c.dtype = c.grad_accum_dtype = MZ_BF16;
    c.communication_data_type = wire;
    REQUIRE(mz_device_open("meta", 0, 1, &device));
    REQUIRE(device->ops->stream_create(device, MZ_STREAM_COMPUTE, &stream));
    REQUIRE(mz_runner_create(model, MZ_BF16, MZ_BF16, &runner));
    mz_zero_options options = {
        .config = &c, .device = device, .compute = stream, .runner = runner, .plan_rank = 1, .plan_size = 3};
    mz_status status = MZ_ERR_MEMORY;
    for (long n = 1; status == MZ_ERR_MEMORY && n < 100000; n++) {
        mz_memory_fail_at(n);
        status = mz_zero_create(&options, &zero);
        mz_memory_fail_at(0);
        CHECK(status == MZ_OK || !zero, "allocation %ld", n);
    }
    REQUIRE(status);
    play_step(device, zero, runner, stream);
    mz_zero_destroy(zero);
    mz_runner_destroy(runner);
    device->ops->stream_destroy(stream);
    mz_device_close(device);
}

/* Parameters alone. */
static void check_inference(const mz_model *model)
{
    mz_device *device = NULL;
    mz_stream *stream = NULL;
    mz_runner *runner = NULL;
    mz_zero *zero = NULL;
    mz_config c;
    mz_zero_memory m;
    const mz_shard *shards;
    int64_t n_shards;
    rig_config(&c);
    c.dtype = c.grad_accum_dtype = c.communication_data_type = MZ_BF16;
    REQUIRE(mz_device_open("meta", 0, 1, &device));
    REQUIRE(device->ops->stream_create(device, MZ_STREAM_COMPUTE, &stream));
    REQUIRE(mz_runner_create(model, MZ_BF16, MZ_BF16, &runner));
    mz_zero_options options = {
        .config = &c, .device = device, .compute = stream, .runner = runner, .inference = true};
    REQUIRE(mz_zero_create(&options, &zero));
    mz_zero_get_memory(zero, &m);
    CHECK(m.params > 0 && m.grads == 0 && m.master == 0 && m.optimizer == 0, "%zu, %zu, %zu bytes", m.grads,
          m.master, m.optimizer);
    CHECK(mz_zero_begin_micro(zero, true, true, true) == MZ_ERR_ARGUMENT, "training is not refused");
    CHECK(mz_zero_update(zero, &(mz_zero_step_info){.loss_scale = 1}) == MZ_ERR_ARGUMENT, "update is not refused");
    CHECK(mz_zero_shards(zero, &shards, &n_shards) == MZ_ERR_ARGUMENT, "shards are not refused");
    mz_zero_destroy(zero);
    mz_runner_destroy(runner);
    device->ops->stream_destroy(stream);
    mz_device_close(device);
}

int main(void)
{
    mz_model *model = NULL;
    REQUIRE(mz_model_from_config("gpt2",
                                 "{\"model_type\": \"gpt2\", \"vocab_size\": 50257, \"n_positions\": 1024, "
                                 "\"n_embd\": 768, \"n_layer\": 12, \"n_head\": 12, \"bos_token_id\": 50256, "
                                 "\"eos_token_id\": 50256}",
                                 &model));
    for (int stage = 0; stage <= 3; stage++)
        for (int ranks = 1; ranks <= 4; ranks++)
            for (int rank = 0; rank < ranks; rank++)
                for (int kept = 0; kept < N_KEEPINGS; kept++)
                    check(model, stage, ranks, rank, (keeping)kept);
    check_groups(model, -1, 1);
    check_groups(model, -1, 2);
    check_groups(model, -1, 4);
    check_groups(model, 2, 1);
    check_groups(model, 4, 2);
    check_groups(model, 1, 1);
    mz_model_destroy(model);
    rig_model("gpt2", 2, &model);
    for (int stage = 0; stage <= 3; stage++) {
        check_plan(model, stage, false, MZ_BF16);
        check_plan(model, stage, true, MZ_F16);
    }
    check_inference(model);
    mz_model_destroy(model);
    return rig_n_failures != 0;
}
