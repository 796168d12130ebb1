/* Training whose micro-batches are recorded and replayed, beside training whose kernels are launched one by one:
 * the same bits, whatever comes between.
 *
 *     mpirun -n N replay [DEVICE]
 *
 * On a GPU its own graphs replay; on the CPU the recorder's do. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <mpizero/mpizero.h>

#include "core/error.h"
#include "kernels/kernels.h"
#include "recorder.h"
#include "tensor/node.h"
#include "train/engine_impl.h"
#include "train/profile.h"

enum { VOCAB = 61, POSITIONS = 24, MAX_SAMPLES = 6, MAX_STEPS = 24 };

static int n_failures;
static const char *device = "cpu";
static mz_world *world;

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

/* ---- what is trained ---- */

typedef struct trial {
    const char *name;
    const char *precision; /* NULL: fp32 */
    int stage, accumulation;
    int checkpointing;
    bool cheap;     /* recompute_cheap */
    bool shapes;    /* they change from step to step */
    bool between;   /* evaluation, logits, a profiled step and a checkpoint between the steps */
    bool overflows; /* the first steps do */
    int fails;      /* the n-th end of a recording fails; 0: none */
    bool never;     /* nothing is to be replayed */
    const mz_model *model;
} trial;

typedef struct outcome {
    mz_step_info steps[MAX_STEPS];
    double evals[MAX_STEPS];
    float logits[MAX_SAMPLES * VOCAB];
    float *params;
    int64_t n_params, n_replayed;
} outcome;

static mz_model *make_gpt2(void)
{
    mz_model *model = NULL;
    require(
        mz_model_from_config("test",
                             "{\"model_type\": \"gpt2\", \"vocab_size\": 61, \"n_positions\": 24, \"n_embd\": 24, "
                             "\"n_layer\": 3, \"n_head\": 3, \"attn_pdrop\": 0.1, \"embd_pdrop\": 0.1, "
                             "\"resid_pdrop\": 0.1, \"bos_token_id\": 0, \"eos_token_id\": 0}",
                             &model),
        "mz_model_from_config");
    return model;
}

static mz_status linear_forward(const mz_unit_call *call)
{
    return mz_linear(call->tape, call->inputs[MZ_INPUT_FEATURES], call->params[0], NULL, MZ_WEIGHT_OUT_IN,
                     MZ_ACT_TANH, &call->state[0]);
}

/* Waits for the device, which cannot be recorded. */
static mz_status waiting_forward(const mz_unit_call *call)
{
    const mz_tape_options *o = &call->tape->options;
    mz_status status = o->device->ops->stream_sync(o->stream);
    return status ? status : linear_forward(call);
}

static mz_status loss_forward(const mz_unit_call *call)
{
    mz_tensor *x = call->state[0];
    call->state[0] = NULL;
    mz_status status = mz_mse_loss(call->tape, x, call->inputs[MZ_INPUT_TARGETS], &call->state[0]);
    mz_tensor_release(x);
    return status;
}

/* params[1] is used by nobody. */
static mz_model *make_linear(mz_unit_forward forward, bool replayable)
{
    static const mz_param_spec params[] = {
        {.name = "weight", .n_dims = 2, .shape = {5, 7}, .init = MZ_INIT_NORMAL, .init_scale = 0.3f},
        {.name = "unused", .n_dims = 1, .shape = {9}, .init = MZ_INIT_NORMAL, .init_scale = 0.3f},
    };
    mz_model *model = NULL;
    const mz_unit_spec first = {
        .name = "first", .params = params, .n_params = 2, .forward = forward, .replayable = replayable};
    const mz_unit_spec second = {.name = "second", .forward = loss_forward, .replayable = true};
    require(mz_model_create("linear", &model), "mz_model_create");
    require(mz_model_add_unit(model, &first), "first unit");
    require(mz_model_add_unit(model, &second), "second unit");
    return model;
}

/* ---- data ---- */

typedef struct samples {
    int32_t ids[MAX_SAMPLES * POSITIONS], labels[MAX_SAMPLES * POSITIONS];
    float features[MAX_SAMPLES * 7], targets[MAX_SAMPLES * 5];
    mz_host_input inputs[2];
    mz_batch batch;
} samples;

