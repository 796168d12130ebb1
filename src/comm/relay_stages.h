/* What the relay's collectives do with a piece, in parts: shared by relay_collectives.c and relay_sums.c. Three
 * streams work on it: `out` copies into pinned memory, `in` copies from there, and `inner` does what is done on the
 * GPUs of the node. Events order them. */
#ifndef MZ_COMM_RELAY_STAGES_H
#define MZ_COMM_RELAY_STAGES_H

#include "comm/relay_impl.h"
#include "kernels/kernels.h"

static inline mz_relay *mz_relay_of(const mz_voyage *v)
{
    return (mz_relay *)v->hier;
}

static inline mz_relay_slot *mz_relay_slot_of(const mz_voyage *v, const mz_flight *f)
{
    return &mz_relay_of(v)->slots[f - v->hier->flights];
}

static inline const mz_device_ops *mz_relay_ops(const mz_voyage *v)
{
    return mz_relay_of(v)->options.device->ops;
}

static inline size_t mz_relay_piece_bytes(const mz_voyage *v, const mz_flight *f)
{
    return (size_t)f->piece.count * v->element;
}

/* A block of the piece as it goes between the nodes. */
static inline size_t mz_relay_wire_bytes(const mz_voyage *v, const mz_flight *f)
{
    return v->bits ? mz_quantized_bytes(f->piece.count, v->bits) : mz_relay_piece_bytes(v, f);
}

/* Into fewer bits and back, on the GPU; `from` and `to` of unpack may not overlap. */
static inline mz_status mz_relay_pack(const mz_voyage *v, const mz_flight *f, const void *from, char *packed)
{
    const mz_quantize_args args = {f->piece.count, v->bits, from, v->dtype, packed};
    return mz_relay_ops(v)->kernels->quantize(&args, mz_relay_of(v)->inner);
}

static inline mz_status mz_relay_unpack(const mz_voyage *v, const mz_flight *f, const char *packed, void *to)
{
    const mz_dequantize_args args = {f->piece.count, v->bits, packed, to, v->dtype};
    return mz_relay_ops(v)->kernels->dequantize(&args, mz_relay_of(v)->inner);
}

/* Orders a stream behind what another was given so far. */
static inline mz_status mz_relay_follow(const mz_device_ops *ops, mz_stream *behind, mz_stream *ahead,
                                        mz_event *event)
{
    mz_status status = ops->event_record(event, ahead);
    return status ? status : ops->wait(behind, event);
}

static inline mz_status mz_relay_begin_arrival(mz_relay *relay)
{
    mz_device *device = relay->options.device;
    mz_relay_count(&relay->n_arrived);
    mz_relay_note(relay, "launches what is to be done with a piece that came");
    return relay->direct && device->ops->see_writes ? device->ops->see_writes(device) : MZ_OK;
}

/* Stream-ordered, and nothing where the wire's buffer is the GPU's. */
static inline mz_status mz_relay_move(const mz_voyage *v, mz_stream *stream, char *to, const void *from,
                                      size_t bytes)
{
    return to == from ? MZ_OK : mz_relay_ops(v)->copy(stream, to, from, bytes);
}

/* Node m's block of what came or is to leave, in pinned memory or on the GPU. */
static inline char *mz_relay_block(const mz_voyage *v, char *blocks, int m)
{
    return blocks + (size_t)m * v->hier->piece_bytes;
}

/* ---- relay_sums.c: of reduce-scatter and all-reduce, as a voyage calls them ---- */

/* This node's sums for every node's rank of the rail; a rank alone on its node gives what it was given. */
mz_status mz_relay_scatter_load(const mz_voyage *v, mz_flight *f);
/* This node's sum, the same for every node. */
mz_status mz_relay_reduce_load(const mz_voyage *v, mz_flight *f);
/* Adds up what came of the other nodes and this one's. */
mz_status mz_relay_sums_arrive(const mz_voyage *v, mz_flight *f);

#endif
