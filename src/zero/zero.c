/* Creation, the runner's hooks and the brackets of a micro-batch. */
#include <stdio.h>
#include <string.h>

#include "core/error.h"
#include "core/memory.h"

#include "zero/internal.h"

/* ---- waiting ---- */

mz_status mz_zero_wait(mz_zero *z, mz_event *event)
{
    mz_status status =
        mz_stall_begin(&z->stall); /* compute may well run dry while the host waits for the courier */
    mz_event_settle(z->device, event);
    if (!status)
        status = z->device->ops->wait(z->compute, event);
    mz_status end = mz_stall_end(&z->stall);
    return status ? status : end;
}

mz_status mz_zero_transfer_mark(mz_zero *z, mz_event *event)
{
    mz_event_mark(z->device, event);
    return z->device->ops->event_record(event, z->transfer);
}

mz_status mz_zero_transfer_begin(mz_zero *z, mz_event *ready)
{
    if (!z->overlap)
        return mz_stall_begin(&z->stall);
    mz_status status = z->device->ops->event_record(ready, z->compute);
    return status ? status : z->device->ops->wait(z->transfer, ready);
}

mz_status mz_zero_transfer_end(mz_zero *z, mz_event *done)
{
    if (!z->overlap)
        return mz_stall_end(&z->stall);
    return done ? mz_zero_transfer_mark(z, done) : MZ_OK;
}

double mz_zero_exposed_seconds(mz_zero *z)
{
    return mz_stall_take(&z->stall);
}

mz_status mz_zero_agree(mz_zero *z, mz_status mine, const char *where)
{
    double failed = mine ? z->size - z->rank : 0; /* the lowest rank has the highest */
    if (!mz_zero_talks(z))
        return mine;
    mz_status status = mz_all_reduce_host(z->comm, &failed, 1, true, where);
    if (mine || status)
        return mine ? mine : status;
    if (failed > 0)
        return mz_fail(MZ_ERR_PEER, "%s: rank %d failed; see its message", where, z->size - (int)failed);
    return MZ_OK;
}

/* ---- hooks ---- */

static mz_status before(void *context, int unit, mz_phase phase)
{
    mz_zero *z = context;
    int step = phase == MZ_PHASE_FORWARD ? unit : 2 * z->layout->n_units - 1 - unit;
    if (step != z->position)
        return mz_fail(MZ_ERR_INTERNAL, "unit %d ran as step %d of a micro-batch: expected step %d", unit, step,
                       z->position);
    mz_status status = MZ_OK;
    for (int i = 0; !status && phase == MZ_PHASE_FORWARD && i < z->n_needs[unit]; i++)
        status = mz_zero_refresh_wait(z, z->needs[unit][i]);
    return !status && z->stage == 3 ? mz_zero_fetch_before(z, step, unit) : status;
}

static mz_status after(void *context, int unit, mz_phase phase)
{
    mz_zero *z = context;
    mz_status status = z->stage == 3 ? mz_zero_fetch_after(z, z->position) : MZ_OK;
    z->position++;
    if (!status && phase == MZ_PHASE_BACKWARD)
        status = mz_zero_grads_complete(z, unit);
    if (!status && phase == MZ_PHASE_BACKWARD && unit == 0)
        status = mz_zero_reduce_flush(z);
    return status;
}

void mz_zero_hooks(mz_zero *z, mz_runner_hooks *hooks)
{
    *hooks = (mz_runner_hooks){.context = z, .before = before, .after = after};
}

mz_status mz_zero_begin_micro(mz_zero *z, bool training, bool first, bool last)
{
    if (training && z->inference)
        return mz_fail(MZ_ERR_ARGUMENT, "training: this engine was made for inference and has no gradients");
    z->training = training;
    z->first = first;
    z->last = last;
    z->position = 0;
    if (z->stage == 3)
        mz_zero_fetch_reset(z);
    if (training)
        mz_zero_grads_begin(z);
    return MZ_OK;
}

mz_status mz_zero_end_micro(mz_zero *z)
{
    if (z->stage == 3)
        mz_zero_fetch_reset(z);
    return MZ_OK;
}

/* In stages 0 and 1 gradients are reduced in the last micro-batch, and refreshed parameters waited for in the first
 * pass. */
bool mz_zero_micro_is_local(const mz_zero *z)
{
    const mz_updater *u = &z->updater;
    bool refreshed = u->n_marked == 0 || u->n_waited > u->mark[u->n_marked - 1];
    return z->size == 1 || (z->stage <= 1 && !z->last && refreshed);
}

/* ---- creation ---- */

static mz_status refuse(const char *key)
{
    return mz_fail(MZ_ERR_UNSUPPORTED,
                   "zero_optimization.%s is not supported yet: remove it from the configuration", key);
}

