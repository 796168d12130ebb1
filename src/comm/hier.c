#include "comm/hier.h"

#include <string.h>

#include "comm/cursor.h"
#include "comm/mpi_check.h"
#include "comm/sum.h"
#include "core/memory.h"

enum {
    WINDOW = 2,                   /* pieces on the wire while another is worked on inside the node */
    LEAST_PIECE_BYTES = 64 << 10, /* a shorter message would pay more for its latency than for its bytes */
    ALIGNMENT = 64
};

/* A piece of the collective that is on its way. */
typedef struct flight {
    mz_piece piece;
    mz_wire_request **requests; /* [2 * (n_nodes - 1)] */
    int n_requests;
    char *partial; /* [n_nodes][piece_bytes]: this node's sums for each node */
    char *inbox;   /* [n_nodes][piece_bytes]: other nodes' sums for this rank */
} flight;

struct mz_hier {
    const mz_layout *layout;
    mz_node_transport *node; /* NULL: one rank per node */
    mz_wire_transport *wire; /* NULL: one node */
    size_t piece_bytes;      /* of one rank's block */
    flight flights[WINDOW];
    char *staging;              /* of the flights' partials and inboxes */
    mz_wire_request **requests; /* of the flights */
    mz_segment *node_segments;  /* [n_nodes] */
    const void **sources;       /* [n_nodes] */
};

/* ---- life ---- */

static mz_status take_buffers(mz_hier *hier, size_t chunk_bytes)
{
    size_t n_nodes = (size_t)hier->layout->n_nodes;
    size_t piece = chunk_bytes / n_nodes;
    piece = (piece > LEAST_PIECE_BYTES ? piece : LEAST_PIECE_BYTES) / ALIGNMENT * ALIGNMENT;
    hier->piece_bytes = piece;
    hier->staging = mz_alloc_aligned(WINDOW * 2 * n_nodes * piece);
    hier->requests = mz_calloc(WINDOW * 2 * n_nodes, sizeof(mz_wire_request *));
    hier->node_segments = mz_calloc(n_nodes, sizeof *hier->node_segments);
    hier->sources = mz_calloc(n_nodes, sizeof *hier->sources);
    if (!hier->staging || !hier->requests || !hier->node_segments || !hier->sources)
        return MZ_ERR_MEMORY;
    for (size_t i = 0; i < WINDOW; i++) {
        hier->flights[i].requests = hier->requests + i * 2 * n_nodes;
        hier->flights[i].partial = hier->staging + i * 2 * n_nodes * piece;
        hier->flights[i].inbox = hier->flights[i].partial + n_nodes * piece;
    }
    return MZ_OK;
}

static mz_status open_node(mz_hier *hier, MPI_Comm group, size_t chunk_bytes, bool spin)
{
    const mz_layout *layout = hier->layout;
    MPI_Comm ranks = MPI_COMM_NULL;
    mz_status status = mz_mpi_check(MPI_Comm_split(group, layout->node, layout->local, &ranks), "MPI_Comm_split");
    if (status)
        return status;
    const mz_members members = {layout->node_ranks, layout->local, layout->per_node};
    status = mz_shm_create(ranks, &members, chunk_bytes, spin, &hier->node);
    MPI_Comm_free(&ranks);
    return status;
}

mz_status mz_hier_create(MPI_Comm group, const mz_layout *layout, size_t chunk_bytes, bool spin, mz_hier **out)
{
    const mz_members members = {layout->world_ranks, layout->rank, layout->size};
    mz_hier *hier = mz_calloc(1, sizeof *hier);
    mz_status status = hier ? MZ_OK : MZ_ERR_MEMORY;
    if (hier) {
        hier->layout = layout;
        if (layout->n_nodes > 1)
            status = mz_mpi_wire_create(group, &members, WINDOW * 2 * layout->n_nodes, &hier->wire);
        if (!status && layout->n_nodes > 1)
            status = take_buffers(hier, chunk_bytes);
    }
    status = mz_mpi_agree(group, status, "setting up collectives");
    if (!status && layout->per_node > 1)
        status = open_node(hier, group, chunk_bytes, spin);
    if (status) {
        mz_hier_destroy(hier);
        return status;
    }
    *out = hier;
    return MZ_OK;
}

void mz_hier_destroy(mz_hier *hier)
{
    if (!hier)
        return;
    if (hier->node)
        hier->node->ops->destroy(hier->node);
    if (hier->wire)
        hier->wire->ops->destroy(hier->wire);
    mz_free(hier->staging);
    mz_free(hier->requests);
    mz_free(hier->node_segments);
    mz_free(hier->sources);
    mz_free(hier);
}

