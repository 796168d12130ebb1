/* All-gather, reduce-scatter and broadcast over both levels; all-to-all between the nodes. */
#include <string.h>

#include "comm/sum.h"
#include "comm/uneven.h"
#include "comm/voyage.h"

static mz_status gather_depart(const mz_voyage *v, mz_flight *f)
{
    const mz_layout *layout = v->hier->layout;
    size_t bytes = (size_t)f->piece.count * v->element;
    char *own = mz_piece_recv(&f->piece, layout->rank, v->element);
    const char *given = mz_piece_send(&f->piece, 0, v->element);
    if (own != given)
        memcpy(own, given, bytes);
    return MZ_OK;
}

static mz_status gather_exchange(const mz_voyage *v, mz_leg *leg, int to, int from)
{
    mz_hier *hier = v->hier;
    const mz_piece *piece = &leg->flight->piece;
    size_t bytes = (size_t)piece->count * v->element;
    mz_status status =
        mz_leg_recv(hier, v->op, leg, from, mz_piece_recv(piece, mz_rail_rank(hier, from), v->element), bytes);
    if (!status)
        status = mz_leg_send(hier, v->op, leg, to, mz_piece_recv(piece, hier->layout->rank, v->element), bytes);
    return status;
}

mz_status mz_voyage_spread(const mz_voyage *v, mz_flight *f)
{
    mz_hier *hier = v->hier;
    const mz_layout *layout = hier->layout;
    if (!hier->node)
        return MZ_OK;
    for (int m = 0; m < layout->n_nodes; m++)
        hier->node_segments[m] = (mz_segment){.send = mz_piece_recv(&f->piece, mz_rail_rank(hier, m), v->element),
                                              .recv = mz_piece_recv(&f->piece, layout->first[m], v->element),
                                              .count = f->piece.count,
                                              .stride = f->piece.segment->stride * layout->step};
    return hier->node->ops->all_gather(hier->node, v->op, hier->node_segments, layout->n_nodes, v->dtype, NULL);
}

mz_status mz_hier_all_gather(mz_hier *hier, const mz_op_info *op, const mz_segment *segments, int n, mz_dtype dtype)
{
    if (!hier->wire)
        return hier->node->ops->all_gather(hier->node, op, segments, n, dtype, NULL);
    if (!mz_segments_count(segments, n))
        return mz_hier_barrier(hier, op); /* without elements all still meet */
    if (hier->layout->uneven)
        return mz_uneven_all_gather(hier, op, segments, n, dtype);
    const mz_voyage v = {.hier = hier,
                         .op = op,
                         .element = mz_dtype_size(dtype),
                         .dtype = dtype,
                         .depart = gather_depart,
                         .exchange = gather_exchange,
                         .arrive = mz_voyage_spread};
    return mz_voyage_run(&v, segments, n);
}

mz_status mz_voyage_add_up(const mz_voyage *v, mz_flight *f, char *others)
{
    mz_hier *hier = v->hier;
    const mz_layout *layout = hier->layout;
    for (int m = 0; m < layout->n_nodes; m++)
        hier->node_segments[m] =
            (mz_segment){.send = mz_piece_send(&f->piece, layout->first[m], v->element),
                         .recv = (m == layout->node ? f->partial : others) + (size_t)m * hier->piece_bytes,
                         .count = f->piece.count,
                         .stride = f->piece.segment->stride * layout->step};
    return hier->node->ops->reduce_scatter(hier->node, v->op, hier->node_segments, layout->n_nodes, v->dtype,
                                           v->dtype, v->scale, false, NULL);
}

static mz_status scatter_depart(const mz_voyage *v, mz_flight *f)
{
    return v->hier->node ? mz_voyage_add_up(v, f, f->partial) : MZ_OK;
}

static mz_status scatter_exchange(const mz_voyage *v, mz_leg *leg, int to, int from)
{
    mz_hier *hier = v->hier;
    mz_flight *f = leg->flight;
    size_t bytes = (size_t)f->piece.count * v->element;
    const char *out = hier->node ? f->partial + (size_t)to * hier->piece_bytes
                                 : mz_piece_send(&f->piece, mz_rail_rank(hier, to), v->element);
    mz_status status = mz_leg_recv(hier, v->op, leg, from, f->inbox + (size_t)from * hier->piece_bytes, bytes);
    return status ? status : mz_leg_send(hier, v->op, leg, to, out, bytes);
}

static mz_status scatter_arrive(const mz_voyage *v, mz_flight *f)
{
    mz_hier *hier = v->hier;
    const mz_layout *layout = hier->layout;
    for (int m = 0; m < layout->n_nodes; m++)
        hier->sources[m] = f->inbox + (size_t)m * hier->piece_bytes;
    hier->sources[layout->node] = hier->node ? (const void *)(f->partial + (size_t)layout->node * hier->piece_bytes)
                                             : mz_piece_send(&f->piece, layout->rank, v->element);
    /* With a node stage the partial sums are scaled already, which keeps them in range of 16 bits. */
    mz_comm_sum(mz_piece_recv(&f->piece, 0, mz_dtype_size(v->recv_dtype)), v->recv_dtype, hier->sources,
                layout->n_nodes, v->dtype, f->piece.count, hier->node ? 1.0f : v->scale, v->accumulate);
    return MZ_OK;
}