static mz_status check_config(const mz_zero_config *c)
{
    if (c->stage < 0 || c->stage > 3)
        return mz_fail(MZ_ERR_CONFIG, "zero_optimization.stage: expected 0, 1, 2 or 3, found %d", c->stage);
    if (c->offload_param.device != MZ_OFFLOAD_NONE)
        return refuse("offload_param");
    if (c->offload_optimizer.device != MZ_OFFLOAD_NONE)
        return refuse("offload_optimizer");
    return MZ_OK;
}

static int count_states(const mz_optimizer_config *o)
{
    switch ((mz_optim_kind)o->kind) {
    case MZ_OPTIM_ADAMW:
    case MZ_OPTIM_ADAM:
        return 2;
    case MZ_OPTIM_SGD:
        return o->momentum != 0;
    default:
        return 1;
    }
}

static bool takes_decay(const mz_zero_options *o, const mz_param *param)
{
    for (int i = 0; i < o->n_no_decay; i++)
        if (strstr(param->spec.name, o->no_decay[i]))
            return false;
    return param->trainable;
}

/* Matrix products are fastest over whole groups of so many rows: a vocabulary of 50257 costs eight times as much on
 * a GPU as one of 50264. */
#define ROW_GROUP 8

static int64_t padded_rows(const mz_param *param)
{
    return param->spec.n_dims == 2 ? (param->spec.shape[0] + ROW_GROUP - 1) / ROW_GROUP * ROW_GROUP : 0;
}

static mz_status create_layout(mz_zero *z, const mz_zero_options *o)
{
    int n = mz_runner_n_params(z->runner), n_units = mz_model_n_units(mz_runner_model(z->runner));
    mz_layout_input *tensors = mz_calloc((size_t)n + 1, sizeof *tensors);
    if (!tensors)
        return MZ_ERR_MEMORY;
    for (int i = 0; i < n; i++) {
        const mz_param *param = mz_runner_param(z->runner, i);
        tensors[i] = (mz_layout_input){.numel = param->numel,
                                       .room = padded_rows(param) * param->spec.shape[1],
                                       .unit = param->unit,
                                       .decay = takes_decay(o, param)};
    }
    mz_layout_options options = {.tensors = tensors, .n_tensors = n, .n_units = n_units, .n_ranks = z->shard_size};
    if (z->stage == 3) {
        options.persistence_threshold = z->config.zero.stage3_param_persistence_threshold;
        options.model_persistence_threshold = z->config.zero.stage3_model_persistence_threshold;
    }
    mz_status status = mz_layout_create(&options, &z->layout);
    mz_free(tensors);
    return status;
}

static mz_status create_labels(mz_zero *z)
{
    z->labels = mz_calloc((size_t)z->layout->n_units + 1, sizeof(char *));
    for (int unit = 0; z->labels && unit < z->layout->n_units; unit++) {
        z->labels[unit] = mz_strprintf("unit %s", mz_model_unit(mz_runner_model(z->runner), unit)->name);
        if (!z->labels[unit])
            return MZ_ERR_MEMORY;
    }
    return z->labels ? MZ_OK : MZ_ERR_MEMORY;
}

static mz_status find_needs(mz_zero *z)
{
    size_t n_units = (size_t)z->layout->n_units;
    z->needs = mz_calloc(n_units + 1, sizeof(int *));
    z->n_needs = mz_calloc(n_units + 1, sizeof *z->n_needs);
    if (!z->needs || !z->n_needs)
        return MZ_ERR_MEMORY;
    for (int unit = 0; unit < z->layout->n_units; unit++) {
        int room = mz_model_unit(mz_runner_model(z->runner), unit)->n_uses + 1;
        z->needs[unit] = mz_calloc((size_t)room, sizeof *z->needs[unit]);
        if (!z->needs[unit])
            return MZ_ERR_MEMORY;
        z->n_needs[unit] = mz_runner_unit_needs(z->runner, unit, z->needs[unit]);
    }
    return MZ_OK;
}

/* Pointers that stay: parameters that are always there, and the gradients of stages 0 and 1. */
static void place_params(mz_zero *z)
{
    for (int i = 0; i < z->layout->n_tensors; i++) {
        const mz_layout_tensor *t = &z->layout->tensors[i];
        const mz_zero_segment *s = &z->segments[t->segment];
        mz_param *param = mz_runner_param(z->runner, i);
        param->data = s->full ? s->full + (size_t)t->offset * mz_dtype_size(z->dtype) : NULL;
        param->grad = s->grad ? s->grad + (size_t)t->offset * mz_dtype_size(z->grad_dtype) : NULL;
        param->grad_written = false;
        param->rows = padded_rows(param);
    }
}

