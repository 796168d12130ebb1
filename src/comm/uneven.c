#include "comm/uneven.h"

#include <string.h>

#include "comm/sum.h"

/* Parts of `count` elements: part i is the `length` elements from i * step. */
typedef struct parts {
    int64_t step, length;
} parts;

static parts cut(int64_t count, int n_parts)
{
    int64_t step = count / n_parts;
    return (parts){step, count - (n_parts - 1) * step};
}

/* Where this rank's part of a block begins, in bytes, and how long it is. */
static size_t own_part(const mz_voyage *v, const mz_piece *piece, size_t *bytes)
{
    parts p = cut(piece->count, v->uneven->count[v->uneven->node]);
    *bytes = (size_t)p.length * v->element;
    return (size_t)(p.step * v->uneven->local) * v->element;
}

static int rank_at(const mz_uneven *u, int node, int local)
{
    return u->first[node] + local * u->step[node];
}

static bool is_here(const mz_uneven *u, int rank)
{
    int beyond = rank - u->first[u->node];
    return beyond >= 0 && beyond % u->step[u->node] == 0 && beyond / u->step[u->node] < u->count[u->node];
}

/* ---- all-gather ---- */

static mz_status gather_depart(const mz_voyage *v, mz_flight *f)
{
    char *own = mz_piece_recv(&f->piece, v->hier->layout->rank, v->element);
    const char *given = mz_piece_send(&f->piece, 0, v->element);
    if (own != given)
        memcpy(own, given, (size_t)f->piece.count * v->element);
    return MZ_OK;
}

/* Takes its part of each block of `from`, and gives each rank of `to` its part of the own block. */
static mz_status gather_exchange(const mz_voyage *v, mz_leg *leg, int to, int from)
{
    const mz_uneven *u = v->uneven;
    const mz_piece *piece = &leg->flight->piece;
    size_t bytes, at = own_part(v, piece, &bytes);
    parts theirs = cut(piece->count, u->count[to]);
    const char *own = mz_piece_recv(piece, v->hier->layout->rank, v->element);
    mz_status status = MZ_OK;
    for (int l = 0; l < u->count[from] && !status; l++) {
        int rank = rank_at(u, from, l);
        status = mz_leg_recv(v->hier, v->op, leg, rank, mz_piece_recv(piece, rank, v->element) + at, bytes);
    }
    for (int l = 0; l < u->count[to] && !status; l++)
        status = mz_leg_send(v->hier, v->op, leg, rank_at(u, to, l), own + (size_t)(l * theirs.step) * v->element,
                             (size_t)theirs.length * v->element);
    return status;
}

/* Puts the parts of all blocks from elsewhere together, and adds those of this node. */
static mz_status gather_arrive(const mz_voyage *v, mz_flight *f)
{
    mz_hier *hier = v->hier;
    const mz_uneven *u = v->uneven;
    const mz_piece *piece = &f->piece;
    parts p = cut(piece->count, u->count[u->node]);
    size_t bytes, at = own_part(v, piece, &bytes);
    int n = 0;
    if (!hier->node)
        return MZ_OK;
    hier->node_segments[n++] = (mz_segment){.send = mz_piece_recv(piece, hier->layout->rank, v->element),
                                            .recv = mz_piece_recv(piece, u->first[u->node], v->element),
                                            .count = piece->count,
                                            .stride = piece->segment->stride * u->step[u->node]};
    for (int r = 0; r < hier->layout->size; r++)
        if (!is_here(u, r)) {
            char *block = mz_piece_recv(piece, r, v->element);
            hier->node_segments[n++] =
                (mz_segment){.send = block + at, .recv = block, .count = p.length, .stride = p.step};
        }
    return hier->node->ops->all_gather(hier->node, v->op, hier->node_segments, n, v->dtype, NULL);
}

mz_status mz_uneven_all_gather(mz_hier *hier, const mz_op_info *op, const mz_segment *segments, int n,
                               mz_dtype dtype)
{
    const mz_voyage v = {.hier = hier,
                         .uneven = hier->layout->uneven,
                         .op = op,
                         .element = mz_dtype_size(dtype),
                         .dtype = dtype,
                         .depart = gather_depart,
                         .exchange = gather_exchange,
                         .arrive = gather_arrive};
    return mz_voyage_run(&v, segments, n);
}

/* ---- reduce-scatter ---- */

/* flight->partial has room for a piece of each rank's block: this node's scaled sums, of blocks of other nodes this
 * rank's part only. */
static char *partial_of(const mz_voyage *v, const mz_flight *f, int rank)
{
    return f->partial + (size_t)rank * v->hier->piece_bytes;
}

static mz_status scatter_alone(const mz_voyage *v, mz_flight *f)
{
    for (int r = 0; r < v->hier->layout->size; r++) {
        const void *source = mz_piece_send(&f->piece, r, v->element);
        mz_comm_sum(partial_of(v, f, r), v->dtype, &source, 1, v->dtype, f->piece.count, v->scale, false);
    }
    return MZ_OK;
}

static mz_status scatter_depart(const mz_voyage *v, mz_flight *f)
{
    mz_hier *hier = v->hier;
    const mz_uneven *u = v->uneven;
    const mz_piece *piece = &f->piece;
    parts p = cut(piece->count, u->count[u->node]);
    int n = 0;
    if (!hier->node)
        return scatter_alone(v, f);
    hier->node_segments[n++] = (mz_segment){.send = mz_piece_send(piece, u->first[u->node], v->element),
                                            .recv = partial_of(v, f, hier->layout->rank),
                                            .count = piece->count,
                                            .stride = piece->segment->stride * u->step[u->node]};
    for (int r = 0; r < hier->layout->size; r++)
        if (!is_here(u, r))
            hier->node_segments[n++] = (mz_segment){.send = mz_piece_send(piece, r, v->element),
                                                    .recv = partial_of(v, f, r),
                                                    .count = p.length,
                                                    .stride = p.step};
    return hier->node->ops->reduce_scatter(hier->node, v->op, hier->node_segments, n, v->dtype, v->dtype, v->scale,
                                           false, NULL);
}

