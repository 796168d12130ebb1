/* The optimiser step on this rank's slices: global norm, clipping, update. */
#include <math.h>
#include <stdio.h>

#include "core/error.h"
#include "core/memory.h"
#include "core/rng.h"

#include "zero/internal.h"

/* ---- the gradients' norm ---- */

/* Adds up squares and non-finite values of n reduced gradients of a segment, from this rank's element `begin`. */
static mz_status sum_squares(mz_zero *z, const mz_zero_segment *s, int64_t begin, int64_t n)
{
    mz_sum_squares_args args = {
        .n = n,
        .x = s->grad_own + (size_t)begin * mz_dtype_size(z->shard_dtype),
        .dtype = z->shard_dtype,
        .scale = 1,
        .sum = &z->updater.device->sum_squares,
        .nonfinite = &z->updater.device->nonfinite,
    };
    return z->device->ops->kernels->sum_squares(&args, z->compute);
}

static mz_status clear_sums(mz_zero *z)
{
    mz_zero_scalars *d = z->updater.device;
    mz_status status = z->device->ops->fill(z->compute, &d->sum_squares, 0, sizeof d->sum_squares);
    return status ? status : z->device->ops->fill(z->compute, &d->nonfinite, 0, sizeof d->nonfinite);
}

/* Brings the sums to the host. */
static mz_status read_sums(mz_zero *z)
{
    mz_updater *u = &z->updater;
    mz_status status =
        z->device->ops->copy(z->compute, &u->host.sum_squares, &u->device->sum_squares, sizeof u->host.sum_squares);
    if (!status)
        status =
            z->device->ops->copy(z->compute, &u->host.nonfinite, &u->device->nonfinite, sizeof u->host.nonfinite);
    return status ? status : z->device->ops->stream_sync(z->compute);
}

/* Of all slices: values[0] the sum of squares, values[1] how many are not finite. */
static mz_status global_sums(mz_zero *z, double values[2])
{
    mz_status status = clear_sums(z);
    for (int i = 0; !status && i < z->layout->n_segments; i++)
        status = sum_squares(z, &z->segments[i], 0, z->segments[i].own_count);
    if (!status)
        status = read_sums(z);
    if (!status && z->overlap)
        status = z->device->ops->stream_sync(z->transfer);
    values[0] = z->updater.host.sum_squares;
    values[1] = (double)z->updater.host.nonfinite;
    if (!status && mz_zero_talks(z) && z->stage > 0)
        status = mz_all_reduce_host(z->shard_comm, values, 2, false, "gradient norm");
    return status;
}

/* Collective: the name of the first tensor, in the model's order, with a gradient that is not finite. */
static mz_status find_nonfinite(mz_zero *z, char *name, size_t bytes)
{
    int n = z->layout->n_tensors, t;
    mz_status status = MZ_OK;
    for (t = 0; !status && t < n; t++) {
        const mz_zero_segment *s = &z->segments[z->layout->tensors[t].segment];
        int64_t offset, count;
        mz_layout_intersect(z->layout, t, s->own_begin, s->own_count, &offset, &count);
        status = clear_sums(z);
        if (!status && count > 0)
            status = sum_squares(z, s, z->layout->tensors[t].offset + offset - s->own_begin, count);
        if (!status)
            status = read_sums(z);
        if (z->updater.host.nonfinite > 0)
            break;
    }
    double first = (double)(n - t); /* the lowest index is the highest of these */
    if (!status && mz_zero_talks(z))
        status = mz_all_reduce_host(z->comm, &first, 1, true, "first tensor that is not finite");
    t = n - (int)first;
    snprintf(name, bytes, "%s", t < n ? mz_runner_param(z->runner, t)->spec.name : "");
    return status;
}

/* ---- the update ---- */

static void set_hyper(const mz_zero *z, const mz_zero_step_info *step, mz_optim_hyper *hyper)
{
    const mz_optimizer_config *o = &z->config.optimizer;
    *hyper = (mz_optim_hyper){
        .lr = (float)step->lr,
        .beta1 = (float)step->beta1,
        .beta2 = (float)o->beta2,
        .eps = (float)o->eps,
        .momentum = (float)o->momentum,
        .dampening = (float)o->dampening,
        .bias_correction1 = o->bias_correction ? (float)(1 - pow(step->beta1, (double)step->step)) : 1,
        .bias_correction2 = o->bias_correction ? (float)(1 - pow(o->beta2, (double)step->step)) : 1,
        .first_step = step->step == 1,
        .nesterov = o->nesterov,
    };
}

static bool rounds_stochastically(const mz_zero *z)
{
    return z->master_dtype == MZ_BF16 && z->config.stochastic_rounding;
}

