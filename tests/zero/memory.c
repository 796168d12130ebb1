/* GPT-2 124M on the meta device: what each rank would hold is the formula's figure, within 2 %. */
#include "rig.h"

static double formula(int stage, int ranks, bool wide, double n)
{
    double params = wide ? 4 : 2, grads = params, rest = wide ? 8 : 12, r = ranks;
    if (stage == 0)
        return n * (params + grads + rest);
    if (stage == 1)
        return n * (params + grads + rest / r);
    if (stage == 2)
        return n * (params + (grads + rest) / r);
    return n * (params + grads + rest) / r;
}

static void check(const mz_model *model, int stage, int ranks, int rank, mz_dtype dtype)
{
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
    REQUIRE(mz_device_open("meta", 0, 1, &device));
    REQUIRE(device->ops->stream_create(device, MZ_STREAM_COMPUTE, &stream));
    REQUIRE(mz_runner_create(model, dtype, dtype, &runner));
    mz_zero_options options = {
        .config = &c, .device = device, .compute = stream, .runner = runner, .plan_rank = rank, .plan_size = ranks};
    REQUIRE(mz_zero_create(&options, &zero));
    mz_zero_get_memory(zero, &m);
    double held = (double)(m.params + m.grads + m.master + m.optimizer);
    double expected = formula(stage, ranks, dtype == MZ_F32, (double)mz_model_n_params(model));
    CHECK(fabs(held - expected) < 0.02 * expected, "stage %d, rank %d of %d, %s: %.0f bytes, the formula says %.0f",
          stage, rank, ranks, mz_dtype_name(dtype), held, expected);
    CHECK((m.gather_buffers > 0) == (stage == 3 && ranks > 1), "stage %d: %zu bytes to gather", stage,
          m.gather_buffers);
    CHECK((m.reduce_buffers > 0) == (stage >= 2 && ranks > 1), "stage %d: %zu bytes to reduce", stage,
          m.reduce_buffers);
    CHECK(m.other < 100000, "stage %d: %zu other bytes", stage, m.other);
    if (rank == 0)
        printf("stage %d, %d ranks, %4s: %7.1f MB (formula %7.1f), gather %6.1f, reduce %6.1f\n", stage, ranks,
               mz_dtype_name(dtype), held / 1e6, expected / 1e6, (double)m.gather_buffers / 1e6,
               (double)m.reduce_buffers / 1e6);
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
            for (int rank = 0; rank < ranks; rank++) {
                check(model, stage, ranks, rank, MZ_BF16);
                check(model, stage, ranks, rank, MZ_F32);
            }
    mz_model_destroy(model);
    return rig_n_failures != 0;
}