static void fill(samples *s, const mz_model *model, int64_t n, int64_t t, int seed)
{
    bool is_gpt2 = mz_model_get_info(model)->vocab > 0;
    srand((unsigned)(seed * 31 + mz_world_rank(world) + 1));
    for (int64_t i = 0; i < n * t; i++) {
        s->ids[i] = rand() % VOCAB;
        s->labels[i] = i % 7 ? s->ids[i] : -100;
    }
    for (int64_t i = 0; i < n * 7; i++)
        s->features[i] = (float)(rand() % 100) / 50 - 1;
    for (int64_t i = 0; i < n * 5; i++)
        s->targets[i] = (float)(rand() % 100) / 50 - 1;
    if (is_gpt2) {
        s->inputs[0] = (mz_host_input){MZ_INPUT_IDS, MZ_I32, 2, {n, t}, s->ids};
        s->inputs[1] = (mz_host_input){MZ_INPUT_LABELS, MZ_I32, 2, {n, t}, s->labels};
    } else {
        s->inputs[0] = (mz_host_input){MZ_INPUT_FEATURES, MZ_F32, 2, {n, 7}, s->features};
        s->inputs[1] = (mz_host_input){MZ_INPUT_TARGETS, MZ_F32, 2, {n, 5}, s->targets};
    }
    s->batch = (mz_batch){.inputs = s->inputs, .n_inputs = 2, .n_samples = n};
}

/* ---- training ---- */

static const mz_device_ops *honest; /* the table whose graphs fail */
static mz_device_ops failing_table;
static mz_graph_ops failing_graphs;
static int n_ends, failing_end;

static mz_status failing_ends(mz_stream *stream, mz_graph **graph)
{
    mz_status status = honest->graphs->end(stream, graph);
    if (++n_ends != failing_end || status)
        return status;
    honest->graphs->destroy(*graph);
    *graph = NULL;
    return mz_fail(MZ_ERR_MEMORY, "no room for a graph");
}

static void install_failure(mz_device *d, int end)
{
    honest = d->ops;
    n_ends = 0;
    failing_end = end;
    failing_graphs = *honest->graphs;
    failing_graphs.end = failing_ends;
    failing_table = *honest;
    failing_table.graphs = &failing_graphs;
    d->ops = &failing_table;
}

static mz_engine *create(const trial *t, mz_graphs_use graphs)
{
    mz_config_defaults flags;
    mz_config config;
    mz_engine *engine = NULL;
    const mz_engine_options options = {.device = device, .n_threads = 1};
    mz_config_defaults_init(&flags);
    flags.micro_batch_size = 4;
    flags.gradient_accumulation_steps = t->accumulation;
    flags.learning_rate = 1e-2;
    flags.weight_decay = 0.1;
    flags.mixed_precision = t->precision ? t->precision : "no";
    flags.zero_stage = t->stage;
    flags.gradient_checkpointing = t->checkpointing > 0;
    flags.recompute_cheap = t->cheap;
    require(mz_config_load(NULL, &flags, mz_world_size(world), &config), "mz_config_load");
    config.activation_checkpointing_every = t->checkpointing;
    config.fp16.initial_scale_power = t->overflows ? 22 : 10;
    config.fp16.hysteresis = 1;
    config.cuda_graphs = graphs;
    require(mz_engine_create(world, &config, t->model, &options, &engine), "mz_engine_create");
    if (graphs != MZ_GRAPHS_OFF && strcmp(device, "cpu") == 0)
        recorder_install(engine->device);
    if (graphs != MZ_GRAPHS_OFF && t->fails)
        install_failure(engine->device, t->fails);
    return engine;
}

static double evaluate(mz_engine *engine, const trial *t, int64_t n_samples, int64_t n_tokens)
{
    samples s;
    double sum = 0, n = 0;
    fill(&s, t->model, n_samples, n_tokens, 1000);
    require(mz_engine_eval(engine, &s.batch, &sum, &n), "mz_engine_eval");
    return sum / n;
}

