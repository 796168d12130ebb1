/* What the relay does with a piece of each collective. Three streams work on it: `out` copies into pinned memory,
 * `in` copies from there, and `inner` does what is done on the GPUs of the node. Events order them; the courier
 * itself waits only before a message leaves, until its data is in pinned memory, and the room for the answer is
 * free. */
#include "comm/relay_impl.h"
#include "core/error.h"
#include "kernels/kernels.h"

/* All-reduces up to this size are not worth two exchanges. */
enum { SMALL_BYTES = 64 << 10 };

static mz_relay *relay_of(const mz_voyage *v)
{
    return (mz_relay *)v->hier;
}

static mz_relay_slot *slot_of(const mz_voyage *v, const mz_flight *f)
{
    return &relay_of(v)->slots[f - v->hier->flights];
}

static const mz_device_ops *ops_of(const mz_voyage *v)
{
    return relay_of(v)->options.device->ops;
}

static size_t bytes_of(const mz_voyage *v, const mz_flight *f)
{
    return (size_t)f->piece.count * v->element;
}

/* A block of the piece as it goes between the nodes. */
static size_t wire_bytes(const mz_voyage *v, const mz_flight *f)
{
    return v->bits ? mz_quantized_bytes(f->piece.count, v->bits) : bytes_of(v, f);
}

/* Into fewer bits and back, on the GPU; `from` and `to` of unpack may not overlap. */
static mz_status pack(const mz_voyage *v, const mz_flight *f, const void *from, char *packed)
{
    const mz_quantize_args args = {f->piece.count, v->bits, from, v->dtype, packed};
    return ops_of(v)->kernels->quantize(&args, relay_of(v)->inner);
}

static mz_status unpack(const mz_voyage *v, const mz_flight *f, const char *packed, void *to)
{
    const mz_dequantize_args args = {f->piece.count, v->bits, packed, to, v->dtype};
    return ops_of(v)->kernels->dequantize(&args, relay_of(v)->inner);
}

/* Orders a stream behind what another was given so far. */
static mz_status follow(const mz_device_ops *ops, mz_stream *behind, mz_stream *ahead, mz_event *event)
{
    mz_status status = ops->event_record(event, ahead);
    return status ? status : ops->wait(behind, event);
}

/* ---- stages that collectives share ---- */

static mz_status depart(const mz_voyage *v, mz_flight *f)
{
    mz_relay *relay = relay_of(v);
    mz_relay_note(relay, "waits until the piece before is in GPU memory");
    mz_status status = mz_relay_await(relay, slot_of(v, f)->stored);
    if (!status && relay->direct) /* the answer comes to where that one is read */
        status = mz_relay_await(relay, slot_of(v, f)->finished);
    mz_relay_note(relay, "waits until a piece is out of GPU memory");
    if (!status)
        status = mz_relay_await(relay, slot_of(v, f)->loaded);
    mz_relay_count(&relay->n_departed);
    mz_relay_note(relay, "waits for the wire");
    return status;
}

static mz_status begin_arrival(mz_relay *relay)
{
    mz_device *device = relay->options.device;
    mz_relay_count(&relay->n_arrived);
    mz_relay_note(relay, "launches what is to be done with a piece that came");
    return relay->direct && device->ops->see_writes ? device->ops->see_writes(device) : MZ_OK;
}

/* Stream-ordered, and nothing where the wire's buffer is the GPU's. */
static mz_status move(const mz_voyage *v, mz_stream *stream, char *to, const void *from, size_t bytes)
{
    return to == from ? MZ_OK : ops_of(v)->copy(stream, to, from, bytes);
}

/* Node m's block of what came or is to leave, in pinned memory or on the GPU. */
static char *block(const mz_voyage *v, char *blocks, int m)
{
    return blocks + (size_t)m * v->hier->piece_bytes;
}

static mz_status exchange(const mz_voyage *v, mz_leg *leg, int to, int from, char *given)
{
    size_t bytes = wire_bytes(v, leg->flight);
    mz_status status = mz_leg_recv(v->hier, v->op, leg, from, block(v, leg->flight->inbox, from), bytes);
    return status ? status : mz_leg_send(v->hier, v->op, leg, to, given, bytes);
}

