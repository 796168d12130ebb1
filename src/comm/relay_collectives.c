/* What the relay does with a piece of each collective (relay_stages.h; the sums are in relay_sums.c). The courier
 * itself waits only before a message leaves, until its data is in pinned memory, and the room for the answer is
 * free. */
#include "comm/relay_stages.h"
#include "core/error.h"

/* All-reduces up to this size are not worth two exchanges. */
enum { SMALL_BYTES = 64 << 10 };

/* ---- stages that collectives share ---- */

static mz_status depart(const mz_voyage *v, mz_flight *f)
{
    mz_relay *relay = mz_relay_of(v);
    mz_relay_note(relay, "waits until the piece before is in GPU memory");
    mz_status status = mz_relay_await(relay, mz_relay_slot_of(v, f)->stored);
    if (!status && relay->direct) /* the answer comes to where that one is read */
        status = mz_relay_await(relay, mz_relay_slot_of(v, f)->finished);
    mz_relay_note(relay, "waits until a piece is out of GPU memory");
    if (!status)
        status = mz_relay_await(relay, mz_relay_slot_of(v, f)->loaded);
    mz_relay_count(&relay->n_departed);
    mz_relay_note(relay, "waits for the wire");
    return status;
}

static mz_status exchange(const mz_voyage *v, mz_leg *leg, int to, int from, char *given)
{
    size_t bytes = mz_relay_wire_bytes(v, leg->flight);
    mz_status status = mz_leg_recv(v->hier, v->op, leg, from, mz_relay_block(v, leg->flight->inbox, from), bytes);
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
    return exchange(v, leg, to, from, mz_relay_block(v, leg->flight->partial, to));
}

/* ---- all-gather ---- */

/* What others get of this block is what its own node gets. */
static mz_status pack_given(const mz_voyage *v, mz_flight *f, const char *given, char *own)
{
    mz_relay *relay = mz_relay_of(v);
    mz_relay_slot *slot = mz_relay_slot_of(v, f);
    mz_status status = mz_relay_pack(v, f, given, slot->partial);
    if (!status)
        status = mz_relay_unpack(v, f, slot->partial, own);
    return status ? status : mz_relay_follow(mz_relay_ops(v), relay->out, relay->inner, slot->reduced);
}

static mz_status gather_load(const mz_voyage *v, mz_flight *f)
{
    mz_relay *relay = mz_relay_of(v);
    const mz_device_ops *ops = mz_relay_ops(v);
    char *own = mz_piece_recv(&f->piece, v->hier->layout->rank, v->element);
    const char *given = mz_piece_send(&f->piece, 0, v->element);
    mz_relay_count(&relay->n_loaded);
    mz_relay_note(relay, "launches what makes a piece ready");
    mz_status status = MZ_OK;
    if (v->bits)
        status = pack_given(v, f, given, own);
    else if (own != given)
        status = ops->copy(relay->inner, own, given, mz_relay_piece_bytes(v, f));
    if (!status)
        status = mz_relay_move(v, relay->out, f->partial, v->bits ? mz_relay_slot_of(v, f)->partial : given,
                               mz_relay_wire_bytes(v, f));
    return status ? status : ops->event_record(mz_relay_slot_of(v, f)->loaded, relay->out);
}

/* Makes of the packed blocks what they stand for. */
static mz_status unpack_gathered(const mz_voyage *v, mz_flight *f)
{
    const mz_layout *layout = v->hier->layout;
    mz_relay_slot *slot = mz_relay_slot_of(v, f);
    mz_status status = MZ_OK;
    for (int m = 0; m < layout->n_nodes && !status; m++)
        if (m != layout->node)
            status = mz_relay_unpack(v, f, mz_relay_block(v, slot->inbox, m),
                                     mz_piece_recv(&f->piece, mz_rail_rank(v->hier, m), v->element));
    return status ? status : mz_relay_ops(v)->event_record(slot->finished, mz_relay_of(v)->inner);
}

