/* What a rank holds. Every block of device memory is taken here and counted by what it is for. */
#include "core/memory.h"

#include "zero/internal.h"

mz_status mz_zero_alloc(mz_zero *z, int64_t n, size_t element_bytes, size_t *category, void **memory)
{
    size_t bytes = (size_t)n * element_bytes;
    *memory = NULL;
    if (n == 0)
        return MZ_OK;
    if (z->n_blocks == z->blocks_capacity) {
        int capacity = 2 * z->blocks_capacity + 16;
        void **grown = mz_realloc(z->blocks, (size_t)capacity * sizeof *grown);
        if (!grown)
            return MZ_ERR_MEMORY;
        z->blocks = grown;
        z->blocks_capacity = capacity;
    }
    mz_status status = z->device->ops->alloc(z->device, bytes, memory);
    if (status)
        return status;
    z->blocks[z->n_blocks++] = *memory;
    *category += bytes;
    return z->device->ops->fill(z->compute, *memory, 0, bytes);
}

mz_status mz_zero_share_params(mz_zero *z)
{
    mz_status status = MZ_OK;
    if (!mz_zero_talks(z) || z->stage == 0)
        return MZ_OK;
    for (int i = 0; !status && i < MZ_ZERO_PARAM_BLOCKS; i++)
        if (z->param_blocks[i].memory)
            status = mz_comm_share(z->shard_comm, z->param_blocks[i].memory, z->param_blocks[i].bytes);
    return status;
}

void mz_zero_free_blocks(mz_zero *z)
{
    for (int i = 0; i < MZ_ZERO_PARAM_BLOCKS; i++)
        mz_comm_forget(z->shard_comm, z->param_blocks[i].memory);
    for (int i = 0; i < z->n_blocks; i++)
        z->device->ops->free(z->device, z->blocks[i]);
    mz_free(z->blocks);
}

/* Where n elements go in a block that is filled up to *end; moves the end behind them. */
static int64_t place(int64_t *end, int64_t n)
{
    const int64_t align = mz_layout_align(n), begin = (*end + align - 1) / align * align;
    *end = begin + n;
    return begin;
}

static bool is_sliced(const mz_zero *z, const mz_zero_segment *s)
{
    return z->stage == 3 && !s->at.persistent;
}

/* Parameters: one block of whole segments, and in stage 3 one of slices of the sharded ones. */
static mz_status alloc_params(mz_zero *z)
{
    const size_t size = mz_dtype_size(z->dtype);
    const int n = z->layout->n_segments;
    int64_t whole = 0, sliced = 0;
    void *memory, *slices;
    for (int i = 0; i < n; i++)
        if (is_sliced(z, &z->segments[i]))
            place(&sliced, z->segments[i].own_count);
        else
            place(&whole, z->segments[i].at.length);
    mz_status status = mz_zero_alloc(z, whole, size, &z->memory.params, &memory);
    if (!status)
        status = mz_zero_alloc(z, sliced, size, &z->memory.params, &slices);
    if (!status) {
        z->param_blocks[0] = (mz_zero_block){memory, (size_t)whole * size};
        z->param_blocks[1] = (mz_zero_block){slices, (size_t)sliced * size};
    }
    whole = sliced = 0;
    for (int i = 0; i < n && !status; i++) {
        mz_zero_segment *s = &z->segments[i];
        if (is_sliced(z, s)) {
            s->own = (uint8_t *)slices + (size_t)place(&sliced, s->own_count) * size;
        } else {
            s->full = (uint8_t *)memory + (size_t)place(&whole, s->at.length) * size;
            s->own = s->full + (size_t)s->own_begin * size;
        }
    }
    return status;
}

/* hpZ's second copy of the sharded segments: a slice for each rank of the group. */
static mz_status alloc_second(mz_zero *z)
{
    const mz_layout *l = z->layout;
    int64_t sharded = l->elements - l->persistent_elements;
    void *memory;
    if (!z->second_size)
        return MZ_OK;
    mz_status status =
        mz_zero_alloc(z, sharded / z->second_size, mz_dtype_size(z->dtype), &z->memory.params, &memory);
    uint8_t *next = memory;
    for (int i = 0; !status && i < l->n_segments; i++) {
        if (z->segments[i].at.persistent)
            continue;
        z->segments[i].second = next;
        next += (size_t)(z->segments[i].at.length / z->second_size) * mz_dtype_size(z->dtype);
    }
    return status;
}

static mz_status alloc_optimizer(mz_zero *z)
{
    int64_t owned = 0;
    for (int i = 0; i < z->layout->n_segments; i++)
        place(&owned, z->segments[i].own_count);
    void *memory[3] = {NULL, NULL, NULL};
    mz_status status = MZ_OK;
    if (!mz_zero_is_master(z) && !z->inference)
        status = mz_zero_alloc(z, owned, sizeof(float), &z->memory.master, &memory[0]);
    const size_t size = mz_dtype_size(z->state_dtype);
    for (int i = 0; !status && i < z->n_states; i++)
        status = mz_zero_alloc(z, owned, size, &z->memory.optimizer, &memory[1 + i]);
    if (status)
        return status;
    owned = 0;
    for (int i = 0; i < z->layout->n_segments; i++) {
        mz_zero_segment *s = &z->segments[i];
        const int64_t at = place(&owned, s->own_count);
        if (mz_zero_is_master(z))
            s->master = s->own;
        else if (!z->inference)
            s->master = (uint8_t *)memory[0] + (size_t)at * sizeof(float);
        for (int k = 0; k < z->n_states; k++)
            s->state[k] = (uint8_t *)memory[1 + k] + (size_t)at * size;
    }
    return MZ_OK;
}

static mz_status alloc_grads(mz_zero *z, int64_t owned)
{
    bool whole = z->stage <= 1;
    size_t size = mz_dtype_size(whole ? z->grad_dtype : z->shard_dtype);
    void *memory;
    mz_status status = mz_zero_alloc(z, whole ? z->layout->elements : owned, size, &z->memory.grads, &memory);
    if (status)
        return status;
    uint8_t *next = memory;
    for (int i = 0; i < z->layout->n_segments; i++) {
        mz_zero_segment *s = &z->segments[i];
        s->grad = whole ? next : NULL;
        s->grad_own = whole ? next + (size_t)s->own_begin * size : next;
        next += (size_t)(whole ? s->at.length : s->own_count) * size;
    }
    return MZ_OK;
}

mz_status mz_zero_alloc_segments(mz_zero *z)
{
    int64_t owned = 0;
    for (int i = 0; i < z->layout->n_segments; i++) {
        mz_zero_segment *s = &z->segments[i];
        s->at = z->layout->segments[i];
        s->own_begin = z->stage == 0 ? 0 : s->at.slice * z->shard_rank;
        s->own_count = z->stage == 0 ? s->at.length : s->at.slice;
        owned += s->own_count;
    }
    mz_status status = alloc_params(z);
    if (!status)
        status = alloc_second(z);
    if (!status)
        status = alloc_optimizer(z);
    if (!status && !z->inference)
        status = alloc_grads(z, owned);
    return status;
}

void mz_zero_get_memory(const mz_zero *z, mz_zero_memory *memory)
{
    *memory = z->memory;
}
