/* A model of one's own: a perceptron with one hidden layer learns which of two spirals a point lies on.
 *
 *     cc mlp.c $(pkg-config --cflags --libs mpizero) -o mlp
 *     mpirun -n 4 ./mlp [DEEPSPEED.json]
 *
 * It prints the loss as it falls and the share of new points told apart. The same numbers come out on any number
 * of ranks that divides BATCH, with any ZeRO stage in the configuration. */
#include <math.h>
#include <stdio.h>

#include <mpizero/mpizero.h>

enum { FEATURES = 2, HIDDEN = 64, CLASSES = 2, BATCH = 64, STEPS = 600, TEST_POINTS = 512 };

/* ---- the model: a list of units, each with parameters and a forward function; no backward is written ---- */

static mz_status hidden_layer(const mz_unit_call *call)
{
    return mz_linear(call->tape, call->inputs[MZ_INPUT_FEATURES], call->params[0], call->params[1],
                     MZ_WEIGHT_OUT_IN, MZ_ACT_SILU, &call->state[0]);
}

static mz_status output_layer(const mz_unit_call *call)
{
    mz_tensor *hidden = call->state[0], *logits;
    call->state[0] = NULL;
    mz_status status =
        mz_linear(call->tape, hidden, call->params[0], call->params[1], MZ_WEIGHT_OUT_IN, MZ_ACT_NONE, &logits);
    mz_tensor_release(hidden);
    if (status != MZ_OK || call->goal == MZ_GOAL_LOGITS) {
        call->state[0] = status == MZ_OK ? logits : NULL;
        return status;
    }
    status = mz_cross_entropy(call->tape, logits, call->inputs[MZ_INPUT_TARGETS], -100, &call->state[0]);
    mz_tensor_release(logits);
    return status;
}

static mz_status make_model(mz_model **model)
{
    const mz_param_spec hidden[] = {
        {.name = "hidden.weight",
         .n_dims = 2,
         .shape = {HIDDEN, FEATURES},
         .init = MZ_INIT_NORMAL,
         .init_scale = 2},
        {.name = "hidden.bias", .n_dims = 1, .shape = {HIDDEN}, .init = MZ_INIT_UNIFORM, .init_scale = 2},
    };
    const mz_param_spec output[] = {
        {.name = "output.weight",
         .n_dims = 2,
         .shape = {CLASSES, HIDDEN},
         .init = MZ_INIT_NORMAL,
         .init_scale = 0.1f},
        {.name = "output.bias", .n_dims = 1, .shape = {CLASSES}, .init = MZ_INIT_ZEROS},
    };
    const mz_unit_spec units[] = {
        {.name = "hidden", .params = hidden, .n_params = 2, .forward = hidden_layer, .replayable = true},
        {.name = "output", .params = output, .n_params = 2, .forward = output_layer, .replayable = true},
    };
    mz_status status = mz_model_create("perceptron", model);
    for (int i = 0; i < 2 && status == MZ_OK; i++)
        status = mz_model_add_unit(*model, &units[i]);
    return status;
}

/* ---- the data ---- */

typedef struct points {
    float features[TEST_POINTS][FEATURES];
    int32_t classes[TEST_POINTS];
} points;

/* Points first .. first + n of an endless sequence. */
static void make_points(int64_t first, int n, points *p)
{
    for (int i = 0; i < n; i++) {
        double k = (double)(first + i), turn = 0.1 + 0.9 * fmod(k * 0.6180339887, 1.0);
        p->classes[i] = (int32_t)((first + i) % CLASSES);
        double angle = 5.0 * turn + 3.14159265 * p->classes[i] + 0.1 * sin(12.9898 * k);
        p->features[i][0] = (float)(turn * cos(angle));
        p->features[i][1] = (float)(turn * sin(angle));
    }
}

static void make_inputs(const points *p, int n, mz_host_input inputs[2])
{
    inputs[0] = (mz_host_input){MZ_INPUT_FEATURES, MZ_F32, 2, {n, FEATURES}, p->features};
    inputs[1] = (mz_host_input){MZ_INPUT_TARGETS, MZ_I32, 1, {n}, p->classes};
}

/* ---- training ---- */

static mz_status train(mz_engine *engine, mz_world *world)
{
    int rank = mz_world_rank(world), size = mz_world_size(world), share = BATCH / size;
    mz_status status = MZ_OK;
    for (int64_t step = 0; step < STEPS && status == MZ_OK; step++) {
        points p;
        mz_host_input inputs[2];
        mz_step_info info;
        make_points(step * BATCH + rank * share, share, &p);
        make_inputs(&p, share, inputs);
        const mz_batch batch = {.inputs = inputs, .n_inputs = 2, .n_samples = share, .n_targets_global = BATCH};
        status = mz_engine_forward(engine, &batch);
        if (status == MZ_OK)
            status = mz_engine_backward(engine);
        if (status == MZ_OK)
            status = mz_engine_step(engine, &info);
        if (status == MZ_OK && rank == 0 && info.step % 100 == 0)
            printf("step %lld: loss %.6f\n", (long long)info.step, info.loss);
    }
    return status;
}

static mz_status test(mz_engine *engine, mz_world *world)
{
    static points p;
    static float logits[TEST_POINTS][CLASSES];
    mz_host_input inputs[2];
    int right = 0;
    make_points(STEPS * BATCH + 1, TEST_POINTS, &p);
    make_inputs(&p, TEST_POINTS, inputs);
    const mz_batch batch = {.inputs = inputs, .n_inputs = 1, .n_samples = TEST_POINTS};
    mz_status status = mz_engine_logits(engine, &batch, NULL, false, logits[0]);
    for (int i = 0; i < TEST_POINTS; i++)
        right += (logits[i][1] > logits[i][0]) == p.classes[i];
    if (status == MZ_OK && mz_world_rank(world) == 0)
        printf("%.1f %% of %d new points told apart\n", 100.0 * right / TEST_POINTS, TEST_POINTS);
    return status;
}

static mz_status configure(const char *path, int size, mz_config *config)
{
    mz_config_defaults defaults;
    mz_config_defaults_init(&defaults);
    defaults.micro_batch_size = BATCH / size;
    defaults.gradient_accumulation_steps = 1;
    defaults.learning_rate = 1e-2;
    defaults.seed = 1;
    return mz_config_load(path, &defaults, size, config);
}

int main(int argc, char **argv)
{
    mz_world *world = NULL;
    mz_model *model = NULL;
    mz_engine *engine = NULL;
    mz_config config;
    mz_status status = mz_start(0, 0, &world);
    if (status == MZ_OK)
        status = configure(argc > 1 ? argv[1] : NULL, mz_world_size(world), &config);
    if (status == MZ_OK)
        status = make_model(&model);
    if (status == MZ_OK)
        status = mz_engine_create(world, &config, model, NULL, &engine);
    if (status == MZ_OK)
        status = train(engine, world);
    if (status == MZ_OK)
        status = test(engine, world);
    if (status != MZ_OK)
        fprintf(stderr, "mlp: %s: %s\n", mz_status_text(status), mz_last_error());
    mz_engine_destroy(engine);
    mz_model_destroy(model);
    mz_stop(world);
    return status == MZ_OK ? 0 : 1;
}