/* What another thread does on a stream of its own, with the table that it had found while a profile was open. */
static void launch_late(mz_engine *engine, const mz_device_ops *found)
{
    const mz_device_ops *ops = engine->device->ops;
    mz_stream *stream = NULL;
    void *memory = NULL;
    require(ops->alloc(engine->device, 2 * sizeof(float), &memory), "alloc");
    require(ops->stream_create(engine->device, MZ_STREAM_COMM, &stream), "stream_create");
    float *numbers = memory;
    const mz_cast_args args = {
        .n = 1, .src = numbers, .src_dtype = MZ_F32, .dst = numbers + 1, .dst_dtype = MZ_F32, .scale = 1};
    require(found->fill(stream, memory, 0, 2 * sizeof(float)), "fill");
    require(found->kernels->cast(&args, stream), "cast");
    require(ops->stream_sync(stream), "stream_sync");
    ops->stream_destroy(stream);
    ops->free(engine->device, memory);
}

/* profiled: each of its kernels is timed, and so launched. */
static void take_step(mz_engine *engine, const trial *t, int step, bool profiled, mz_step_info *info)
{
    static const int64_t lengths[] = {12, 9, 12, 16, 12, 9};
    mz_profile *profile = NULL;
    samples s;
    if (profiled)
        require(mz_profile_begin(engine, &profile), "mz_profile_begin");
    for (int m = 0; m < t->accumulation; m++) {
        int64_t length = t->shapes ? lengths[(step + m) % 6] : 12;
        if (t->shapes && step >= 16)
            length = 20; /* more than was planned for */
        fill(&s, t->model, t->shapes && step % 5 == 4 ? 3 : 4, length, step * 10 + m);
        require(mz_engine_forward(engine, &s.batch), "mz_engine_forward");
        require(mz_engine_backward(engine), "mz_engine_backward");
        require(mz_engine_step(engine, info), "mz_engine_step");
    }
    const mz_device_ops *found = engine->device->ops;
    require(mz_profile_end(profile, NULL), "mz_profile_end");
    if (profiled)
        launch_late(engine, found);
}

/* A checkpoint, two more steps, and back to it. */
static void save_and_return(mz_engine *engine, const trial *t, int step, const char *folder)
{
    mz_step_info info;
    char path[256];
    require(mz_engine_save(engine, folder, false, 0, NULL), "mz_engine_save");
    take_step(engine, t, 100, false, &info);
    take_step(engine, t, 101, false, &info);
    snprintf(path, sizeof path, "%s/checkpoints/step-%06d", folder, step + 1);
    require(mz_engine_load(engine, path, NULL), "mz_engine_load");
}

static void between_steps(mz_engine *engine, const trial *t, int step, const char *folder, outcome *o)
{
    samples s;
    o->evals[step] = evaluate(engine, t, step % 2 ? 2 : MAX_SAMPLES, step < 8 ? 12 : POSITIONS);
    if (step == 6 || step == 12) {
        fill(&s, t->model, 2, POSITIONS, 2000);
        require(mz_engine_logits(engine, &s.batch, NULL, true, o->logits), "mz_engine_logits");
    }
    if (step == 10)
        save_and_return(engine, t, step, folder);
}

static void copy_params(mz_engine *engine, outcome *o)
{
    const mz_shard *shards;
    int64_t n, at = 0;
    require(mz_zero_shards(engine->zero, &shards, &n), "mz_zero_shards");
    o->n_params = 0;
    for (int64_t i = 0; i < n; i++)
        o->n_params += shards[i].count;
    o->params = malloc((size_t)o->n_params * sizeof *o->params + 1);
    for (int64_t i = 0; i < n; at += shards[i++].count)
        require(engine->device->ops->copy(engine->compute, o->params + at, shards[i].data,
                                          (size_t)shards[i].count * sizeof(float)),
                "copy");
    require(engine->device->ops->stream_sync(engine->compute), "stream_sync");
}

