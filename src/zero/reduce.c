/* Gradients on their way to their owners.
 *
 * Stages 0 and 1 keep the gradient of the whole model and reduce it where it lies, during the backward pass of
 * the last micro-batch. Stages 2 and 3 reduce a unit's gradient out of a bucket into this rank's shard, in
 * every micro-batch; with replicas (MiCS) the shards of all groups are added up in the last one. Either way a
 * collective carries at most reduce_bucket_size elements: small segments share one, a large one is cut. Two
 * collectives take turns, so that one is put together while the other is under way. */
#include <string.h>

#include "core/memory.h"

#include "zero/internal.h"

static int64_t row_length(const mz_zero *z, const mz_zero_segment *s)
{
    return z->reducer.scatter ? s->at.slice : s->at.length;
}

static bool is_cast(const mz_zero *z)
{
    return z->wire_dtype != z->grad_dtype;
}

static mz_status cast(mz_zero *z, int64_t n, const void *src, mz_dtype src_dtype, void *dst, mz_dtype dst_dtype,
                      bool accumulate)
{
    mz_cast_args args = {.n = n,
                         .src = src,
                         .src_dtype = src_dtype,
                         .dst = dst,
                         .dst_dtype = dst_dtype,
                         .scale = 1,
                         .accumulate = accumulate};
    return z->device->ops->kernels->cast(&args, z->compute);
}

/* The gradients of a slot's pieces in the wire's dtype, one after the other. */
static mz_status pack(mz_zero *z, mz_reduce_slot *slot)
{
    size_t grad_size = mz_dtype_size(z->grad_dtype), wire_size = mz_dtype_size(z->wire_dtype);
    uint8_t *to = slot->wire;
    mz_status status = z->overlap ? mz_zero_wait(z, slot->done) : MZ_OK;
    for (int i = 0; !status && i < slot->n_pieces; i++) {
        const mz_reduce_piece *p = &slot->pieces[i];
        for (int row = 0; !status && row < z->reducer.rows; row++) {
            int64_t begin = row * row_length(z, p->segment) + p->begin;
            status =
                cast(z, p->count, p->grad + (size_t)begin * grad_size, z->grad_dtype, to, z->wire_dtype, false);
            to += (size_t)p->count * wire_size;
        }
    }
    return status;
}

/* Where each piece is sent from and where its sum goes. */
static void describe(mz_zero *z, const mz_reduce_slot *slot)
{
    const mz_reducer *r = &z->reducer;
    size_t grad_size = mz_dtype_size(z->grad_dtype), wire_size = mz_dtype_size(z->wire_dtype);
    size_t shard_size = mz_dtype_size(z->shard_dtype);
    uint8_t *wire = slot->wire;
    for (int i = 0; i < slot->n_pieces; i++) {
        const mz_reduce_piece *p = &slot->pieces[i];
        uint8_t *send = is_cast(z) ? wire : p->grad + (size_t)p->begin * grad_size;
        wire += (size_t)(r->rows * p->count) * wire_size;
        r->segments[i] = (mz_segment){
            .send = send,
            .recv = r->scatter ? p->segment->grad_own + (size_t)p->begin * shard_size : send,
            .count = p->count,
            .stride = is_cast(z) ? p->count : row_length(z, p->segment),
        };
    }
}

/* What is left to do once an all-reduce has ended: the sums go from the wire's dtype to the gradient's, and in
 * stages 2 and 3 this rank's slice of them into the shard. */
static mz_status finish_piece(mz_zero *z, const mz_reduce_slot *slot, const mz_reduce_piece *p, const uint8_t *wire)
{
    const mz_zero_segment *s = p->segment;
    size_t grad_size = mz_dtype_size(z->grad_dtype), wire_size = mz_dtype_size(z->wire_dtype);
    const uint8_t *sums = is_cast(z) ? wire : p->grad + (size_t)p->begin * grad_size;
    if (z->stage <= 1)
        return cast(z, p->count, sums, z->wire_dtype, p->grad + (size_t)p->begin * grad_size, z->grad_dtype, false);
    int64_t own_end = s->own_begin + s->own_count, piece_end = p->begin + p->count;
    int64_t begin = s->own_begin > p->begin ? s->own_begin : p->begin;
    int64_t end = own_end < piece_end ? own_end : piece_end;
    if (begin >= end)
        return MZ_OK;
    uint8_t *to = s->grad_own + (size_t)(begin - s->own_begin) * mz_dtype_size(z->shard_dtype);
    return cast(z, end - begin, sums + (size_t)(begin - p->begin) * wire_size, z->wire_dtype, to, z->shard_dtype,
                slot->accumulate);
}