/* Everybody gets the same. */
static mz_status exchange_one(const mz_voyage *v, mz_leg *leg, int to, int from)
{
    return exchange(v, leg, to, from, leg->flight->partial);
}

/* Every node gets its own. */
static mz_status exchange_each(const mz_voyage *v, mz_leg *leg, int to, int from)
{
    return exchange(v, leg, to, from, block(v, leg->flight->partial, to));
}

/* ---- all-gather ---- */

/* What others get of this block is what its own node gets. */
static mz_status pack_given(const mz_voyage *v, mz_flight *f, const char *given, char *own)
{
    mz_relay *relay = relay_of(v);
    mz_relay_slot *slot = slot_of(v, f);
    mz_status status = pack(v, f, given, slot->partial);
    if (!status)
        status = unpack(v, f, slot->partial, own);
    return status ? status : follow(ops_of(v), relay->out, relay->inner, slot->reduced);
}

static mz_status gather_load(const mz_voyage *v, mz_flight *f)
{
    mz_relay *relay = relay_of(v);
    const mz_device_ops *ops = ops_of(v);
    char *own = mz_piece_recv(&f->piece, v->hier->layout->rank, v->element);
    const char *given = mz_piece_send(&f->piece, 0, v->element);
    mz_relay_count(&relay->n_loaded);
    mz_relay_note(relay, "launches what makes a piece ready");
    mz_status status = MZ_OK;
    if (v->bits)
        status = pack_given(v, f, given, own);
    else if (own != given)
        status = ops->copy(relay->inner, own, given, bytes_of(v, f));
    if (!status)
        status = move(v, relay->out, f->partial, v->bits ? slot_of(v, f)->partial : given, wire_bytes(v, f));
    return status ? status : ops->event_record(slot_of(v, f)->loaded, relay->out);
}

/* Makes of the packed blocks what they stand for. */
static mz_status unpack_gathered(const mz_voyage *v, mz_flight *f)
{
    const mz_layout *layout = v->hier->layout;
    mz_relay_slot *slot = slot_of(v, f);
    mz_status status = MZ_OK;
    for (int m = 0; m < layout->n_nodes && !status; m++)
        if (m != layout->node)
            status = unpack(v, f, block(v, slot->inbox, m),
                            mz_piece_recv(&f->piece, mz_rail_rank(v->hier, m), v->element));
    return status ? status : ops_of(v)->event_record(slot->finished, relay_of(v)->inner);
}

static mz_status gather_arrive(const mz_voyage *v, mz_flight *f)
{
    mz_relay *relay = relay_of(v);
    mz_hier *hier = v->hier;
    const mz_layout *layout = hier->layout;
    mz_relay_slot *slot = slot_of(v, f);
    mz_status status = begin_arrival(relay);
    if (!status && v->bits)
        status = ops_of(v)->wait(relay->in, slot->finished); /* with the piece before in this slot */
    for (int m = 0; m < layout->n_nodes && !status; m++) {
        char *to = mz_piece_recv(&f->piece, mz_rail_rank(hier, m), v->element);
        hier->node_segments[m] = (mz_segment){.send = to,
                                              .recv = mz_piece_recv(&f->piece, layout->first[m], v->element),
                                              .count = f->piece.count,
                                              .stride = f->piece.segment->stride * layout->step};
        if (v->bits)
            to = block(v, slot->inbox, m);
        if (m != layout->node)
            status = move(v, relay->in, to, block(v, f->inbox, m), wire_bytes(v, f));
    }
    if (!status)
        status = follow(ops_of(v), relay->inner, relay->in, slot->stored);
    if (!status && v->bits)
        status = unpack_gathered(v, f);
    if (status || !hier->node)
        return status;
    mz_relay_note(relay, "launches the node's all-gather");
    return hier->node->ops->all_gather(hier->node, v->op, hier->node_segments, layout->n_nodes, v->dtype,
                                       relay->inner);
}

/* ---- all-to-all, of one rank per node ---- */

