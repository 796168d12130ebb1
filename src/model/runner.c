#include "model/runner.h"

#include <string.h>

#include "core/error.h"
#include "core/memory.h"
#include "model/model.h"
#include "tensor/node.h"

/* What a forward pass leaves for the backward pass, per unit. */
typedef struct unit_record {
    int mark;                     /* the tape's height before the unit */
    bool checkpointed;            /* nothing was recorded: run it again */
    mz_tensor *in[MZ_STATE_MAX];  /* checkpointed: referenced */
    mz_tensor *out[MZ_STATE_MAX]; /* checkpointed: linked; the next unit's gradients arrive here */
} unit_record;

struct mz_runner {
    const mz_model *model;
    mz_param *params;
    int n_params;
    mz_param **own;                /* [n_params], in order */
    mz_param **shared;             /* of all units, in order */
    int *first_own, *first_shared; /* by unit */
    mz_runner_hooks hooks;
    int every; /* activation checkpointing; 0: none */
    unit_record *records;
    bool pending; /* records hold a forward pass */
    mz_run run;   /* of that pass */
};

/* ---- lifecycle ---- */

static void count(const mz_model *model, int *n_params, int *n_shared)
{
    *n_params = *n_shared = 0;
    for (int u = 0; u < model->n_units; u++) {
        *n_params += model->units[u].n_params;
        *n_shared += model->units[u].n_uses;
    }
}

static void make_params(mz_runner *runner, mz_dtype param_dtype, mz_dtype grad_dtype)
{
    int p = 0;
    for (int u = 0; u < runner->model->n_units; u++) {
        const mz_unit_spec *unit = &runner->model->units[u];
        runner->first_own[u] = p;
        for (int i = 0; i < unit->n_params; i++, p++) {
            mz_param *param = &runner->params[p];
            *param = (mz_param){
                .spec = unit->params[i], .unit = u, .numel = 1, .dtype = param_dtype, .grad_dtype = grad_dtype};
            for (int d = 0; d < param->spec.n_dims; d++)
                param->numel *= param->spec.shape[d];
            param->trainable = true;
            runner->own[p] = param;
        }
    }
}

static void resolve_shared(mz_runner *runner)
{
    int s = 0;
    for (int u = 0; u < runner->model->n_units; u++) {
        const mz_unit_spec *unit = &runner->model->units[u];
        runner->first_shared[u] = s;
        for (int i = 0; i < unit->n_uses; i++)
            runner->shared[s++] = mz_runner_find(runner, unit->uses[i]); /* add_unit saw that it exists */
    }
}

mz_status mz_runner_create(const mz_model *model, mz_dtype param_dtype, mz_dtype grad_dtype, mz_runner **out)
{
    int n_shared;
    size_t n_units = (size_t)model->n_units;
    if (n_units == 0)
        return mz_fail(MZ_ERR_ARGUMENT, "model \"%s\" has no units", model->name);
    mz_runner *runner = mz_calloc(1, sizeof *runner);
    if (!runner)
        return MZ_ERR_MEMORY;
    runner->model = model;
    count(model, &runner->n_params, &n_shared);
    runner->params = mz_calloc((size_t)runner->n_params, sizeof *runner->params);
    runner->own = mz_calloc((size_t)runner->n_params, sizeof *runner->own);
    runner->shared = mz_calloc((size_t)n_shared, sizeof *runner->shared);
    runner->first_own = mz_calloc(n_units, sizeof *runner->first_own);
    runner->first_shared = mz_calloc(n_units, sizeof *runner->first_shared);
    runner->records = mz_calloc(n_units, sizeof *runner->records);
    if (!runner->params || !runner->own || !runner->shared || !runner->first_own || !runner->first_shared ||
        !runner->records) {
        mz_runner_destroy(runner);
        return MZ_ERR_MEMORY;
    }
    make_params(runner, param_dtype, grad_dtype);
    resolve_shared(runner);
    *out = runner;
    return MZ_OK;
}

void mz_runner_destroy(mz_runner *runner)
{
    if (!runner)
        return;
    mz_free(runner->params);
    mz_free(runner->own);
    mz_free(runner->shared);
    mz_free(runner->first_own);
    mz_free(runner->first_shared);
    mz_free(runner->records);
    mz_free(runner);
}

