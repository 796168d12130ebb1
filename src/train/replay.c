#include "train/replay.h"

#include <string.h>

#include "core/error.h"
#include "core/log.h"
#include "core/memory.h"
#include "model/model.h"
#include "train/engine_impl.h"

/* The launches before a recording have loaded all kernels and measured all products (kernels.h), neither of which
 * can be done while one records. */
enum { LAUNCHES_FIRST = 3, MAX_KINDS = 16 };

typedef struct input_kind {
    mz_input_role role;
    mz_dtype dtype;
    int n_dims;
    int64_t shape[MZ_MAX_DIMS];
} input_kind;

typedef struct kind {
    input_kind inputs[MZ_N_INPUTS];
    int n_inputs;
    bool first, last;
    bool *written; /* [n_params] grad_written when it begins, and behind these when it has ended */
    int n_launched;
    bool refused; /* a recording failed */
    mz_graph *forward, *backward;
} kind;

struct mz_replay {
    mz_engine *engine;
    const mz_graph_ops *graphs; /* those that have recorded: a profile takes the device's away for a while */
    kind kinds[MAX_KINDS];
    int n_kinds, next; /* next: the one to give up for another */
    kind *now;         /* of the micro-batch under way, when it is replayed */
    int64_t n_replayed;
    bool said; /* that something could not be recorded */
};

/* ---- lifecycle ---- */

static bool units_are_replayable(const mz_model *model)
{
    for (int u = 0; u < model->n_units; u++)
        if (!model->units[u].replayable)
            return false;
    return true;
}

/* "on" is a wish that may not be granted; "auto" is none. */
static void say_what_is_refused(const mz_engine *engine)
{
    const mz_device_ops *ops = engine->device->ops;
    if (engine->config.cuda_graphs != MZ_GRAPHS_ON)
        return;
    if (!ops->graphs)
        mz_log_root(MZ_LOG_WARN, "CUDA graphs are asked for, but the device is \"%s\": it changes nothing",
                    ops->name);
    else if (!units_are_replayable(engine->model))
        mz_log_root(MZ_LOG_WARN, "CUDA graphs are asked for, but the model has units that are not `replayable`: it "
                                 "changes nothing");
    else if (engine->comm)
        mz_log_root(MZ_LOG_WARN, "CUDA graphs are asked for, but ranks communicate within their steps: only "
                                 "micro-batches without communication are replayed");
}

mz_status mz_replay_create(mz_engine *engine, mz_replay **out)
{
    say_what_is_refused(engine);
    if (engine->inference || engine->config.cuda_graphs == MZ_GRAPHS_OFF || !units_are_replayable(engine->model))
        return MZ_OK;
    mz_replay *replay = mz_calloc(1, sizeof *replay);
    if (!replay)
        return MZ_ERR_MEMORY;
    replay->engine = engine;
    *out = replay;
    return MZ_OK;
}

static void forget_graphs(const mz_replay *replay, kind *k)
{
    if (k->forward)
        replay->graphs->destroy(k->forward);
    if (k->backward)
        replay->graphs->destroy(k->backward);
    k->forward = k->backward = NULL;
}

void mz_replay_forget(mz_replay *replay)
{
    if (!replay || replay->n_kinds == 0)
        return;
    const mz_engine *engine = replay->engine;
    engine->device->ops->stream_sync(engine->compute); /* a graph may be under way; a failure shows again later */
    for (int i = 0; i < replay->n_kinds; i++) {
        forget_graphs(replay, &replay->kinds[i]);
        mz_free(replay->kinds[i].written);
    }
    memset(replay->kinds, 0, sizeof replay->kinds);
    replay->n_kinds = replay->next = 0;
    replay->now = NULL;
}

void mz_replay_destroy(mz_replay *replay)
{
    mz_replay_forget(replay);
    mz_free(replay);
}

int64_t mz_replay_count(const mz_replay *replay)
{
    return replay ? replay->n_replayed : 0;
}

/* ---- kinds ---- */

/* Which gradients hold a sum already is state of the host that a pass reads and leaves changed. */
static void get_written(const mz_replay *replay, bool *written)
{
    mz_runner *runner = replay->engine->runner;
    for (int i = 0; i < mz_runner_n_params(runner); i++)
        written[i] = mz_runner_param(runner, i)->grad_written;
}

static void set_written(const mz_replay *replay, const bool *written)
{
    mz_runner *runner = replay->engine->runner;
    for (int i = 0; i < mz_runner_n_params(runner); i++)
        mz_runner_param(runner, i)->grad_written = written[i];
}

static bool is_of(const mz_replay *replay, const kind *k, const mz_batch *batch, bool first, bool last)
{
    mz_runner *runner = replay->engine->runner;
    if (k->n_inputs != batch->n_inputs || k->first != first || k->last != last)
        return false;
    for (int i = 0; i < k->n_inputs; i++) {
        const input_kind *known = &k->inputs[i];
        const mz_host_input *input = &batch->inputs[i];
        if (known->role != input->role || known->dtype != input->dtype || known->n_dims != input->n_dims)
            return false;
        for (int d = 0; d < input->n_dims; d++)
            if (known->shape[d] != input->shape[d])
                return false;
    }
    for (int i = 0; i < mz_runner_n_params(runner); i++)
        if (k->written[i] != mz_runner_param(runner, i)->grad_written)
            return false;
    return true;
}