static mz_status swap_load(const mz_voyage *v, mz_flight *f)
{
    mz_relay *relay = relay_of(v);
    const mz_layout *layout = v->hier->layout;
    mz_relay_count(&relay->n_loaded);
    mz_relay_note(relay, "launches what makes a piece ready");
    mz_status status = MZ_OK;
    for (int m = 0; m < layout->n_nodes && !status; m++) {
        const char *given = mz_piece_send(&f->piece, mz_rail_rank(v->hier, m), v->element);
        bool is_own = m == layout->node;
        char *to = is_own ? mz_piece_recv(&f->piece, layout->rank, v->element) : block(v, f->partial, m);
        status = ops_of(v)->copy(is_own ? relay->inner : relay->out, to, given, bytes_of(v, f));
    }
    return status ? status : ops_of(v)->event_record(slot_of(v, f)->loaded, relay->out);
}

/* ---- sums ---- */

/* Packs the sums for the other nodes into the slot's inbox, which is free until the piece arrives; a copy of what
 * was in it before has long left. */
static mz_status pack_sums(const mz_voyage *v, mz_flight *f)
{
    const mz_hier *hier = v->hier;
    mz_relay_slot *slot = slot_of(v, f);
    mz_status status = MZ_OK;
    for (int m = 0; m < hier->layout->n_nodes && !status; m++) {
        const mz_segment *s = &hier->node_segments[m];
        if (m != hier->layout->node)
            status = pack(v, f, hier->node ? s->recv : s->send, block(v, slot->inbox, m));
    }
    return status;
}