/* ---- facts ---- */

const mz_param_spec *mz_param_get_spec(const mz_param *param)
{
    return &param->spec;
}

const mz_model *mz_runner_model(const mz_runner *runner)
{
    return runner->model;
}

int mz_runner_n_params(const mz_runner *runner)
{
    return runner->n_params;
}

mz_param *mz_runner_param(mz_runner *runner, int i)
{
    return &runner->params[i];
}

mz_param *mz_runner_find(mz_runner *runner, const char *name)
{
    int index, unit = mz_model_find_param(runner->model, name, &index);
    return unit < 0 ? NULL : &runner->params[runner->first_own[unit] + index];
}

void mz_runner_unit_params(const mz_runner *runner, int unit, int *first, int *n)
{
    *first = runner->first_own[unit];
    *n = runner->model->units[unit].n_params;
}

int mz_runner_unit_needs(const mz_runner *runner, int unit, int *units)
{
    int n = 0;
    units[n++] = unit;
    for (int i = 0; i < runner->model->units[unit].n_uses; i++) {
        int owner = runner->shared[runner->first_shared[unit] + i]->unit;
        bool listed = false;
        for (int j = 0; j < n; j++)
            listed = listed || units[j] == owner;
        if (!listed)
            units[n++] = owner;
    }
    return n;
}

void mz_runner_set_hooks(mz_runner *runner, const mz_runner_hooks *hooks)
{
    runner->hooks = hooks ? *hooks : (mz_runner_hooks){0};
}

void mz_runner_set_checkpointing(mz_runner *runner, int every)
{
    int seen = 0;
    runner->every = every;
    for (int u = 0; u < runner->model->n_units; u++) {
        bool candidate = runner->model->units[u].recomputable;
        runner->records[u].checkpointed = candidate && every > 0 && seen % every == 0;
        seen += candidate;
    }
}

/* ---- units ---- */

static mz_status hook(const mz_runner *runner, mz_status (*fn)(void *, int, mz_phase), int unit, mz_phase phase)
{
    return fn ? fn(runner->hooks.context, unit, phase) : MZ_OK;
}

static mz_status call_unit(mz_runner *runner, mz_tape *tape, const mz_run *run, int u, bool recording,
                           mz_tensor **state)
{
    const mz_unit_spec *unit = &runner->model->units[u];
    const mz_unit_call call = {.tape = tape,
                               .self = unit->self,
                               .params = runner->own + runner->first_own[u],
                               .shared = runner->shared + runner->first_shared[u],
                               .inputs = run->inputs,
                               .state = state,
                               .goal = run->goal,
                               .training = run->training,
                               .last_position_only = run->last_position_only,
                               .cache = run->cache,
                               .position_offset = run->position_offset};
    mz_tape_set_mode(tape, recording, run->training);
    mz_tape_begin_unit(tape, u, unit->name);
    mz_status status = unit->forward(&call);
    mz_tape_set_mode(tape, false, false);
    return status;
}

static void release_state(mz_tensor **state)
{
    for (int i = 0; i < MZ_STATE_MAX; i++)
        mz_tensor_drop(&state[i]);
}

/* ---- forward ---- */

/* Several units may read a tensor that crosses a checkpointed boundary, and not all of them are on the tape; one
 * more consumer keeps operations from treating its gradient as theirs alone. */
static void keep_inputs(unit_record *record, mz_tensor **state)
{
    for (int i = 0; i < MZ_STATE_MAX; i++) {
        record->in[i] = state[i];
        if (state[i]) {
            mz_tensor_retain(state[i]);
            state[i]->n_consumers++;
        }
    }
}

static void keep_outputs(unit_record *record, mz_tensor **state)
{
    for (int i = 0; i < MZ_STATE_MAX; i++) {
        record->out[i] = state[i];
        if (!state[i])
            continue;
        mz_tensor_link(state[i]);
        state[i]->n_consumers++;
        state[i]->needs_grad = state[i]->dtype <= MZ_BF16 || state[i]->needs_grad;
    }
}