mz_status mz_zero_reduce_finish_slot(mz_zero *z, mz_reduce_slot *slot)
{
    if (!slot->unfinished)
        return MZ_OK;
    const uint8_t *wire = slot->wire;
    mz_status status = z->overlap ? mz_zero_wait(z, slot->done) : MZ_OK;
    for (int i = 0; !status && i < slot->n_pieces; i++) {
        status = finish_piece(z, slot, &slot->pieces[i], wire);
        wire += (size_t)slot->pieces[i].count * mz_dtype_size(z->wire_dtype);
    }
    slot->unfinished = false;
    slot->n_pieces = 0;
    return status;
}

static mz_status reduce(mz_zero *z, const mz_reduce_slot *slot)
{
    const mz_reducer *r = &z->reducer;
    const char *label = z->labels[slot->pieces[0].segment->at.unit];
    float scale = (float)(1 / mz_zero_grad_weight_factor(z));
    z->counters.n_reduces++;
    z->counters.reduced_elements += slot->elements;
    if (slot->elements > z->counters.max_reduce_elements)
        z->counters.max_reduce_elements = slot->elements;
    if (!z->comm)
        return MZ_OK;
    if (r->scatter && z->stage == 3 && z->config.zero.zero_quantized_gradients)
        return mz_reduce_scatter_quantized(z->shard_comm, r->segments, slot->n_pieces, z->wire_dtype,
                                           z->shard_dtype, scale, slot->accumulate, MZ_ZERO_GRADIENT_BITS, label,
                                           z->transfer);
    if (r->scatter)
        return mz_reduce_scatter(z->shard_comm, r->segments, slot->n_pieces, z->wire_dtype, z->shard_dtype, scale,
                                 slot->accumulate, label, z->transfer);
    return mz_all_reduce(z->comm, r->segments, slot->n_pieces, z->wire_dtype, scale, label, z->transfer);
}

/* The other groups' sums of the same slices come to this one's, which are complete for this group now. */
static mz_status add_replicas(mz_zero *z, const mz_reduce_slot *slot)
{
    mz_reducer *r = &z->reducer;
    if (!z->replica_comm || !z->last || !r->scatter)
        return MZ_OK;
    for (int i = 0; i < slot->n_pieces; i++) {
        const mz_reduce_piece *p = &slot->pieces[i];
        uint8_t *sums = p->segment->grad_own + (size_t)p->begin * mz_dtype_size(z->shard_dtype);
        r->segments[i] = (mz_segment){.send = sums, .recv = sums, .count = p->count};
    }
    return mz_all_reduce(z->replica_comm, r->segments, slot->n_pieces, z->shard_dtype, 1,
                         z->labels[slot->pieces[0].segment->at.unit], z->transfer);
}

mz_status mz_zero_reduce_flush(mz_zero *z)
{
    mz_reducer *r = &z->reducer;
    mz_reduce_slot *slot = &r->slots[r->slot];
    if (slot->n_pieces == 0 || slot->unfinished)
        return MZ_OK;
    slot->accumulate = z->stage >= 2 && !z->first;
    mz_status status = is_cast(z) ? pack(z, slot) : MZ_OK;
    if (!status)
        status = mz_zero_transfer_begin(z, slot->ready);
    if (status)
        return status;
    describe(z, slot);
    status = reduce(z, slot);
    if (!status)
        status = add_replicas(z, slot);
    if (!status)
        status = mz_zero_transfer_end(z, slot->done);
    for (int i = 0; !status && z->overlap && i < slot->n_pieces; i++)
        if (slot->pieces[i].buffer != MZ_ZERO_SHARED)
            status = mz_zero_transfer_mark(z, r->buffers[slot->pieces[i].buffer].done);
    for (int i = 0; i < r->n_shared; i++)
        r->buffers[i].closed = r->buffers[i].used > 0;
    slot->unfinished = !r->scatter && (is_cast(z) || z->stage >= 2);
    if (!slot->unfinished)
        slot->n_pieces = 0;
    slot->elements = 0;
    r->slot ^= 1;
    return !status && !z->overlap ? mz_zero_reduce_finish_slot(z, slot) : status;
}

static mz_status push(mz_zero *z, mz_zero_segment *s, int64_t begin, int64_t count)
{
    mz_reducer *r = &z->reducer;
    mz_reduce_slot *slot = &r->slots[r->slot];
    mz_status status = mz_zero_reduce_finish_slot(z, slot);
    if (status)
        return status;
    int buffer = z->stage < 2                                   ? MZ_ZERO_SHARED
                 : r->unit_buffer[s->at.unit] == MZ_ZERO_SHARED ? r->current
                                                                : r->unit_buffer[s->at.unit];
    slot->pieces[slot->n_pieces++] = (mz_reduce_piece){s, s->grad, buffer, begin, count};
    slot->elements += r->rows * count;
    return MZ_OK;
}

