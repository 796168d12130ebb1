/* What is saved and where it comes from: this rank's runs of each tensor. */
#include "core/error.h"
#include "core/half.h"
#include "core/memory.h"

#include "zero/internal.h"

const char *mz_shard_kind_name(mz_shard_kind kind)
{
    static const char *const names[MZ_N_SHARD_KINDS] = {"param", "exp_avg", "exp_avg_sq"};
    return names[kind];
}

/* This rank's elements of one kind of a segment, from the i-th on. */
static uint8_t *values_at(const mz_zero *z, const mz_zero_segment *s, mz_shard_kind kind, int64_t i)
{
    uint8_t *values = kind == MZ_SHARD_PARAM ? s->master : s->state[kind - MZ_SHARD_STATE1];
    return values + (size_t)i * mz_dtype_size(mz_zero_kind_dtype(z, kind));
}

static int n_kinds(const mz_zero *z)
{
    return 1 + z->n_states;
}

/* Where part r of so many elements begins that several share. */
static int64_t part_begin(int64_t n, int r, int parts)
{
    const int64_t begin = n * r / parts;
    return r == parts ? n : begin - begin % mz_layout_align(n / parts);
}

/* The run of tensor t to list: what this rank owns; of what several ranks own (all of it in stage 0, a slice in
 * MiCS) an even part. */
static void listed_run(const mz_zero *z, int t, int64_t *offset, int64_t *n)
{
    const mz_zero_segment *s = &z->segments[z->layout->tensors[t].segment];
    int64_t numel = z->layout->tensors[t].numel;
    if (z->stage > 0) {
        mz_layout_intersect(z->layout, t, s->own_begin, s->own_count, offset, n);
        int64_t begin = part_begin(*n, z->replica, z->n_replicas);
        *n = part_begin(*n, z->replica + 1, z->n_replicas) - begin;
        *offset += begin;
        return;
    }
    *offset = part_begin(numel, z->rank, z->size);
    *n = part_begin(numel, z->rank + 1, z->size) - *offset;
}

mz_status mz_zero_shards_create(mz_zero *z)
{
    z->shards = mz_calloc((size_t)z->layout->n_tensors * MZ_N_SHARD_KINDS + 1, sizeof *z->shards);
    if (!z->shards)
        return MZ_ERR_MEMORY;
    for (int kind = 0; kind < n_kinds(z) && z->segments[0].master; kind++)
        for (int t = 0; t < z->layout->n_tensors; t++) {
            const mz_zero_segment *s = &z->segments[z->layout->tensors[t].segment];
            const mz_param_spec *spec = &mz_runner_param(z->runner, t)->spec;
            int64_t offset, n;
            listed_run(z, t, &offset, &n);
            if (n == 0)
                continue;
            mz_shard *shard = &z->shards[z->n_shards++];
            *shard = (mz_shard){.name = spec->name,
                                .kind = (mz_shard_kind)kind,
                                .n_dims = spec->n_dims,
                                .offset = offset,
                                .count = n};
            for (int d = 0; d < spec->n_dims; d++)
                shard->shape[d] = spec->shape[d];
            shard->dtype = mz_zero_kind_dtype(z, shard->kind);
            shard->data = values_at(z, s, shard->kind, z->layout->tensors[t].offset + offset - s->own_begin);
        }
    return MZ_OK;
}

void mz_zero_shards_free(mz_zero *z)
{
    mz_free(z->shards);
}

mz_status mz_zero_shards(mz_zero *z, const mz_shard **shards, int64_t *n_shards)
{
    if (z->inference && !mz_zero_is_master(z))
        return mz_fail(MZ_ERR_ARGUMENT, "this engine was made for inference and keeps no fp32 weights to save");
    *shards = z->shards;
    *n_shards = z->n_shards;
    return MZ_OK;
}