static void train(const trial *t, mz_graphs_use graphs, int n_steps, outcome *o)
{
    char folder[] = "/tmp/mpizero-replay.XXXXXX", command[64];
    memset(o, 0, sizeof *o);
    if (t->between && mz_world_rank(world) == 0 && !mkdtemp(folder))
        MPI_Abort(MPI_COMM_WORLD, 1);
    MPI_Bcast(folder, sizeof folder, MPI_CHAR, 0, MPI_COMM_WORLD);
    mz_engine *engine = create(t, graphs);
    for (int step = 0; step < n_steps; step++) {
        take_step(engine, t, step, t->between && step == 9, &o->steps[step]);
        if (t->between)
            between_steps(engine, t, step, folder, o);
    }
    copy_params(engine, o);
    o->n_replayed = mz_replay_count(engine->replay);
    mz_engine_destroy(engine);
    MPI_Barrier(MPI_COMM_WORLD);
    snprintf(command, sizeof command, "rm -rf %s", folder);
    if (t->between && mz_world_rank(world) == 0 && system(command) != 0)
        fprintf(stderr, "%s is left behind\n", folder);
}

static void compare(const trial *t, int n_steps, const outcome *want, const outcome *have)
{
    for (int step = 0; step < n_steps; step++) {
        const mz_step_info *w = &want->steps[step], *h = &have->steps[step];
        CHECK(w->loss == h->loss && w->skipped == h->skipped && w->loss_scale == h->loss_scale &&
                  (w->grad_norm == h->grad_norm || w->skipped),
              "%s, step %d: loss %.9g norm %.9g scale %g, replayed %.9g %.9g %g", t->name, step, w->loss,
              w->grad_norm, w->loss_scale, h->loss, h->grad_norm, h->loss_scale);
        CHECK(want->evals[step] == have->evals[step], "%s, step %d: evaluation %.9g, replayed %.9g", t->name, step,
              want->evals[step], have->evals[step]);
    }
    CHECK(memcmp(want->logits, have->logits, sizeof want->logits) == 0, "%s: logits", t->name);
    CHECK(want->n_params == have->n_params &&
              memcmp(want->params, have->params, (size_t)want->n_params * sizeof(float)) == 0,
          "%s: parameters or the optimiser's state differ", t->name);
}

/* Replayed passes of a run of equal steps. The first three micro-batches of a kind are launched. */
static int64_t expected(const trial *t, int n_steps)
{
    if (t->never)
        return 0;
    int64_t kinds = t->accumulation < 3 ? t->accumulation : 3,
            middle = t->accumulation > 2 ? t->accumulation - 2 : 0;
    if (mz_world_size(world) == 1)
        return 2 * ((int64_t)n_steps * t->accumulation - 3 * kinds);
    /* the last micro-batch is not local; in stage 1 the first is only where no refresh is under way */
    return 2 * ((int64_t)n_steps * middle - 3);
}

static void check(const trial *t)
{
    outcome want, have;
    int n_steps = t->shapes || t->between || t->overflows ? 22 : 9;
    train(t, MZ_GRAPHS_OFF, n_steps, &want);
    train(t, MZ_GRAPHS_AUTO, n_steps, &have);
    compare(t, n_steps, &want, &have);
    CHECK(want.n_replayed == 0, "%s: replayed although it is off", t->name);
    if (mz_world_size(world) > 1 && !t->never)
        CHECK(have.n_replayed >= expected(t, n_steps), "%s: %lld replayed", t->name, (long long)have.n_replayed);
    else if (t->shapes || t->between)
        CHECK(have.n_replayed > 0, "%s: nothing was replayed", t->name);
    else
        CHECK(t->fails || have.n_replayed == expected(t, n_steps), "%s: %lld replayed, expected %lld", t->name,
              (long long)have.n_replayed, (long long)expected(t, n_steps));
    if (t->overflows)
        CHECK(want.steps[0].skipped && !want.steps[n_steps - 1].skipped, "%s: no overflow, or no end of it",
              t->name);
    free(want.params);
    free(have.params);
}