void mz_hier_begin(mz_hier *hier, const mz_op_info *op)
{
    if (hier->node)
        hier->node->ops->begin(hier->node, op);
}

void mz_hier_abort(mz_hier *hier, mz_status status, const char *message)
{
    if (hier->node)
        hier->node->ops->abort(hier->node, status, message);
    if (hier->wire)
        hier->wire->ops->abort(hier->wire, status, message);
}

void mz_hier_bytes(const mz_hier *hier, double *in_node, double *between_nodes)
{
    *in_node = hier->node ? hier->node->bytes_sent : 0;
    *between_nodes = hier->wire ? hier->wire->bytes_sent : 0;
}

/* ---- pieces on the wire ---- */

static int64_t piece_count(const mz_hier *hier, mz_dtype dtype)
{
    return (int64_t)(hier->piece_bytes / mz_dtype_size(dtype));
}

/* The rank on node m of this rank's rail. */
static int rail_rank(const mz_hier *hier, int m)
{
    return mz_layout_rank(hier->layout, m, hier->layout->local);
}

static mz_status fly(mz_hier *hier, const mz_op_info *op, flight *f, bool is_recv, int peer, const void *data,
                     size_t bytes)
{
    const mz_wire_ops *ops = hier->wire->ops;
    mz_wire_request **request = &f->requests[f->n_requests];
    mz_status status = is_recv ? ops->recv(hier->wire, op, peer, (void *)data, bytes, request)
                               : ops->send(hier->wire, op, peer, data, bytes, request);
    f->n_requests += *request != NULL;
    return status;
}

static mz_status land(mz_hier *hier, const mz_op_info *op, flight *f)
{
    mz_status status = hier->wire->ops->wait(hier->wire, op, f->requests, f->n_requests);
    f->n_requests = 0;
    return status;
}

/* What one collective does with a piece: start it on the wire, and finish it once it has landed. */
typedef struct voyage {
    mz_hier *hier;
    const mz_op_info *op;
    size_t element;
    mz_dtype dtype, recv_dtype;
    float scale;
    bool accumulate;
    int root;
    mz_status (*depart)(const struct voyage *voyage, flight *f);
    mz_status (*arrive)(const struct voyage *voyage, flight *f);
} voyage;

/* Sends all pieces through both stages, the wire up to WINDOW pieces ahead. */
static mz_status travel(const voyage *v, const mz_segment *segments, int n)
{
    mz_hier *hier = v->hier;
    mz_cursor cursor = {segments, n, 0, 0};
    int64_t limit = piece_count(hier, v->dtype), departed = 0, arrived = 0;
    bool more = true;
    mz_status status = MZ_OK;
    for (;;) {
        flight *next = &hier->flights[departed % WINDOW];
        if (more && !status && departed - arrived < WINDOW) {
            more = mz_cursor_next(&cursor, limit, &next->piece);
            if (more) {
                departed++;
                status = v->depart(v, next);
            }
            continue;
        }
        if (arrived == departed)
            return status;
        flight *oldest = &hier->flights[arrived++ % WINDOW];
        mz_status landed = land(hier, v->op, oldest); /* after a failure too: it frees the requests */
        status = status ? status : landed;
        if (!status)
            status = v->arrive(v, oldest);
    }
}

/* ---- all-gather ---- */

static mz_status gather_depart(const voyage *v, flight *f)
{
    mz_hier *hier = v->hier;
    const mz_layout *layout = hier->layout;
    size_t bytes = (size_t)f->piece.count * v->element;
    char *own = mz_piece_recv(&f->piece, layout->rank, v->element);
    const char *given = mz_piece_send(&f->piece, 0, v->element);
    if (own != given)
        memcpy(own, given, bytes);
    mz_status status = MZ_OK;
    for (int k = 1; k < layout->n_nodes && !status; k++) {
        int from = rail_rank(hier, (layout->node + layout->n_nodes - k) % layout->n_nodes);
        int to = rail_rank(hier, (layout->node + k) % layout->n_nodes);
        status = fly(hier, v->op, f, true, from, mz_piece_recv(&f->piece, from, v->element), bytes);
        if (!status)
            status = fly(hier, v->op, f, false, to, own, bytes);
    }
    return status;
}