static mz_status forward_unit(mz_runner *runner, mz_tape *tape, const mz_run *run, int u, mz_tensor **state)
{
    unit_record *record = &runner->records[u];
    bool checkpointed = run->training && record->checkpointed;
    mz_status status = hook(runner, runner->hooks.before, u, MZ_PHASE_FORWARD);
    if (status != MZ_OK)
        return status;
    if (run->training)
        record->mark = mz_tape_mark(tape);
    if (checkpointed)
        keep_inputs(record, state);
    status = call_unit(runner, tape, run, u, run->training && !checkpointed, state);
    if (status != MZ_OK)
        return status;
    if (checkpointed)
        keep_outputs(record, state);
    return hook(runner, runner->hooks.after, u, MZ_PHASE_FORWARD);
}

/* Every input has the samples in front. */
static int64_t count_samples(const mz_run *run)
{
    for (int i = 0; i < MZ_N_INPUTS; i++)
        if (run->inputs[i] && run->inputs[i]->n_dims > 0)
            return run->inputs[i]->shape[0];
    return 0;
}

mz_status mz_runner_forward(mz_runner *runner, mz_tape *tape, const mz_run *run, mz_tensor **result)
{
    mz_tensor *state[MZ_STATE_MAX] = {NULL};
    mz_status status = MZ_OK;
    mz_tape_set_samples(tape, count_samples(run));
    if (run->training) {
        runner->run = *run;
        runner->pending = true;
        for (int u = 0; u < runner->model->n_units; u++) {
            memset(runner->records[u].in, 0, sizeof runner->records[u].in);
            memset(runner->records[u].out, 0, sizeof runner->records[u].out);
        }
    }
    for (int u = 0; u < runner->model->n_units && status == MZ_OK; u++)
        status = forward_unit(runner, tape, run, u, state);
    if (status == MZ_OK && !state[0])
        status =
            mz_fail(MZ_ERR_ARGUMENT, "model \"%s\": its last unit left nothing in state[0]", runner->model->name);
    if (run->cache && status == MZ_OK)
        mz_kv_cache_commit(run->cache);
    else if (run->cache)
        mz_kv_cache_drop(run->cache);
    if (status == MZ_OK) {
        *result = state[0];
        state[0] = NULL;
    } else if (run->training) {
        runner->pending = false;
    }
    release_state(state);
    return status;
}

/* ---- backward ---- */

/* Runs a checkpointed unit again, now on the tape, and hands it the gradients that reached its first outputs. */
static mz_status recompute(mz_runner *runner, mz_tape *tape, int u)
{
    unit_record *record = &runner->records[u];
    mz_tensor *state[MZ_STATE_MAX];
    memcpy(state, record->in, sizeof state);
    memset(record->in, 0, sizeof record->in);
    mz_tape_set_deferring(tape, true);
    mz_status status = call_unit(runner, tape, &runner->run, u, true, state);
    mz_tape_set_deferring(tape, false);
    for (int i = 0; i < MZ_STATE_MAX; i++) {
        if (status == MZ_OK && record->out[i] && state[i])
            mz_tensor_move_grad(record->out[i], state[i]);
        mz_tensor_unlink(record->out[i]);
        record->out[i] = NULL;
    }
    release_state(state);
    return status;
}

static mz_status backward_unit(mz_runner *runner, mz_tape *tape, int u)
{
    mz_status status = hook(runner, runner->hooks.before, u, MZ_PHASE_BACKWARD);
    if (status == MZ_OK && runner->records[u].checkpointed)
        status = recompute(runner, tape, u);
    if (status == MZ_OK)
        status = mz_tape_backward(tape, runner->records[u].mark);
    if (status == MZ_OK)
        status = hook(runner, runner->hooks.after, u, MZ_PHASE_BACKWARD);
    return status;
}

mz_status mz_runner_backward(mz_runner *runner, mz_tape *tape)
{
    if (!runner->pending)
        return mz_fail(MZ_ERR_ARGUMENT,
                       "model \"%s\": a backward pass needs a forward pass with training before it",
                       runner->model->name);
    runner->pending = false;
    mz_status status = MZ_OK;
    for (int u = runner->model->n_units - 1; u >= 0 && status == MZ_OK; u--)
        status = backward_unit(runner, tape, u);
    return status;
}