static mz_status optimize(mz_zero *z, bool checksums)
{
    mz_updater *u = &z->updater;
    mz_status status = z->device->ops->copy(z->compute, u->device, &u->host, sizeof u->host);
    z->checksums.present = false;
    for (int i = 0; !status && i < u->n_groups; i++) {
        const mz_optim_group *group = checksums ? &z->checksums.groups[i] : &u->groups[i];
        mz_optim_args args = {
            .kind = (mz_optim_kind)z->config.optimizer.kind,
            .chunks = (checksums ? z->checksums.chunks : u->chunks) + group->first,
            .n_chunks = group->n,
            .n_elements = group->elements,
            .hyper = &u->device->hyper,
            .grad_scale = &u->device->grad_scale,
            .nonfinite = &u->device->never,
            .grad_dtype = z->shard_dtype,
            .param_dtype = z->dtype,
            .no_master = z->master_dtype == MZ_BF16,
            .state_dtype = z->state_dtype,
            .rounding = {.state = rounds_stochastically(z) ? &u->device->rounding : NULL,
                         .site = mz_rng_site("stochastic rounding", 0)},
            .updated = checksums ? mz_zero_checksums_add : NULL,
            .updated_context = z,
        };
        status = z->device->ops->kernels->optim(&args, z->compute);
        z->counters.n_optim_launches++;
        if (group->elements > z->counters.max_optim_elements)
            z->counters.max_optim_elements = group->elements;
    }
    z->checksums.present = checksums && !status;
    return status;
}

double mz_zero_grad_weight_factor(const mz_zero *z)
{
    return z->config.prescale_gradients || z->size == 1 ? 1 : z->size / z->config.gradient_predivide_factor;
}

mz_status mz_zero_update(mz_zero *z, mz_zero_step_info *step)
{
    double values[2], unscale = 1 / step->loss_scale;
    bool checks = z->dtype != MZ_BF16 || z->config.bf16_check_grad_overflow;
    if (z->config.gradient_allreduce_sum)
        unscale *= z->size;
    if (z->inference)
        return mz_fail(MZ_ERR_ARGUMENT, "update: this engine was made for inference and has no optimiser state");
    mz_status status = mz_zero_reduce_finish(z);
    if (!status)
        status = global_sums(z, values);
    if (status)
        return status;
    step->grad_norm = sqrt(values[0]) * unscale;
    step->overflow = checks && values[1] > 0;
    step->nonfinite_name[0] = '\0';
    if (step->overflow)
        return find_nonfinite(z, step->nonfinite_name, sizeof step->nonfinite_name);
    double clip = step->clip > 0 ? step->clip / (step->grad_norm + 1e-6) : 1;
    set_hyper(z, step, &z->updater.host.hyper);
    z->updater.host.grad_scale = (float)(unscale * (clip < 1 ? clip : 1));
    z->updater.host.never = 0;
    z->updater.host.rounding = (mz_rng_state){.seed = z->config.seed, .step = (uint64_t)step->step};
    status = optimize(z, step->checksums && z->checksums.chunks);
    return status ? status : mz_zero_refresh(z);
}

/* ---- creation ---- */

typedef struct chunk_list {
    mz_optim_chunk *chunks; /* NULL: only count them */
    mz_optim_group *groups;
    int n, n_groups;
    int64_t in_group, limit; /* elements of the last group, and of a group at most */
} chunk_list;

static void *element_at(uint8_t *values, mz_dtype dtype, int64_t i)
{
    return values ? values + (size_t)i * mz_dtype_size(dtype) : NULL;
}

/* Elements [begin, begin + n) of this rank's part of a segment, cut where a group is full. `first`: the number of
 * the first one among all of the model's. */
static void add_run(const mz_zero *z, const mz_zero_segment *s, int64_t begin, int64_t n, bool decay, int64_t first,
                    chunk_list *list)
{
    while (n > 0) {
        if (list->n_groups == 0 || list->in_group == list->limit) {
            if (list->groups)
                list->groups[list->n_groups] = (mz_optim_group){.first = list->n};
            list->n_groups++;
            list->in_group = 0;
        }
        int64_t part = n < list->limit - list->in_group ? n : list->limit - list->in_group;
        if (list->chunks) {
            list->chunks[list->n] = (mz_optim_chunk){
                .master = z->master_dtype == MZ_F32 ? element_at(s->master, MZ_F32, begin) : NULL,
                .state1 = element_at(s->state[0], z->state_dtype, begin),
                .state2 = element_at(s->state[1], z->state_dtype, begin),
                .grad = element_at(s->grad_own, z->shard_dtype, begin),
                .param = z->dtype == MZ_F32 ? NULL : element_at(s->own, z->dtype, begin),
                .n = part,
                .first = first,
                .weight_decay = decay ? (float)z->config.optimizer.weight_decay : 0,
                .lr_scale = 1,
            };
            list->groups[list->n_groups - 1].n++;
            list->groups[list->n_groups - 1].elements += part;
        }
        list->n++;
        list->in_group += part;
        begin += part;
        first += part;
        n -= part;
    }
}