/* The staging buffer's n values to elements at.. of this rank's slice. */
static mz_status put(mz_zero *z, const mz_zero_segment *s, mz_shard_kind kind, int64_t at, int64_t n)
{
    const bool kept = kind != MZ_SHARD_PARAM || s->master; /* inference in 16 bits has parameters only */
    const mz_dtype dtype = kept ? mz_zero_kind_dtype(z, kind) : z->dtype;
    const size_t size = mz_dtype_size(dtype);
    void *to = kept ? values_at(z, s, kind, at) : s->own + (size_t)at * size;
    if (dtype == MZ_F32)
        return z->device->ops->copy(z->compute, to, z->staging, (size_t)n * size);
    mz_convert(z->staging16, dtype, z->staging, MZ_F32, n);
    return z->device->ops->copy(z->compute, to, z->staging16, (size_t)n * size);
}

/* Fills this rank's run of one tensor, by way of the staging buffer. */
static mz_status load_tensor(mz_zero *z, int t, mz_shard_kind kind, mz_param_source source, void *context)
{
    const mz_zero_segment *s = &z->segments[z->layout->tensors[t].segment];
    int64_t offset, n;
    mz_layout_intersect(z->layout, t, s->own_begin, s->own_count, &offset, &n);
    int64_t at = z->layout->tensors[t].offset + offset - s->own_begin; /* in this rank's slice */
    mz_status status = MZ_OK;
    for (int64_t done = 0, part; !status && done < n; done += part) {
        part = n - done < MZ_ZERO_STAGING ? n - done : MZ_ZERO_STAGING;
        status = source(context, &mz_runner_param(z->runner, t)->spec, offset + done, part, z->staging);
        if (!status)
            status = put(z, s, kind, at + done, part);
        if (!status)
            status = z->device->ops->stream_sync(z->compute);
    }
    return status;
}

static mz_status load_kind(mz_zero *z, mz_shard_kind kind, mz_param_source source, void *context)
{
    mz_status status = mz_zero_refresh_wait_all(z);
    z->checksums.present = false;
    for (int t = 0; !status && t < z->layout->n_tensors; t++)
        status = load_tensor(z, t, kind, source, context);
    return status;
}

/* 16-bit copies of the masters, and cleared optimiser state. */
static mz_status settle(mz_zero *z)
{
    mz_status status = MZ_OK;
    for (int i = 0; !status && i < z->layout->n_segments; i++) {
        const mz_zero_segment *s = &z->segments[i];
        mz_cast_args args = {.n = s->own_count,
                             .src = s->master,
                             .src_dtype = MZ_F32,
                             .dst = s->own,
                             .dst_dtype = z->dtype,
                             .scale = 1};
        if (s->master && !mz_zero_is_master(z))
            status = z->device->ops->kernels->cast(&args, z->compute);
        for (int k = 0; !status && k < z->n_states; k++)
            status = z->device->ops->fill(z->compute, s->state[k], 0,
                                          (size_t)s->own_count * mz_dtype_size(z->state_dtype));
    }
    return status;
}

mz_status mz_zero_load_params(mz_zero *z, mz_param_source source, void *context)
{
    mz_status status = mz_zero_refresh_wait_all(z);
    if (!status)
        status = z->device->ops->stream_sync(z->transfer);
    status = mz_zero_agree(z, status, "before loading parameters"); /* nobody gathers any more */
    if (!status)
        status = load_kind(z, MZ_SHARD_PARAM, source, context);
    if (!status)
        status = settle(z);
    status = mz_zero_agree(z, status, "loading parameters");
    return status ? status : mz_zero_refresh(z);
}

mz_status mz_zero_load_state(mz_zero *z, mz_shard_kind kind, mz_param_source source, void *context)
{
    if ((int)kind >= n_kinds(z))
        return mz_fail(MZ_ERR_ARGUMENT, "the optimiser keeps no \"%s\": expected one of its %d kinds of state",
                       mz_shard_kind_name(kind), z->n_states);
    return mz_zero_agree(z, load_kind(z, kind, source, context), "loading optimiser state");
}
