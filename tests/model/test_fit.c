/* A step that does not fit as it is: first what is cheap is recomputed, then the message says what would fit. On
 * two ranks, of which one has less memory, both come to the same. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "train/engine_impl.h"

static size_t free_bytes;

static mz_status little_memory(mz_device *device, size_t *free_out, size_t *total)
{
    (void)device;
    *free_out = *total = free_bytes;
    return MZ_OK;
}

static int failures;

static void expect(bool holds, const char *what)
{
    if (!holds) {
        printf("expected: %s; last error: %s\n", what, mz_last_error());
        failures++;
    }
}

enum { B = 6, T = 32 };

static const char *const config_json = "{\"model_type\": \"gpt2\", \"vocab_size\": 50, \"n_positions\": 32,"
                                       " \"n_embd\": 32, \"n_layer\": 6, \"n_head\": 2}";

/* One step on an engine whose device shows `room` bytes besides its reserve; the gradients' norm, or -1. */
static double step(mz_world *world, const mz_model *model, const mz_config *config, size_t room, bool *recomputes)
{
    static int32_t ids[B][T], labels[B][T];
    const mz_host_input inputs[] = {{MZ_INPUT_IDS, MZ_I32, 2, {B, T}, ids},
                                    {MZ_INPUT_LABELS, MZ_I32, 2, {B, T}, labels}};
    const mz_batch batch = {.inputs = inputs, .n_inputs = 2, .n_samples = B};
    mz_engine *engine = NULL;
    mz_step_info info;
    for (int i = 0; i < B * T; i++) {
        ids[i / T][i % T] = i * 7 % 50;
        labels[i / T][i % T] = i * 5 % 50;
    }
    if (mz_engine_create(world, config, model, NULL, &engine) != MZ_OK)
        return -1;
    mz_device_ops ops = *engine->device->ops;
    ops.memory_info = little_memory;
    engine->device->ops = &ops;
    free_bytes = room + room / 32;
    mz_status status = mz_engine_forward(engine, &batch);
    if (status == MZ_OK)
        status = mz_engine_backward(engine);
    if (status == MZ_OK)
        status = mz_engine_step(engine, &info);
    *recomputes = engine->recompute.activations > 0;
    mz_engine_destroy(engine);
    return status == MZ_OK ? info.grad_norm : -1;
}

/* What is asked for is kept to with as little recomputation as that takes, and the gradients stay. */
static void check_limit(mz_world *world, const mz_model *model, const mz_config *config, const mz_batch *batch,
                        size_t plain, double want)
{
    mz_config limited = *config;
    mz_recompute found, less;
    mz_plan plan, more;
    bool recomputes;
    size_t limit = plain / 10 * 9;
    expect(mz_plan_within(model, config, batch, (mz_recompute){0}, limit, &found, &plan) == MZ_OK, "a plan");
    expect(plan.arena_bytes <= limit && found.activations > 0 && found.activations < 6 && found.norms == 0,
           "a tenth less is saved in some units");
    less = (mz_recompute){found.activations - 1, 0};
    expect(mz_plan_step(model, config, batch, true, less, &more) == MZ_OK && more.arena_bytes > limit,
           "one unit fewer does not do");
    limited.activation_memory = (double)limit / (1 << 30);
    double got = step(world, model, &limited, plain, &recomputes);
    expect(recomputes && fabs(got - want) <= 1e-6 * want, "a step within the limit, with the same gradients");
    limited.activation_memory = (double)plain / 4 / (1 << 30);
    expect(step(world, model, &limited, plain, &recomputes) < 0 && strstr(mz_last_error(), "--activation-memory"),
           "a limit that is too low is refused");
}