/* A segment's gradient joins the collective that is being put together; what does not fit is cut. */
mz_status mz_zero_reduce_segment(mz_zero *z, mz_zero_segment *s)
{
    mz_reducer *r = &z->reducer;
    int64_t row = row_length(z, s), most = r->limit / r->rows / MZ_LAYOUT_ALIGN * MZ_LAYOUT_ALIGN;
    mz_status status = MZ_OK;
    if (r->slots[r->slot].elements + s->at.length > r->limit)
        status = mz_zero_reduce_flush(z);
    for (int64_t begin = 0; !status && begin < row; begin += most) {
        if (begin > 0)
            status = mz_zero_reduce_flush(z);
        if (!status)
            status = push(z, s, begin, row - begin < most ? row - begin : most);
    }
    if (!status && !z->config.zero.contiguous_gradients)
        status = mz_zero_reduce_flush(z);
    return status;
}

mz_status mz_zero_reduce_finish(mz_zero *z)
{
    mz_status status = mz_zero_reduce_flush(z);
    for (int i = 0; !status && i < 2; i++) {
        mz_reduce_slot *slot = &z->reducer.slots[i];
        status = mz_zero_reduce_finish_slot(z, slot);
        if (!status && z->overlap)
            status = mz_zero_wait(z, slot->done);
    }
    return status;
}

static mz_status create_slot(mz_zero *z, mz_reduce_slot *slot)
{
    int64_t wire =
        is_cast(z) ? (z->reducer.limit < z->layout->elements ? z->reducer.limit : z->layout->elements) : 0;
    void *memory;
    slot->pieces = mz_calloc((size_t)z->layout->n_segments + 1, sizeof *slot->pieces);
    if (!slot->pieces)
        return MZ_ERR_MEMORY;
    mz_status status = mz_zero_alloc(z, wire, mz_dtype_size(z->wire_dtype), &z->memory.reduce_buffers, &memory);
    slot->wire = memory;
    if (!status)
        status = z->device->ops->event_create(z->device, &slot->ready);
    if (!status)
        status = z->device->ops->event_create(z->device, &slot->done);
    return status;
}

int64_t mz_zero_bucket_limit(const mz_zero *z)
{
    int64_t limit = z->config.zero.reduce_bucket_size;
    return limit > MZ_ZERO_BUCKET_ELEMENTS ? MZ_ZERO_BUCKET_ELEMENTS : limit;
}

/* Elements of a collective at most. Between GPUs a segment goes whole whatever its length: the rows of a part do
 * not lie one after the other, which costs a collective per row, and being cut saves no memory there. */
static int64_t choose_limit(const mz_zero *z)
{
    int64_t limit = mz_zero_bucket_limit(z);
    for (int i = 0; strcmp(z->device->ops->name, "cuda") == 0 && i < z->layout->n_segments; i++)
        limit = z->segments[i].at.length > limit ? z->segments[i].at.length : limit;
    return limit;
}

mz_status mz_zero_reducer_create(mz_zero *z)
{
    mz_reducer *r = &z->reducer;
    if (z->size == 1 || z->inference)
        return MZ_OK;
    int64_t grain = (int64_t)MZ_LAYOUT_ALIGN * z->shard_size, limit = choose_limit(z);
    r->limit = limit < grain ? grain : limit / grain * grain;
    r->scatter = z->stage >= 1 && z->config.zero.reduce_scatter;
    r->rows = r->scatter ? z->shard_size : 1;
    r->segments = mz_calloc((size_t)z->layout->n_segments + 1, sizeof *r->segments);
    r->buffers = mz_calloc((size_t)z->layout->n_units + 2, sizeof *r->buffers);
    r->unit_buffer = mz_calloc((size_t)z->layout->n_units + 1, sizeof *r->unit_buffer);
    r->unit_open = mz_calloc((size_t)z->layout->n_units + 1, sizeof *r->unit_open);
    if (!r->segments || !r->buffers || !r->unit_buffer || !r->unit_open)
        return MZ_ERR_MEMORY;
    mz_status status = create_slot(z, &r->slots[0]);
    if (!status)
        status = create_slot(z, &r->slots[1]);
    return status || z->stage < 2 ? status : mz_zero_buffers_create(z);
}

void mz_zero_reducer_free(mz_zero *z)
{
    mz_reducer *r = &z->reducer;
    const mz_device_ops *ops = z->device->ops;
    for (int i = 0; i < 2; i++) {
        mz_free(r->slots[i].pieces);
        if (r->slots[i].ready)
            ops->event_destroy(r->slots[i].ready);
        if (r->slots[i].done)
            ops->event_destroy(r->slots[i].done);
    }
    for (int i = 0; i < r->n_buffers; i++)
        if (r->buffers[i].done)
            ops->event_destroy(r->buffers[i].done);
    mz_free(r->segments);
    mz_free(r->buffers);
    mz_free(r->unit_buffer);
    mz_free(r->unit_open);
}
