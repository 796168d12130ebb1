/* fp16 training in which one rank's gradients overflow: no rank updates, and the loss scale moves as DeepSpeed's.
 *
 *     mpirun -n N overflow [DEVICE]
 *
 * What overflows is real: a target of 60000 on the last rank leaves the loss finite, but its gradient, multiplied
 * by the loss scale, is no fp16 number any more. */
#include <mpi.h>
#include <stdio.h>
#include <string.h>

#include <mpizero/mpizero.h>

enum { FEATURES = 5, HIDDEN = 24, TARGETS = 3, SAMPLES = 8, SCALE_POWER = 12 };

static int n_failures;

#define CHECK(condition, ...)                                                                                      \
    do {                                                                                                           \
        if (!(condition)) {                                                                                        \
            n_failures++;                                                                                          \
            fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #condition);                                        \
            fprintf(stderr, __VA_ARGS__);                                                                          \
            fputc('\n', stderr);                                                                                   \
        }                                                                                                          \
    } while (0)

static void require(mz_status status, const char *what)
{
    if (status == MZ_OK)
        return;
    fprintf(stderr, "%s: %s: %s\n", what, mz_status_text(status), mz_last_error());
    MPI_Abort(MPI_COMM_WORLD, 1);
}

/* ---- the model ---- */

static mz_status hidden_layer(const mz_unit_call *call)
{
    return mz_linear(call->tape, call->inputs[MZ_INPUT_FEATURES], call->params[0], call->params[1],
                     MZ_WEIGHT_OUT_IN, MZ_ACT_TANH, &call->state[0]);
}

static mz_status output_layer(const mz_unit_call *call)
{
    mz_tensor *hidden = call->state[0], *y = NULL;
    call->state[0] = NULL;
    mz_status status =
        mz_linear(call->tape, hidden, call->params[0], call->params[1], MZ_WEIGHT_OUT_IN, MZ_ACT_NONE, &y);
    mz_tensor_release(hidden);
    if (status == MZ_OK)
        status = mz_mse_loss(call->tape, y, call->inputs[MZ_INPUT_TARGETS], &call->state[0]);
    mz_tensor_release(y);
    return status;
}

static mz_status add_layer(mz_model *model, const char *name, int64_t in, int64_t out,
                           mz_status (*forward)(const mz_unit_call *call))
{
    char weight[32], bias[32];
    snprintf(weight, sizeof weight, "%s.weight", name);
    snprintf(bias, sizeof bias, "%s.bias", name);
    const mz_param_spec params[] = {
        {.name = weight, .n_dims = 2, .shape = {out, in}, .init = MZ_INIT_NORMAL, .init_scale = 0.3f},
        {.name = bias, .n_dims = 1, .shape = {out}, .init = MZ_INIT_ZEROS},
    };
    const mz_unit_spec unit = {
        .name = name, .params = params, .n_params = 2, .forward = forward, .replayable = true};
    return mz_model_add_unit(model, &unit);
}

/* ---- the data ---- */

typedef struct samples {
    float features[SAMPLES][FEATURES], targets[SAMPLES][TARGETS];
    mz_host_input inputs[2];
    mz_batch batch;
} samples;

/* This rank's samples of a step; poisoned, the last rank's last target is far away. */
static void fill(samples *s, const mz_world *world, int step, bool poisoned)
{
    for (int i = 0; i < SAMPLES; i++) {
        for (int f = 0; f < FEATURES; f++)
            s->features[i][f] =
                (float)((step * 31 + (mz_world_rank(world) * SAMPLES + i) * 7 + f * 3) % 17) / 17.0f - 0.5f;
        for (int t = 0; t < TARGETS; t++)
            s->targets[i][t] = s->features[i][t] * s->features[i][t + 1];
    }
    if (poisoned && mz_world_rank(world) == mz_world_size(world) - 1)
        s->targets[SAMPLES - 1][TARGETS - 1] = 60000;
    s->inputs[0] = (mz_host_input){MZ_INPUT_FEATURES, MZ_F32, 2, {SAMPLES, FEATURES}, s->features};
    s->inputs[1] = (mz_host_input){MZ_INPUT_TARGETS, MZ_F32, 2, {SAMPLES, TARGETS}, s->targets};
    s->batch = (mz_batch){.inputs = s->inputs, .n_inputs = 2, .n_samples = SAMPLES};
}

