/* The relay's sums, and what a piece of them goes through. */
#include "comm/relay_stages.h"

/* Packs the sums for the other nodes into the slot's inbox, which is free until the piece arrives; a copy of what
 * was in it before has long left. */
static mz_status pack_sums(const mz_voyage *v, mz_flight *f)
{
    const mz_hier *hier = v->hier;
    mz_relay_slot *slot = mz_relay_slot_of(v, f);
    mz_status status = MZ_OK;
    for (int m = 0; m < hier->layout->n_nodes && !status; m++) {
        const mz_segment *s = &hier->node_segments[m];
        if (m != hier->layout->node)
            status = mz_relay_pack(v, f, hier->node ? s->recv : s->send, mz_relay_block(v, slot->inbox, m));
    }
    return status;
}

mz_status mz_relay_scatter_load(const mz_voyage *v, mz_flight *f)
{
    mz_relay *relay = mz_relay_of(v);
    mz_hier *hier = v->hier;
    const mz_layout *layout = hier->layout;
    mz_relay_slot *slot = mz_relay_slot_of(v, f);
    mz_relay_count(&relay->n_loaded);
    mz_relay_note(relay, "launches what makes a piece ready");
    mz_status status = MZ_OK;
    for (int m = 0; m < layout->n_nodes; m++)
        hier->node_segments[m] = (mz_segment){.send = mz_piece_send(&f->piece, layout->first[m], v->element),
                                              .recv = mz_relay_block(v, slot->partial, m),
                                              .count = f->piece.count,
                                              .stride = f->piece.segment->stride * layout->step};
    if (hier->node) {
        mz_relay_note(relay, "launches the node's sum of a piece");
        status = hier->node->ops->reduce_scatter(hier->node, v->op, hier->node_segments, layout->n_nodes, v->dtype,
                                                 v->dtype, v->scale, false, relay->inner);
        mz_relay_note(relay, "launches copies out of GPU memory");
    }
    if (!status && v->bits)
        status = pack_sums(v, f);
    if (!status)
        status = mz_relay_follow(mz_relay_ops(v), relay->out, relay->inner, slot->reduced);
    for (int m = 0; m < layout->n_nodes && !status; m++) {
        const void *from = hier->node ? hier->node_segments[m].recv : hier->node_segments[m].send;
        if (m == layout->node)
            slot->own = from;
        else
            status = mz_relay_move(v, relay->out, mz_relay_block(v, f->partial, m),
                                   v->bits ? mz_relay_block(v, slot->inbox, m) : from, mz_relay_wire_bytes(v, f));
    }
    return status ? status : mz_relay_ops(v)->event_record(slot->loaded, relay->out);
}

mz_status mz_relay_reduce_load(const mz_voyage *v, mz_flight *f)
{
    mz_relay *relay = mz_relay_of(v);
    mz_hier *hier = v->hier;
    mz_relay_slot *slot = mz_relay_slot_of(v, f);
    const mz_segment segment = {
        .send = mz_piece_send(&f->piece, 0, v->element), .recv = slot->partial, .count = f->piece.count};
    mz_relay_count(&relay->n_loaded);
    mz_relay_note(relay, "launches what makes a piece ready");
    mz_status status = MZ_OK;
    slot->own = hier->node ? segment.recv : segment.send;
    if (hier->node) {
        mz_relay_note(relay, "launches the node's sum of a piece");
        status = hier->node->ops->all_reduce(hier->node, v->op, &segment, 1, v->dtype, v->scale, relay->inner);
        mz_relay_note(relay, "launches copies out of GPU memory");
    }
    if (!status)
        status = mz_relay_follow(mz_relay_ops(v), relay->out, relay->inner, slot->reduced);
    if (!status)
        status = mz_relay_move(v, relay->out, f->partial, slot->own, mz_relay_piece_bytes(v, f));
    return status ? status : mz_relay_ops(v)->event_record(slot->loaded, relay->out);
}

/* recv (+)= scale * sum over the nodes, in their order, in fp32; others: [n_nodes] blocks of the other nodes'. */
static mz_status add_up(const mz_voyage *v, mz_flight *f, char *others)
{
    mz_relay *relay = mz_relay_of(v);
    const mz_layout *layout = v->hier->layout;
    mz_relay_slot *slot = mz_relay_slot_of(v, f);
    float scale = v->hier->node ? 1 : v->scale; /* with a node stage the partial sums are scaled already */
    void *to = mz_piece_recv(&f->piece, 0, mz_dtype_size(v->recv_dtype));
    bool in_place = slot->own == to && layout->node > 0; /* the first one's share would overwrite it */
    bool direct = v->recv_dtype == MZ_F32 && !v->accumulate && scale == 1 && !in_place;
    mz_cast_args args = {.n = f->piece.count,
                         .src_dtype = v->dtype,
                         .dst = direct ? to : slot->sum,
                         .dst_dtype = MZ_F32,
                         .scale = 1};
    mz_status status = MZ_OK;
    mz_relay_note(relay, "launches the kernels that add up a piece");
    for (int m = 0; m < layout->n_nodes && !status; m++) {
        args.src = m == layout->node ? slot->own : mz_relay_block(v, others, m);
        args.accumulate = m > 0;
        status = mz_relay_ops(v)->kernels->cast(&args, relay->inner);
    }
    if (status || direct)
        return status;
    args = (mz_cast_args){.n = f->piece.count,
                          .src = slot->sum,
                          .src_dtype = MZ_F32,
                          .dst = to,
                          .dst_dtype = v->recv_dtype,
                          .scale = scale,
                          .accumulate = v->accumulate};
    return mz_relay_ops(v)->kernels->cast(&args, relay->inner);
}

mz_status mz_relay_sums_arrive(const mz_voyage *v, mz_flight *f)
{
    mz_relay *relay = mz_relay_of(v);
    const mz_layout *layout = v->hier->layout;
    mz_relay_slot *slot = mz_relay_slot_of(v, f);
    mz_status status = mz_relay_begin_arrival(relay);
    if (!status)
        status = mz_relay_ops(v)->wait(relay->in, slot->finished); /* with the piece before in this slot */
    for (int m = 0; m < layout->n_nodes && !status; m++)
        if (m != layout->node)
            status = mz_relay_move(v, relay->in, mz_relay_block(v, slot->inbox, m), mz_relay_block(v, f->inbox, m),
                                   mz_relay_wire_bytes(v, f));
    if (!status)
        status = mz_relay_follow(mz_relay_ops(v), relay->inner, relay->in, slot->stored);
    for (int m = 0; m < layout->n_nodes && v->bits && !status; m++) /* the packed sums have taken partial's place */
        if (m != layout->node)
            status = mz_relay_unpack(v, f, mz_relay_block(v, slot->inbox, m), mz_relay_block(v, slot->partial, m));
    if (!status)
        status = add_up(v, f, v->bits ? slot->partial : slot->inbox);
    return status ? status : mz_relay_ops(v)->event_record(slot->finished, relay->inner);
}