/* Each tensor by itself, for its elements' numbers: those of the tensors in the model's order, one after the other,
 * each from a multiple of 64 on. They follow from the model alone, not from where ranks and stages put tensors. */
static void add_tensors(const mz_zero *z, chunk_list *list)
{
    int64_t first = 0;
    for (int t = 0; t < z->layout->n_tensors; t++) {
        const mz_layout_tensor *tensor = &z->layout->tensors[t];
        const mz_zero_segment *s = &z->segments[tensor->segment];
        int64_t offset, n;
        mz_layout_intersect(z->layout, t, s->own_begin, s->own_count, &offset, &n);
        add_run(z, s, tensor->offset + offset - s->own_begin, n, tensor->offset < s->at.decay_end, first + offset,
                list);
        first += (tensor->numel + MZ_LAYOUT_ALIGN - 1) / MZ_LAYOUT_ALIGN * MZ_LAYOUT_ALIGN;
    }
}

static void add_chunks(const mz_zero *z, chunk_list *list)
{
    *list = (chunk_list){.chunks = list->chunks, .groups = list->groups};
    list->limit = z->config.zero.sub_group_size / MZ_LAYOUT_ALIGN * MZ_LAYOUT_ALIGN;
    list->limit = list->limit < MZ_LAYOUT_ALIGN ? MZ_LAYOUT_ALIGN : list->limit;
    if (rounds_stochastically(z))
        add_tensors(z, list);
    for (int i = 0; i < z->layout->n_segments && !rounds_stochastically(z); i++) {
        const mz_zero_segment *s = &z->segments[i];
        int64_t decay = s->at.decay_end - s->own_begin;
        decay = decay < 0 ? 0 : decay > s->own_count ? s->own_count : decay;
        add_run(z, s, 0, decay, true, 0, list);
        add_run(z, s, decay, s->own_count - decay, false, 0, list);
    }
}

mz_status mz_zero_updater_create(mz_zero *z)
{
    mz_updater *u = &z->updater;
    chunk_list list = {0};
    void *device_chunks, *device_scalars;
    if (!z->inference)
        add_chunks(z, &list);
    u->segments = mz_calloc((size_t)z->layout->n_segments + 1, sizeof *u->segments);
    u->groups = list.groups = mz_calloc((size_t)list.n_groups + 1, sizeof *list.groups);
    list.chunks = mz_calloc((size_t)list.n + 1, sizeof *list.chunks);
    u->refreshed = mz_calloc((size_t)z->layout->n_units + 1, sizeof(mz_event *));
    u->mark = mz_calloc((size_t)z->layout->n_units + 1, sizeof *u->mark);
    bool has_room = u->segments && list.groups && list.chunks && u->refreshed && u->mark;
    mz_status status = has_room ? MZ_OK : MZ_ERR_MEMORY;
    if (!status)
        status = mz_zero_alloc(z, list.n, sizeof *list.chunks, &z->memory.other, &device_chunks);
    if (!status)
        status = mz_zero_alloc(z, 1, sizeof *u->device, &z->memory.other, &device_scalars);
    if (!status)
        status = z->device->ops->event_create(z->device, &u->ready);
    for (int unit = 0; !status && unit < z->layout->n_units; unit++)
        status = z->device->ops->event_create(z->device, &u->refreshed[unit]);
    if (!status) {
        u->chunks = device_chunks;
        u->device = device_scalars;
        u->n_groups = list.n_groups;
        if (list.n > 0) {
            add_chunks(z, &list);
            status = z->device->ops->copy(z->compute, u->chunks, list.chunks, (size_t)list.n * sizeof *list.chunks);
        }
    }
    if (!status)
        status = z->device->ops->stream_sync(z->compute);
    mz_free(list.chunks);
    return status;
}

void mz_zero_updater_free(mz_zero *z)
{
    mz_updater *u = &z->updater;
    if (u->ready)
        z->device->ops->event_destroy(u->ready);
    for (int unit = 0; u->refreshed && unit < z->layout->n_units; unit++)
        if (u->refreshed[unit])
            z->device->ops->event_destroy(u->refreshed[unit]);
    mz_free(u->refreshed);
    mz_free(u->mark);
    mz_free(u->segments);
    mz_free(u->groups);
}