static void set_identity(mz_zero *z, const mz_zero_options *o)
{
    z->config = *o->config;
    z->device = o->device;
    z->comm = o->comm;
    z->compute = o->compute;
    z->runner = o->runner;
    z->size = o->comm ? mz_comm_size(o->comm) : o->plan_size > 0 ? o->plan_size : 1;
    z->rank = o->comm ? mz_comm_rank(o->comm) : o->plan_size > 0 ? o->plan_rank : 0;
    z->stage = z->size > 1 ? z->config.zero.stage : 0;
    z->dtype = z->config.dtype;
    z->grad_dtype = mz_runner_n_params(o->runner) > 0 ? mz_runner_param(o->runner, 0)->grad_dtype : z->dtype;
    z->shard_dtype = z->stage >= 2 ? z->config.grad_accum_dtype : z->grad_dtype;
    z->wire_dtype = z->config.communication_data_type;
    z->inference = o->inference;
    const bool no_master = z->dtype == MZ_BF16 && z->config.bf16_master_weights_and_grads && !z->inference;
    z->master_dtype = no_master ? MZ_BF16 : MZ_F32;
    z->state_dtype = no_master && z->config.bf16_optimizer_states ? MZ_BF16 : MZ_F32;
    z->n_states = o->inference ? 0 : count_states(&z->config.optimizer);
    z->overlap = z->size > 1 && z->config.zero.overlap_comm;
}

static mz_status create_parts(mz_zero *z, const mz_zero_options *o)
{
    void *staging;
    mz_status status = create_layout(z, o);
    if (!status)
        status = create_labels(z);
    if (!status)
        status = find_needs(z);
    if (status)
        return status;
    z->segments = mz_calloc((size_t)z->layout->n_segments + 1, sizeof *z->segments);
    if (!z->segments)
        return MZ_ERR_MEMORY;
    status = mz_stall_init(&z->stall, z->device, z->compute);
    if (!status)
        status = mz_zero_groups_create(z);
    if (!status && z->overlap)
        status = z->device->ops->stream_create(z->device, MZ_STREAM_COMM, &z->transfer);
    if (!z->overlap)
        z->transfer = z->compute;
    if (!status)
        status = z->device->ops->alloc_pinned(
            z->device, MZ_ZERO_STAGING * (sizeof *z->staging + sizeof *z->staging16), &staging);
    if (status)
        return status;
    z->staging = staging;
    z->staging16 = (uint16_t *)(void *)(z->staging + MZ_ZERO_STAGING);
    status = mz_zero_alloc_segments(z);
    if (!status)
        status = mz_zero_reducer_create(z);
    if (!status)
        status = mz_zero_fetcher_create(z);
    if (!status)
        status = mz_zero_updater_create(z);
    if (!status)
        status = mz_zero_shards_create(z);
    if (!status)
        place_params(z);
    return status;
}

mz_status mz_zero_create(const mz_zero_options *o, mz_zero **zero)
{
    mz_status status = check_config(&o->config->zero);
    if (status)
        return status; /* the same on all ranks */
    mz_zero *z = mz_calloc(1, sizeof *z);
    if (!z)
        return MZ_ERR_MEMORY;
    set_identity(z, o);
    status = mz_zero_groups_choose(z);
    if (status) { /* the same on all ranks */
        mz_free(z);
        return status;
    }
    status = mz_zero_agree(z, create_parts(z, o), "taking memory for parameters, gradients and optimiser state");
    if (!status)
        status = mz_zero_share_params(z);
    if (status)
        mz_zero_destroy(z);
    else
        *zero = z;
    return status;
}

void mz_zero_destroy(mz_zero *z)
{
    if (!z)
        return;
    const mz_device_ops *ops = z->device->ops;
    if (z->overlap && z->transfer) {
        ops->stream_sync(z->transfer);
        ops->stream_destroy(z->transfer);
    }
    mz_zero_checksums_free(z);
    mz_zero_shards_free(z);
    mz_zero_updater_free(z);
    mz_zero_fetcher_free(z);
    mz_zero_reducer_free(z);
    mz_stall_free(&z->stall);
    if (z->staging)
        ops->free_pinned(z->device, z->staging);
    mz_zero_free_blocks(z);
    mz_zero_groups_free(z);
    for (int unit = 0; z->labels && unit < z->layout->n_units; unit++)
        mz_free(z->labels[unit]);
    mz_free(z->labels);
    for (int unit = 0; z->needs && unit < z->layout->n_units; unit++)
        mz_free(z->needs[unit]);
    mz_free(z->needs);
    mz_free(z->n_needs);
    mz_free(z->segments);
    mz_layout_destroy(z->layout);
    mz_free(z);
}