/* Between a forward and its backward nothing else may run over what it left. */
static void check_order(const trial *t)
{
    samples s;
    double sum, n;
    float logits[MAX_SAMPLES * VOCAB];
    mz_engine *engine = create(t, MZ_GRAPHS_AUTO);
    for (int step = 0; step < 5; step++) {
        mz_step_info info;
        fill(&s, t->model, 4, 12, step);
        require(mz_engine_forward(engine, &s.batch), "mz_engine_forward");
        CHECK(mz_engine_forward(engine, &s.batch) == MZ_ERR_ARGUMENT, "step %d: a second forward", step);
        CHECK(mz_engine_eval(engine, &s.batch, &sum, &n) == MZ_ERR_ARGUMENT, "step %d: evaluation", step);
        CHECK(mz_engine_logits(engine, &s.batch, NULL, true, logits) == MZ_ERR_ARGUMENT, "step %d: logits", step);
        require(mz_engine_backward(engine), "mz_engine_backward");
        CHECK(mz_engine_backward(engine) == MZ_ERR_ARGUMENT, "step %d: a second backward", step);
        require(mz_engine_step(engine, &info), "mz_engine_step");
    }
    CHECK(mz_replay_count(engine->replay) == 4, "%lld replayed", (long long)mz_replay_count(engine->replay));
    mz_engine_destroy(engine);
}

static void one_rank(void)
{
    mz_model *gpt2 = make_gpt2(), *linear = make_linear(linear_forward, true),
             *waiting = make_linear(waiting_forward, true), *own = make_linear(linear_forward, false);
    const trial trials[] = {
        {.name = "fp32", .accumulation = 1, .model = gpt2},
        {.name = "fp32, 2 micro-batches", .accumulation = 2, .model = gpt2},
        {.name = "bf16, 4 micro-batches", .precision = "bf16", .accumulation = 4, .model = gpt2},
        {.name = "fp16, 3 micro-batches", .precision = "fp16", .accumulation = 3, .model = gpt2},
        {.name = "fp16 that overflows", .precision = "fp16", .accumulation = 1, .overflows = true, .model = linear},
        {.name = "checkpointed", .accumulation = 2, .checkpointing = 1, .model = gpt2},
        {.name = "every second checkpointed, bf16",
         .precision = "bf16",
         .accumulation = 1,
         .checkpointing = 2,
         .model = gpt2},
        {.name = "recomputed", .precision = "bf16", .accumulation = 3, .cheap = true, .model = gpt2},
        {.name = "changing shapes", .accumulation = 1, .shapes = true, .model = gpt2},
        {.name = "changing shapes, 3 micro-batches",
         .precision = "bf16",
         .accumulation = 3,
         .shapes = true,
         .model = gpt2},
        {.name = "evaluation and a return between", .accumulation = 1, .between = true, .model = gpt2},
        {.name = "the same in fp16, 2 micro-batches",
         .precision = "fp16",
         .accumulation = 2,
         .between = true,
         .model = gpt2},
        {.name = "a parameter that nobody uses", .accumulation = 2, .model = linear},
        {.name = "a forward pass that cannot be kept", .accumulation = 1, .fails = 1, .model = gpt2},
        {.name = "a backward pass that cannot be kept", .accumulation = 3, .fails = 4, .model = gpt2},
        {.name = "a unit that waits", .accumulation = 2, .never = true, .model = waiting},
        {.name = "a unit that does not say", .accumulation = 1, .never = true, .model = own},
    };
    for (size_t i = 0; i < sizeof trials / sizeof *trials; i++)
        check(&trials[i]);
    check_order(&trials[0]);
    mz_model_destroy(gpt2);
    mz_model_destroy(linear);
    mz_model_destroy(waiting);
    mz_model_destroy(own);
}

/* Micro-batches without communication: those between the first and the last in stages 0 and 1. */
static void several_ranks(void)
{
    mz_model *gpt2 = make_gpt2();
    for (int stage = 0; stage <= 3; stage++) {
        const trial t = {.name = "several ranks",
                         .precision = stage % 2 ? "bf16" : NULL,
                         .stage = stage,
                         .accumulation = 4,
                         .never = stage > 1,
                         .between = stage == 1,
                         .model = gpt2};
        check(&t);
    }
    mz_model_destroy(gpt2);
}

int main(int argc, char **argv)
{
    device = argc > 1 ? argv[1] : "cpu";
    require(mz_start(0, 60, &world), "mz_start");
    if (mz_world_size(world) == 1)
        one_rank();
    else
        several_ranks();
    int all = n_failures;
    MPI_Allreduce(&n_failures, &all, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    if (mz_world_rank(world) == 0 && all == 0)
        printf("replayed on %s by %d ranks: the same bits\n", device, mz_world_size(world));
    mz_stop(world);
    return all != 0;
}