static mz_status gather_arrive(const mz_voyage *v, mz_flight *f)
{
    mz_relay *relay = mz_relay_of(v);
    mz_hier *hier = v->hier;
    const mz_layout *layout = hier->layout;
    mz_relay_slot *slot = mz_relay_slot_of(v, f);
    mz_status status = mz_relay_begin_arrival(relay);
    if (!status && v->bits)
        status = mz_relay_ops(v)->wait(relay->in, slot->finished); /* with the piece before in this slot */
    for (int m = 0; m < layout->n_nodes && !status; m++) {
        char *to = mz_piece_recv(&f->piece, mz_rail_rank(hier, m), v->element);
        hier->node_segments[m] = (mz_segment){.send = to,
                                              .recv = mz_piece_recv(&f->piece, layout->first[m], v->element),
                                              .count = f->piece.count,
                                              .stride = f->piece.segment->stride * layout->step};
        if (v->bits)
            to = mz_relay_block(v, slot->inbox, m);
        if (m != layout->node)
            status = mz_relay_move(v, relay->in, to, mz_relay_block(v, f->inbox, m), mz_relay_wire_bytes(v, f));
    }
    if (!status)
        status = mz_relay_follow(mz_relay_ops(v), relay->inner, relay->in, slot->stored);
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
    mz_relay *relay = mz_relay_of(v);
    const mz_layout *layout = v->hier->layout;
    mz_relay_count(&relay->n_loaded);
    mz_relay_note(relay, "launches what makes a piece ready");
    mz_status status = MZ_OK;
    for (int m = 0; m < layout->n_nodes && !status; m++) {
        const char *given = mz_piece_send(&f->piece, mz_rail_rank(v->hier, m), v->element);
        bool is_own = m == layout->node;
        char *to = is_own ? mz_piece_recv(&f->piece, layout->rank, v->element) : mz_relay_block(v, f->partial, m);
        status = mz_relay_ops(v)->copy(is_own ? relay->inner : relay->out, to, given, mz_relay_piece_bytes(v, f));
    }
    return status ? status : mz_relay_ops(v)->event_record(mz_relay_slot_of(v, f)->loaded, relay->out);
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
    mz_relay *relay = mz_relay_of(v);
    if (v->hier->layout->rank != v->root)
        return MZ_OK;
    mz_status status = mz_relay_ops(v)->copy(relay->out, f->partial, mz_piece_send(&f->piece, 0, v->element),
                                             mz_relay_piece_bytes(v, f));
    return status ? status : mz_relay_ops(v)->event_record(mz_relay_slot_of(v, f)->loaded, relay->out);
}

/* The root's rail carries everything; who receives says that it is there, as in host memory. */
static mz_status broadcast_exchange(const mz_voyage *v, mz_leg *leg, int to, int from)
{
    mz_flight *f = leg->flight;
    mz_status status = MZ_OK;
    if (v->hier->layout->rank == v->root) {
        status = mz_leg_recv(v->hier, v->op, leg, to, NULL, 0);
        if (!status)
            status = mz_leg_send(v->hier, v->op, leg, to, f->partial, mz_relay_piece_bytes(v, f));
    } else if (mz_rail_rank(v->hier, from) == v->root) {
        status = mz_leg_recv(v->hier, v->op, leg, from, f->inbox, mz_relay_piece_bytes(v, f));
        if (!status)
            status = mz_leg_send(v->hier, v->op, leg, from, NULL, 0);
    }
    return status;
}

static mz_status broadcast_arrive(const mz_voyage *v, mz_flight *f)
{
    mz_relay *relay = mz_relay_of(v);
    mz_hier *hier = v->hier;
    const mz_layout *layout = hier->layout;
    int root_node, root_local = place_of(layout, v->root, &root_node);
    bool is_root = layout->rank == v->root;
    char *to = mz_piece_recv(&f->piece, 0, v->element);
    const char *from = is_root ? mz_piece_send(&f->piece, 0, v->element) : to;
    mz_status status = mz_relay_begin_arrival(relay);
    if (!is_root && layout->local == root_local && layout->node != root_node) {
        status = mz_relay_ops(v)->copy(relay->in, to, f->inbox, mz_relay_piece_bytes(v, f));
        if (!status)
            status = mz_relay_follow(mz_relay_ops(v), relay->inner, relay->in, mz_relay_slot_of(v, f)->stored);
    }
    if (status)
        return status;
    const mz_segment segment = {from, to, f->piece.count, f->piece.count};
    if (hier->node)
        return hier->node->ops->broadcast(hier->node, v->op, &segment, 1, v->dtype, root_local, relay->inner);
    return from == to ? MZ_OK : mz_relay_ops(v)->copy(relay->inner, to, from, mz_relay_piece_bytes(v, f));
}

/* ---- the collectives ---- */

/* The copying streams follow what was done before, for this collective and for what it came after. */
static mz_status travel(mz_relay *relay, const mz_voyage *v, const mz_segment *segments, int n)
{
    const mz_device_ops *ops = mz_relay_ops(v);
    mz_status status = mz_relay_follow(ops, relay->out, relay->inner, relay->start);
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
    v.load = mz_relay_scatter_load;
    v.exchange = exchange_each;
    v.arrive = mz_relay_sums_arrive;
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
    v.load = mz_relay_reduce_load;
    v.exchange = exchange_one;
    v.arrive = mz_relay_sums_arrive;
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