static mz_status gather_arrive(const voyage *v, flight *f)
{
    mz_hier *hier = v->hier;
    const mz_layout *layout = hier->layout;
    if (!hier->node)
        return MZ_OK;
    for (int m = 0; m < layout->n_nodes; m++)
        hier->node_segments[m] = (mz_segment){.send = mz_piece_recv(&f->piece, rail_rank(hier, m), v->element),
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
    const voyage v = {.hier = hier,
                      .op = op,
                      .element = mz_dtype_size(dtype),
                      .dtype = dtype,
                      .depart = gather_depart,
                      .arrive = gather_arrive};
    return travel(&v, segments, n);
}

/* ---- reduce-scatter ---- */

static mz_status scatter_depart(const voyage *v, flight *f)
{
    mz_hier *hier = v->hier;
    const mz_layout *layout = hier->layout;
    size_t bytes = (size_t)f->piece.count * v->element;
    mz_status status = MZ_OK;
    if (hier->node) {
        for (int m = 0; m < layout->n_nodes; m++)
            hier->node_segments[m] = (mz_segment){.send = mz_piece_send(&f->piece, layout->first[m], v->element),
                                                  .recv = f->partial + (size_t)m * hier->piece_bytes,
                                                  .count = f->piece.count,
                                                  .stride = f->piece.segment->stride * layout->step};
        status = hier->node->ops->reduce_scatter(hier->node, v->op, hier->node_segments, layout->n_nodes, v->dtype,
                                                 v->dtype, v->scale, false, NULL);
    }
    for (int k = 1; k < layout->n_nodes && !status; k++) {
        int m_from = (layout->node + layout->n_nodes - k) % layout->n_nodes,
            m_to = (layout->node + k) % layout->n_nodes;
        int from = rail_rank(hier, m_from), to = rail_rank(hier, m_to);
        const char *out =
            hier->node ? f->partial + (size_t)m_to * hier->piece_bytes : mz_piece_send(&f->piece, to, v->element);
        status = fly(hier, v->op, f, true, from, f->inbox + (size_t)m_from * hier->piece_bytes, bytes);
        if (!status)
            status = fly(hier, v->op, f, false, to, out, bytes);
    }
    return status;
}

static mz_status scatter_arrive(const voyage *v, flight *f)
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
    const voyage v = {.hier = hier,
                      .op = op,
                      .element = mz_dtype_size(dtype),
                      .dtype = dtype,
                      .recv_dtype = recv_dtype,
                      .scale = scale,
                      .accumulate = accumulate,
                      .depart = scatter_depart,
                      .arrive = scatter_arrive};
    return travel(&v, segments, n);
}

/* ---- broadcast ---- */

/* The root's rail carries everything, then each node spreads it. */
static mz_status broadcast_depart(const voyage *v, flight *f)
{
    mz_hier *hier = v->hier;
    const mz_layout *layout = hier->layout;
    size_t bytes = (size_t)f->piece.count * v->element;
    mz_status status = MZ_OK;
    if (layout->rank == v->root) {
        for (int m = 0; m < layout->n_nodes && !status; m++)
            if (m != layout->node)
                status =
                    fly(hier, v->op, f, false, rail_rank(hier, m), mz_piece_send(&f->piece, 0, v->element), bytes);
    } else {
        for (int m = 0; m < layout->n_nodes && !status; m++)
            if (rail_rank(hier, m) == v->root)
                status = fly(hier, v->op, f, true, v->root, mz_piece_recv(&f->piece, 0, v->element), bytes);
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

static mz_status broadcast_arrive(const voyage *v, flight *f)
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
    const voyage v = {.hier = hier,
                      .op = op,
                      .element = mz_dtype_size(dtype),
                      .dtype = dtype,
                      .root = root,
                      .depart = broadcast_depart,
                      .arrive = broadcast_arrive};
    return travel(&v, segments, n);
}

/* ---- barrier ---- */

mz_status mz_hier_barrier(mz_hier *hier, const mz_op_info *op)
{
    mz_status status = hier->node ? hier->node->ops->barrier(hier->node, op) : MZ_OK;
    if (!hier->wire || status)
        return status;
    /* Who hears from a rank of another node knows that all ranks there came to their node's barrier. */
    const mz_layout *layout = hier->layout;
    flight *f = &hier->flights[0];
    for (int m = 0; m < layout->n_nodes && !status; m++) {
        if (m == layout->node)
            continue;
        status = fly(hier, op, f, true, rail_rank(hier, m), f->inbox, 0);
        if (!status)
            status = fly(hier, op, f, false, rail_rank(hier, m), f->partial, 0);
    }
    mz_status landed = land(hier, op, f);
    return status ? status : landed;
}