/* A place for one more kind: one that is free, or that of a kind without graphs. NULL: graphs take all of them. */
static kind *find_place(mz_replay *replay)
{
    if (replay->n_kinds < MAX_KINDS)
        return &replay->kinds[replay->n_kinds++];
    for (int i = 0; i < MAX_KINDS; i++) {
        kind *k = &replay->kinds[replay->next];
        replay->next = (replay->next + 1) % MAX_KINDS;
        if (!k->forward)
            return k;
    }
    return NULL;
}

/* NULL: too many to know this one. */
static kind *find_kind(mz_replay *replay, const mz_batch *batch, bool first, bool last)
{
    for (int i = 0; i < replay->n_kinds; i++)
        if (is_of(replay, &replay->kinds[i], batch, first, last))
            return &replay->kinds[i];
    size_t n_params = (size_t)mz_runner_n_params(replay->engine->runner);
    bool *written = mz_calloc(2 * n_params + 1, sizeof *written);
    kind *k = written && batch->n_inputs <= MZ_N_INPUTS ? find_place(replay) : NULL;
    if (!k) {
        mz_free(written);
        return NULL;
    }
    mz_free(k->written);
    *k = (kind){.n_inputs = batch->n_inputs, .first = first, .last = last, .written = written};
    get_written(replay, k->written);
    for (int i = 0; i < batch->n_inputs; i++) {
        const mz_host_input *input = &batch->inputs[i];
        k->inputs[i] = (input_kind){.role = input->role, .dtype = input->dtype, .n_dims = input->n_dims};
        memcpy(k->inputs[i].shape, input->shape, sizeof input->shape);
    }
    return k;
}

/* ---- recording ---- */

/* The graph of what `pass` gives to the compute stream. */
static mz_status record_pass(mz_engine *engine, mz_status (*pass)(mz_engine *, mz_run *), mz_run *run,
                             mz_graph **out)
{
    const mz_graph_ops *graphs = engine->device->ops->graphs;
    mz_graph *graph = NULL;
    mz_status st = graphs->begin(engine->compute);
    if (st != MZ_OK)
        return st;
    st = pass(engine, run);
    mz_status ended = graphs->end(engine->compute, &graph);
    st = st == MZ_OK ? ended : st;
    if (st == MZ_OK)
        *out = graph;
    else
        graphs->destroy(graph);
    return st;
}

static mz_status backward_pass(mz_engine *engine, mz_run *run)
{
    (void)run;
    return mz_engine_backward_pass(engine);
}

/* Runs both passes on the host, so that it ends as after a backward pass, and leaves their work in graphs. */
static mz_status record(mz_replay *replay, kind *k, int64_t n_samples, mz_run *run)
{
    mz_engine *engine = replay->engine;
    replay->graphs = engine->device->ops->graphs;
    mz_status st = record_pass(engine, mz_engine_forward_pass, run, &k->forward);
    if (st == MZ_OK)
        st = record_pass(engine, backward_pass, run, &k->backward);
    get_written(replay, k->written + mz_runner_n_params(engine->runner));
    set_written(replay, k->written);
    if (st == MZ_OK) {
        mz_log(MZ_LOG_DEBUG,
               "the passes of micro-batches of %lld samples%s%s are recorded and replayed from here on",
               (long long)n_samples, k->first ? ", first of a step" : "", k->last ? ", last of a step" : "");
        return MZ_OK;
    }
    forget_graphs(replay, k);
    k->refused = true;
    mz_log(replay->said ? MZ_LOG_DEBUG : MZ_LOG_INFO,
           "a step's work could not be recorded as a graph, so that it is launched kernel by kernel: %s",
           mz_last_error());
    replay->said = true;
    return st;
}

mz_replay_verdict mz_replay_prepare(mz_replay *replay, const mz_batch *batch, mz_run *run)
{
    if (!replay)
        return MZ_REPLAY_LAUNCH;
    mz_engine *engine = replay->engine;
    replay->now = NULL;
    if (!engine->device->ops->graphs || batch->n_inputs == 0 || !mz_zero_micro_is_local(engine->zero))
        return MZ_REPLAY_LAUNCH;
    bool first = engine->micro == 0, last = engine->micro + 1 == engine->config.gradient_accumulation_steps;
    kind *k = find_kind(replay, batch, first, last);
    if (!k || k->refused)
        return MZ_REPLAY_LAUNCH;
    if (!k->forward && k->n_launched < LAUNCHES_FIRST) {
        k->n_launched++;
        return MZ_REPLAY_LAUNCH;
    }
    if (!k->forward && record(replay, k, batch->n_samples, run) != MZ_OK)
        return MZ_REPLAY_SPOILED;
    replay->now = k;
    return MZ_REPLAY_READY;
}

/* ---- replaying ---- */

static mz_status launch(mz_replay *replay, mz_graph *graph)
{
    const mz_engine *engine = replay->engine;
    replay->n_replayed++;
    return replay->graphs->launch(graph, engine->compute);
}

mz_status mz_replay_forward(mz_replay *replay)
{
    return launch(replay, replay->now->forward);
}

mz_status mz_replay_backward(mz_replay *replay)
{
    if (!replay->now)
        return mz_fail(MZ_ERR_ARGUMENT, "mz_engine_backward: the memory of its forward pass has been given away");
    mz_status st = launch(replay, replay->now->backward);
    set_written(replay, replay->now->written + mz_runner_n_params(replay->engine->runner));
    return st;
}