static void check(mz_world *world, const mz_model *model, const mz_config *config)
{
    const mz_host_input shapes[] = {{.role = MZ_INPUT_IDS, .dtype = MZ_I32, .n_dims = 2, .shape = {B, T}},
                                    {.role = MZ_INPUT_LABELS, .dtype = MZ_I32, .n_dims = 2, .shape = {B, T}}};
    const mz_batch batch = {.inputs = shapes, .n_inputs = 2, .n_samples = B};
    mz_plan plain, thrifty;
    bool recomputes;
    expect(mz_plan_step(model, config, &batch, true, (mz_recompute){0}, &plain) == MZ_OK, "a plan");
    expect(mz_plan_step(model, config, &batch, true, MZ_RECOMPUTE_ALL, &thrifty) == MZ_OK, "a plan");
    printf("a step needs %zu bytes, %zu with recomputation\n", plain.arena_bytes, thrifty.arena_bytes);
    expect(thrifty.arena_bytes < plain.arena_bytes * 3 / 4, "recomputation saves a quarter");

    double want = step(world, model, config, plain.arena_bytes, &recomputes);
    expect(want > 0 && !recomputes, "a step in enough memory");
    double got = step(world, model, config, thrifty.arena_bytes, &recomputes);
    expect(recomputes && fabs(got - want) <= 1e-6 * want, "a step in less memory, with the same gradients");
    check_limit(world, model, config, &batch, plain.arena_bytes, want);
    expect(step(world, model, config, thrifty.arena_bytes / 2, &recomputes) < 0 &&
               strstr(mz_last_error(), "A micro-batch of 2 fits"),
           "a message that says what fits");
}

/* Rank 1 has half of what the step needs, rank 0 has plenty. */
static void check_ranks(mz_world *world, const mz_model *model, const mz_config *config)
{
    const mz_host_input shapes[] = {{.role = MZ_INPUT_IDS, .dtype = MZ_I32, .n_dims = 2, .shape = {B, T}},
                                    {.role = MZ_INPUT_LABELS, .dtype = MZ_I32, .n_dims = 2, .shape = {B, T}}};
    const mz_batch batch = {.inputs = shapes, .n_inputs = 2, .n_samples = B};
    mz_plan thrifty;
    mz_engine *engine = NULL;
    expect(mz_plan_step(model, config, &batch, true, MZ_RECOMPUTE_ALL, &thrifty) == MZ_OK, "a plan");
    expect(mz_engine_create(world, config, model, NULL, &engine) == MZ_OK, "an engine");
    if (failures)
        return;
    mz_device_ops ops = *engine->device->ops;
    ops.memory_info = little_memory;
    engine->device->ops = &ops;
    free_bytes = (size_t)1 << 40;
    if (world->rank == 1)
        free_bytes = thrifty.arena_bytes / 2 + thrifty.arena_bytes / 64;
    expect(mz_engine_plan(engine, &batch) == MZ_ERR_MEMORY, "both ranks refuse the batch");
    expect(strstr(mz_last_error(), "A micro-batch of 2 fits"), "the batch that fits on both");
    expect(strstr(mz_last_error(), "rank 1"), "the rank with the least memory");
    free_bytes = (size_t)1 << 40;
    if (world->rank == 1)
        free_bytes = thrifty.arena_bytes + thrifty.arena_bytes / 32;
    expect(mz_engine_plan(engine, &batch) == MZ_OK && engine->recompute.activations > 0, "both ranks recompute");
    mz_engine_destroy(engine);
}

int main(void)
{
    mz_world *world = NULL;
    mz_model *model = NULL;
    mz_config config;
    mz_config_defaults defaults;
    mz_config_defaults_init(&defaults);
    defaults.micro_batch_size = B;
    defaults.gradient_accumulation_steps = 1;
    expect(mz_start(0, 0, &world) == MZ_OK, "a world");
    expect(mz_config_load(NULL, &defaults, world->size, &config) == MZ_OK, "a configuration");
    expect(mz_model_from_config("small", config_json, &model) == MZ_OK, "a model");
    if (failures == 0)
        (world->size > 1 ? check_ranks : check)(world, model, &config);
    mz_model_destroy(model);
    mz_stop(world);
    return failures > 0;
}