mz_status mz_hier_reduce_scatter(mz_hier *hier, const mz_op_info *op, const mz_segment *segments, int n,
                                 mz_dtype dtype, mz_dtype recv_dtype, float scale, bool accumulate)
{
    if (!hier->wire)
        return hier->node->ops->reduce_scatter(hier->node, op, segments, n, dtype, recv_dtype, scale, accumulate,
                                               NULL);
    if (!mz_segments_count(segments, n))
        return mz_hier_barrier(hier, op); /* without elements all still meet */
    if (hier->layout->uneven)
        return mz_uneven_reduce_scatter(hier, op, segments, n, dtype, recv_dtype, scale, accumulate);
    const mz_voyage v = {.hier = hier,
                         .op = op,
                         .element = mz_dtype_size(dtype),
                         .dtype = dtype,
                         .recv_dtype = recv_dtype,
                         .scale = scale,
                         .accumulate = accumulate,
                         .depart = scatter_depart,
                         .exchange = scatter_exchange,
                         .arrive = scatter_arrive};
    return mz_voyage_run(&v, segments, n);
}

/* The root's rail carries everything, then each node spreads it. Who receives says that it is there, with an empty
 * message per piece, so that the root does not pour all into a late rank's memory. */
static mz_status broadcast_exchange(const mz_voyage *v, mz_leg *leg, int to, int from)
{
    mz_hier *hier = v->hier;
    const mz_piece *piece = &leg->flight->piece;
    size_t bytes = (size_t)piece->count * v->element;
    mz_status status = MZ_OK;
    if (hier->layout->rank == v->root) {
        status = mz_leg_recv(hier, v->op, leg, to, NULL, 0);
        if (!status)
            status = mz_leg_send(hier, v->op, leg, to, mz_piece_send(piece, 0, v->element), bytes);
    } else if (mz_rail_rank(hier, from) == v->root) {
        status = mz_leg_recv(hier, v->op, leg, from, mz_piece_recv(piece, 0, v->element), bytes);
        if (!status)
            status = mz_leg_send(hier, v->op, leg, from, NULL, 0);
    }
    return status;
}

static int local_of(const mz_layout *layout, int rank)
{
    for (int m = 0; m < layout->n_nodes; m++)
        for (int l = 0; l < layout->per_node; l++)
            if (mz_layout_rank(layout, m, l) == rank)
                return l;
    return 0;
}

static mz_status broadcast_arrive(const mz_voyage *v, mz_flight *f)
{
    mz_hier *hier = v->hier;
    const mz_layout *layout = hier->layout;
    bool is_root = layout->rank == v->root;
    char *to = mz_piece_recv(&f->piece, 0, v->element);
    const char *from = is_root ? mz_piece_send(&f->piece, 0, v->element) : to;
    if (hier->node) {
        const mz_segment segment = {from, to, f->piece.count, f->piece.count};
        return hier->node->ops->broadcast(hier->node, v->op, &segment, 1, v->dtype, local_of(layout, v->root),
                                          NULL);
    }
    if (is_root && to != from)
        memcpy(to, from, (size_t)f->piece.count * v->element);
    return MZ_OK;
}

mz_status mz_hier_broadcast(mz_hier *hier, const mz_op_info *op, const mz_segment *segments, int n, mz_dtype dtype,
                            int root)
{
    if (!hier->wire)
        return hier->node->ops->broadcast(hier->node, op, segments, n, dtype, root, NULL);
    if (!mz_segments_count(segments, n))
        return mz_hier_barrier(hier, op); /* without elements all still meet */
    if (hier->layout->uneven)
        return mz_uneven_broadcast(hier, op, segments, n, dtype, root);
    const mz_voyage v = {.hier = hier,
                         .op = op,
                         .element = mz_dtype_size(dtype),
                         .dtype = dtype,
                         .root = root,
                         .exchange = broadcast_exchange,
                         .arrive = broadcast_arrive};
    return mz_voyage_run(&v, segments, n);
}

static mz_status swap_depart(const mz_voyage *v, mz_flight *f)
{
    int rank = v->hier->layout->rank;
    memcpy(mz_piece_recv(&f->piece, rank, v->element), mz_piece_send(&f->piece, rank, v->element),
           (size_t)f->piece.count * v->element);
    return MZ_OK;
}

static mz_status swap_exchange(const mz_voyage *v, mz_leg *leg, int to, int from)
{
    mz_hier *hier = v->hier;
    const mz_piece *piece = &leg->flight->piece;
    size_t bytes = (size_t)piece->count * v->element;
    mz_status status =
        mz_leg_recv(hier, v->op, leg, from, mz_piece_recv(piece, mz_rail_rank(hier, from), v->element), bytes);
    if (!status)
        status = mz_leg_send(hier, v->op, leg, to, mz_piece_send(piece, mz_rail_rank(hier, to), v->element), bytes);
    return status;
}

static mz_status swap_arrive(const mz_voyage *v, mz_flight *f)
{
    (void)v;
    (void)f; /* it arrived where it belongs */
    return MZ_OK;
}

mz_status mz_hier_all_to_all(mz_hier *hier, const mz_op_info *op, const mz_segment *segments, int n, mz_dtype dtype)
{
    if (!mz_segments_count(segments, n))
        return mz_hier_barrier(hier, op); /* without elements all still meet */
    const mz_voyage v = {.hier = hier,
                         .op = op,
                         .element = mz_dtype_size(dtype),
                         .dtype = dtype,
                         .depart = swap_depart,
                         .exchange = swap_exchange,
                         .arrive = swap_arrive};
    return mz_voyage_run(&v, segments, n);
}