/* This node's sums for every node's rank of the rail; a rank alone on its node gives what it was given. */
static mz_status scatter_load(const mz_voyage *v, mz_flight *f)
{
    mz_relay *relay = relay_of(v);
    mz_hier *hier = v->hier;
    const mz_layout *layout = hier->layout;
    mz_relay_slot *slot = slot_of(v, f);
    mz_relay_count(&relay->n_loaded);
    mz_relay_note(relay, "launches what makes a piece ready");
    mz_status status = MZ_OK;
    for (int m = 0; m < layout->n_nodes; m++)
        hier->node_segments[m] = (mz_segment){.send = mz_piece_send(&f->piece, layout->first[m], v->element),
                                              .recv = block(v, slot->partial, m),
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
        status = follow(ops_of(v), relay->out, relay->inner, slot->reduced);
    for (int m = 0; m < layout->n_nodes && !status; m++) {
        const void *from = hier->node ? hier->node_segments[m].recv : hier->node_segments[m].send;
        if (m == layout->node)
            slot->own = from;
        else
            status = move(v, relay->out, block(v, f->partial, m), v->bits ? block(v, slot->inbox, m) : from,
                          wire_bytes(v, f));
    }
    return status ? status : ops_of(v)->event_record(slot->loaded, relay->out);
}

/* This node's sum, the same for every node. */
static mz_status reduce_load(const mz_voyage *v, mz_flight *f)
{
    mz_relay *relay = relay_of(v);
    mz_hier *hier = v->hier;
    mz_relay_slot *slot = slot_of(v, f);
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
        status = follow(ops_of(v), relay->out, relay->inner, slot->reduced);
    if (!status)
        status = move(v, relay->out, f->partial, slot->own, bytes_of(v, f));
    return status ? status : ops_of(v)->event_record(slot->loaded, relay->out);
}

/* recv (+)= scale * sum over the nodes, in their order, in fp32; others: [n_nodes] blocks of the other nodes'. */
static mz_status add_up(const mz_voyage *v, mz_flight *f, char *others)
{
    mz_relay *relay = relay_of(v);
    const mz_layout *layout = v->hier->layout;
    mz_relay_slot *slot = slot_of(v, f);
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
        args.src = m == layout->node ? slot->own : block(v, others, m);
        args.accumulate = m > 0;
        status = ops_of(v)->kernels->cast(&args, relay->inner);
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
    return ops_of(v)->kernels->cast(&args, relay->inner);
}

static mz_status sums_arrive(const mz_voyage *v, mz_flight *f)
{
    mz_relay *relay = relay_of(v);
    const mz_layout *layout = v->hier->layout;
    mz_relay_slot *slot = slot_of(v, f);
    mz_status status = begin_arrival(relay);
    if (!status)
        status = ops_of(v)->wait(relay->in, slot->finished); /* with the piece before in this slot */
    for (int m = 0; m < layout->n_nodes && !status; m++)
        if (m != layout->node)
            status = move(v, relay->in, block(v, slot->inbox, m), block(v, f->inbox, m), wire_bytes(v, f));
    if (!status)
        status = follow(ops_of(v), relay->inner, relay->in, slot->stored);
    for (int m = 0; m < layout->n_nodes && v->bits && !status; m++) /* the packed sums have taken partial's place */
        if (m != layout->node)
            status = unpack(v, f, block(v, slot->inbox, m), block(v, slot->partial, m));
    if (!status)
        status = add_up(v, f, v->bits ? slot->partial : slot->inbox);
    return status ? status : ops_of(v)->event_record(slot->finished, relay->inner);
}

/* ---- broadcast ---- */

static int place_of(const mz_layout *layout, int rank, int *node)
{
    for (*node = 0; *node < layout->n_nodes; ++*node)
        for (int l = 0; l < layout->per_node; l++)
            if (mz_layout_rank(layout, *node, l) == rank)
                return l;
    return 0;
}

static mz_status broadcast_load(const mz_voyage *v, mz_flight *f)
{
    mz_relay *relay = relay_of(v);
    if (v->hier->layout->rank != v->root)
        return MZ_OK;
    mz_status status =
        ops_of(v)->copy(relay->out, f->partial, mz_piece_send(&f->piece, 0, v->element), bytes_of(v, f));
    return status ? status : ops_of(v)->event_record(slot_of(v, f)->loaded, relay->out);
}

/* The root's rail carries everything; who receives says that it is there, as in host memory. */
static mz_status broadcast_exchange(const mz_voyage *v, mz_leg *leg, int to, int from)
{
    mz_flight *f = leg->flight;
    mz_status status = MZ_OK;
    if (v->hier->layout->rank == v->root) {
        status = mz_leg_recv(v->hier, v->op, leg, to, NULL, 0);
        if (!status)
            status = mz_leg_send(v->hier, v->op, leg, to, f->partial, bytes_of(v, f));
    } else if (mz_rail_rank(v->hier, from) == v->root) {
        status = mz_leg_recv(v->hier, v->op, leg, from, f->inbox, bytes_of(v, f));
        if (!status)
            status = mz_leg_send(v->hier, v->op, leg, from, NULL, 0);
    }
    return status;
}

static mz_status broadcast_arrive(const mz_voyage *v, mz_flight *f)
{
    mz_relay *relay = relay_of(v);
    mz_hier *hier = v->hier;
    const mz_layout *layout = hier->layout;
    int root_node, root_local = place_of(layout, v->root, &root_node);
    bool is_root = layout->rank == v->root;
    char *to = mz_piece_recv(&f->piece, 0, v->element);
    const char *from = is_root ? mz_piece_send(&f->piece, 0, v->element) : to;
    mz_status status = begin_arrival(relay);
    if (!is_root && layout->local == root_local && layout->node != root_node) {
        status = ops_of(v)->copy(relay->in, to, f->inbox, bytes_of(v, f));
        if (!status)
            status = follow(ops_of(v), relay->inner, relay->in, slot_of(v, f)->stored);
    }
    if (status)
        return status;
    const mz_segment segment = {from, to, f->piece.count, f->piece.count};
    if (hier->node)
        return hier->node->ops->broadcast(hier->node, v->op, &segment, 1, v->dtype, root_local, relay->inner);
    return from == to ? MZ_OK : ops_of(v)->copy(relay->inner, to, from, bytes_of(v, f));
}

/* ---- the collectives ---- */

/* The copying streams follow what was done before, for this collective and for what it came after. */
static mz_status travel(mz_relay *relay, const mz_voyage *v, const mz_segment *segments, int n)
{
    const mz_device_ops *ops = ops_of(v);
    mz_status status = follow(ops, relay->out, relay->inner, relay->start);
    if (!status)
        status = ops->wait(relay->in, relay->start);
    return status ? status : mz_voyage_run(v, segments, n);
}

static mz_voyage plan(mz_relay *relay, const mz_relay_record *record)
{
    const mz_collective *what = &record->what;
    return (mz_voyage){.hier = &relay->hier,
                       .op = &record->op,
                       .element = mz_dtype_size(what->dtype),
                       .dtype = what->dtype,
                       .recv_dtype = what->recv_dtype,
                       .scale = what->scale,
                       .accumulate = what->accumulate,
                       .root = what->root,
                       .bits = what->bits,
                       .depart = depart};
}

static mz_status all_gather(mz_relay *relay, const mz_relay_record *record, const mz_segment *segments, int n)
{
    mz_voyage v = plan(relay, record);
    v.load = gather_load;
    v.exchange = exchange_one;
    v.arrive = gather_arrive;
    return travel(relay, &v, segments, n);
}

static mz_status reduce_scatter(mz_relay *relay, const mz_relay_record *record, const mz_segment *segments, int n)
{
    mz_voyage v = plan(relay, record);
    v.load = scatter_load;
    v.exchange = exchange_each;
    v.arrive = sums_arrive;
    return travel(relay, &v, segments, n);
}

/* What every rank can have an equal part of is reduced and gathered in parts; remainders and small ones are
 * exchanged whole. */
static mz_status all_reduce(mz_relay *relay, mz_relay_record *record)
{
    const mz_collective *what = &record->what;
    const mz_layout *layout = relay->hier.layout;
    const size_t element = mz_dtype_size(what->dtype);
    const int n = what->n_segments;
    mz_segment *parts = record->segments + record->capacity, *rest = parts + n;
    bool is_small = mz_segments_count(what->segments, n) * (int64_t)element <= SMALL_BYTES;
    for (int i = 0; i < n; i++) {
        const mz_segment *s = &what->segments[i];
        int64_t count = is_small ? 0 : s->count / layout->size, done = count * layout->size;
        parts[i] = (mz_segment){s->send, (char *)s->recv + (size_t)(count * layout->rank) * element, count, count};
        rest[i] = (mz_segment){.send = (const char *)s->send + (size_t)done * element,
                               .recv = (char *)s->recv + (size_t)done * element,
                               .count = s->count - done};
    }
    mz_status status = reduce_scatter(relay, record, parts, n);
    for (int i = 0; i < n; i++) {
        parts[i].send = parts[i].recv;
        parts[i].recv = what->segments[i].recv;
    }
    if (!status)
        status = all_gather(relay, record, parts, n);
    mz_voyage v = plan(relay, record);
    v.load = reduce_load;
    v.exchange = exchange_one;
    v.arrive = sums_arrive;
    return status ? status : travel(relay, &v, rest, n);
}

mz_status mz_relay_carry(mz_relay *relay, mz_relay_record *record)
{
    const mz_collective *what = &record->what;
    mz_voyage v = plan(relay, record);
    switch (what->kind) {
    case MZ_ALL_GATHER:
        return all_gather(relay, record, what->segments, what->n_segments);
    case MZ_REDUCE_SCATTER:
        return reduce_scatter(relay, record, what->segments, what->n_segments);
    case MZ_ALL_REDUCE:
        return all_reduce(relay, record);
    case MZ_BROADCAST:
        v.load = broadcast_load;
        v.exchange = broadcast_exchange;
        v.arrive = broadcast_arrive;
        return travel(relay, &v, what->segments, what->n_segments);
    case MZ_ALL_TO_ALL:
        v.load = swap_load;
        v.exchange = exchange_each;
        v.arrive = gather_arrive;
        return travel(relay, &v, what->segments, what->n_segments);
    case MZ_BARRIER:
    case MZ_HOST_REDUCE:
    case MZ_N_COLLECTIVES:
        break;
    }
    return mz_fail(MZ_ERR_INTERNAL, "%s is not for GPUs", record->op.kind);
}