/* Takes the parts of its own block that the ranks of `from` have summed, and gives those of `to` theirs. */
static mz_status scatter_exchange(const mz_voyage *v, mz_leg *leg, int to, int from)
{
    const mz_uneven *u = v->uneven;
    mz_flight *f = leg->flight;
    parts theirs = cut(f->piece.count, u->count[from]);
    char *inbox = f->inbox + (size_t)from * v->hier->piece_bytes;
    size_t bytes;
    mz_status status = MZ_OK;
    own_part(v, &f->piece, &bytes);
    for (int l = 0; l < u->count[from] && !status; l++)
        status = mz_leg_recv(v->hier, v->op, leg, rank_at(u, from, l),
                             inbox + (size_t)(l * theirs.step) * v->element, (size_t)theirs.length * v->element);
    for (int l = 0; l < u->count[to] && !status; l++) {
        int rank = rank_at(u, to, l);
        status = mz_leg_send(v->hier, v->op, leg, rank, partial_of(v, f, rank), bytes);
    }
    return status;
}

static mz_status scatter_arrive(const mz_voyage *v, mz_flight *f)
{
    mz_hier *hier = v->hier;
    const mz_uneven *u = v->uneven;
    for (int m = 0; m < u->n_nodes; m++)
        hier->sources[m] = f->inbox + (size_t)m * hier->piece_bytes;
    hier->sources[u->node] = partial_of(v, f, hier->layout->rank);
    mz_comm_sum(mz_piece_recv(&f->piece, 0, mz_dtype_size(v->recv_dtype)), v->recv_dtype, hier->sources, u->n_nodes,
                v->dtype, f->piece.count, 1.0f, v->accumulate);
    return MZ_OK;
}

mz_status mz_uneven_reduce_scatter(mz_hier *hier, const mz_op_info *op, const mz_segment *segments, int n,
                                   mz_dtype dtype, mz_dtype recv_dtype, float scale, bool accumulate)
{
    const mz_voyage v = {.hier = hier,
                         .uneven = hier->layout->uneven,
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

/* ---- broadcast ---- */

static int node_of(const mz_uneven *u, int rank)
{
    int node = 0;
    while (node < u->n_nodes - 1 && ((rank - u->first[node]) % u->step[node] != 0 || rank < u->first[node] ||
                                     (rank - u->first[node]) / u->step[node] >= u->count[node]))
        node++;
    return node;
}

/* The root gives each rank of `to` a part, once that rank has said, with an empty message, that it is there. */
static mz_status broadcast_exchange(const mz_voyage *v, mz_leg *leg, int to, int from)
{
    const mz_uneven *u = v->uneven;
    const mz_piece *piece = &leg->flight->piece;
    parts theirs = cut(piece->count, u->count[to]);
    size_t bytes, at = own_part(v, piece, &bytes);
    mz_status status = MZ_OK;
    for (int l = 0; v->hier->layout->rank == v->root && l < u->count[to] && !status; l++) {
        int rank = rank_at(u, to, l);
        status = mz_leg_recv(v->hier, v->op, leg, rank, NULL, 0);
        if (!status)
            status = mz_leg_send(v->hier, v->op, leg, rank,
                                 mz_piece_send(piece, 0, v->element) + (size_t)(l * theirs.step) * v->element,
                                 (size_t)theirs.length * v->element);
    }
    if (node_of(u, v->root) != from)
        return status;
    status = mz_leg_recv(v->hier, v->op, leg, v->root, mz_piece_recv(piece, 0, v->element) + at, bytes);
    return status ? status : mz_leg_send(v->hier, v->op, leg, v->root, NULL, 0);
}

static mz_status broadcast_arrive(const mz_voyage *v, mz_flight *f)
{
    mz_hier *hier = v->hier;
    const mz_uneven *u = v->uneven;
    bool is_root = hier->layout->rank == v->root;
    char *to = mz_piece_recv(&f->piece, 0, v->element);
    const char *from = is_root ? mz_piece_send(&f->piece, 0, v->element) : to;
    size_t bytes, at = own_part(v, &f->piece, &bytes);
    parts p = cut(f->piece.count, u->count[u->node]);
    if (!hier->node) {
        if (is_root && to != from)
            memcpy(to, from, (size_t)f->piece.count * v->element);
        return MZ_OK;
    }
    if (is_here(u, v->root)) {
        const mz_segment whole = {from, to, f->piece.count, f->piece.count};
        int local = (v->root - u->first[u->node]) / u->step[u->node];
        return hier->node->ops->broadcast(hier->node, v->op, &whole, 1, v->dtype, local, NULL);
    }
    const mz_segment part = {.send = to + at, .recv = to, .count = p.length, .stride = p.step};
    return hier->node->ops->all_gather(hier->node, v->op, &part, 1, v->dtype, NULL);
}

mz_status mz_uneven_broadcast(mz_hier *hier, const mz_op_info *op, const mz_segment *segments, int n,
                              mz_dtype dtype, int root)
{
    const mz_voyage v = {.hier = hier,
                         .uneven = hier->layout->uneven,
                         .op = op,
                         .element = mz_dtype_size(dtype),
                         .dtype = dtype,
                         .root = root,
                         .exchange = broadcast_exchange,
                         .arrive = broadcast_arrive};
    return mz_voyage_run(&v, segments, n);
}