/* ---- steps ---- */

/* hysteresis 2, loss_scale_window 3: the first overflow spends the hysteresis, the second halves the scale; when
 * three steps after a clean one were clean too, the scale doubles and the hysteresis is whole again. */
static const struct {
    bool poisoned;
    int power; /* of two: the scale that the step is computed with */
} expected[] = {
    {false, SCALE_POWER},     {true, SCALE_POWER},      {true, SCALE_POWER},      {false, SCALE_POWER - 1},
    {false, SCALE_POWER - 1}, {false, SCALE_POWER - 1}, {false, SCALE_POWER - 1}, {false, SCALE_POWER},
    {true, SCALE_POWER},      {false, SCALE_POWER},
};
enum { N_STEPS = sizeof expected / sizeof expected[0] };

static double loss_of(mz_engine *engine, const mz_world *world)
{
    samples s;
    double sum = 0, n = 0;
    fill(&s, world, 1000, false);
    require(mz_engine_eval(engine, &s.batch, &sum, &n), "mz_engine_eval");
    return sum;
}

static void check_step(mz_engine *engine, const mz_world *world, int stage, int step)
{
    samples s;
    mz_step_info info;
    double before = loss_of(engine, world);
    fill(&s, world, step, expected[step].poisoned);
    require(mz_engine_forward(engine, &s.batch), "mz_engine_forward");
    require(mz_engine_backward(engine), "mz_engine_backward");
    require(mz_engine_step(engine, &info), "mz_engine_step");
    double after = loss_of(engine, world);
    CHECK(info.skipped == expected[step].poisoned, "rank %d, stage %d, step %d", mz_world_rank(world), stage, step);
    CHECK(info.loss_scale == (double)(1 << expected[step].power), "rank %d, stage %d, step %d: %g",
          mz_world_rank(world), stage, step, info.loss_scale);
    CHECK(info.loss < 1e30 && (info.loss > 1e6) == expected[step].poisoned, "stage %d, step %d: loss %g", stage,
          step, info.loss);
    CHECK((before == after) == expected[step].poisoned, "stage %d, step %d: loss %g became %g", stage, step, before,
          after);
}

static void train(mz_world *world, const mz_model *model, const char *device, int stage)
{
    mz_config_defaults flags;
    mz_config config;
    mz_engine *engine = NULL;
    const mz_engine_options options = {.device = device, .n_threads = 1};
    mz_config_defaults_init(&flags);
    flags.micro_batch_size = SAMPLES;
    flags.gradient_accumulation_steps = 1;
    flags.learning_rate = 1e-2;
    flags.mixed_precision = "fp16";
    flags.zero_stage = stage;
    require(mz_config_load(NULL, &flags, mz_world_size(world), &config), "mz_config_load");
    config.fp16.initial_scale_power = SCALE_POWER;
    config.fp16.loss_scale_window = 3;
    config.fp16.hysteresis = 2;
    require(mz_engine_create(world, &config, model, &options, &engine), "mz_engine_create");
    for (int step = 0; step < N_STEPS; step++)
        check_step(engine, world, stage, step);
    mz_engine_destroy(engine);
}

int main(int argc, char **argv)
{
    const char *device = argc > 1 ? argv[1] : "cpu";
    mz_world *world = NULL;
    mz_model *model = NULL;
    require(mz_start(0, 60, &world), "mz_start");
    require(mz_model_create("perceptron", &model), "mz_model_create");
    require(add_layer(model, "hidden", FEATURES, HIDDEN, hidden_layer), "the hidden layer");
    require(add_layer(model, "output", HIDDEN, TARGETS, output_layer), "the output layer");
    for (int stage = 0; stage <= 3; stage++)
        train(world, model, device, stage);
    int all = n_failures;
    MPI_Allreduce(&n_failures, &all, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    if (mz_world_rank(world) == 0 && all == 0)
        printf("stages 0 to 3 on %d ranks: %d steps each, skipped together\n", mz_world_size(world), N_STEPS);
    mz_model_destroy(model);
    mz_stop(world);
    return all != 0;
}
