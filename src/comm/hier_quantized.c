/* All-gather and reduce-scatter that send fewer bits between nodes. Inside a node they are as in
 * hier_collectives.c. Where nodes have unequally many ranks, each rank counts as a node of its own here. */
#include "comm/sum.h"
#include "comm/voyage.h"
#include "kernels/cpu/cpu.h"

/* Whether there is a part inside the node. */
static bool has_rails(const mz_voyage *v)
{
    return v->hier->layout->per_node > 1;
}

static mz_status pack(const mz_voyage *v, const mz_flight *f, const void *from, char *packed)
{
    const mz_quantize_args args = {f->piece.count, v->bits, from, v->dtype, packed};
    return mz_kernels_cpu.quantize(&args, NULL);
}

static mz_status unpack(const mz_voyage *v, const mz_flight *f, const char *packed, void *to)
{
    const mz_dequantize_args args = {f->piece.count, v->bits, packed, to, v->dtype};
    return mz_kernels_cpu.dequantize(&args, NULL);
}

static mz_status exchange(const mz_voyage *v, mz_leg *leg, int from, int to, const char *out)
{
    mz_hier *hier = v->hier;
    size_t bytes = mz_quantized_bytes(leg->flight->piece.count, v->bits);
    char *in = leg->flight->inbox + (size_t)from * hier->piece_bytes;
    mz_status status = mz_leg_recv(hier, v->op, leg, from, in, bytes);
    return status ? status : mz_leg_send(hier, v->op, leg, to, out, bytes);
}

/* ---- all-gather: this rank's block, packed, lies in `partial` ---- */

/* What others get of this block is what its own node gets. */
static mz_status gather_depart(const mz_voyage *v, mz_flight *f)
{
    mz_status status = pack(v, f, mz_piece_send(&f->piece, 0, v->element), f->partial);
    return status ? status : unpack(v, f, f->partial, mz_piece_recv(&f->piece, v->hier->layout->rank, v->element));
}

static mz_status gather_exchange(const mz_voyage *v, mz_leg *leg, int to, int from)
{
    return exchange(v, leg, from, to, leg->flight->partial);
}

static mz_status gather_arrive(const mz_voyage *v, mz_flight *f)
{
    mz_hier *hier = v->hier;
    mz_status status = MZ_OK;
    for (int m = 0; m < hier->layout->n_nodes && !status; m++)
        if (m != hier->layout->node)
            status = unpack(v, f, f->inbox + (size_t)m * hier->piece_bytes,
                            mz_piece_recv(&f->piece, mz_rail_rank(hier, m), v->element));
    return status || !has_rails(v) ? status : mz_voyage_spread(v, f);
}

mz_status mz_hier_all_gather_quantized(mz_hier *hier, const mz_op_info *op, const mz_segment *segments, int n,
                                       mz_dtype dtype, int bits)
{
    if (!hier->wire || !mz_segments_count(segments, n))
        return mz_hier_all_gather(hier, op, segments, n, dtype);
    const mz_voyage v = {.hier = hier,
                         .op = op,
                         .element = mz_dtype_size(dtype),
                         .dtype = dtype,
                         .bits = bits,
                         .depart = gather_depart,
                         .exchange = gather_exchange,
                         .arrive = gather_arrive};
    return mz_voyage_run(&v, segments, n);
}

/* ---- reduce-scatter: the node's sums for others, packed, and for this rank, as they are, lie in `partial` ---- */

static mz_status scatter_depart(const mz_voyage *v, mz_flight *f)
{
    mz_hier *hier = v->hier;
    const mz_layout *layout = hier->layout;
    mz_status status = has_rails(v) ? mz_voyage_add_up(v, f, hier->sums) : MZ_OK;
    for (int m = 0; m < layout->n_nodes && !status; m++) {
        const char *sums = has_rails(v) ? hier->sums + (size_t)m * hier->piece_bytes
                                        : mz_piece_send(&f->piece, mz_rail_rank(hier, m), v->element);
        if (m != layout->node)
            status = pack(v, f, sums, f->partial + (size_t)m * hier->piece_bytes);
    }
    return status;
}

static mz_status scatter_exchange(const mz_voyage *v, mz_leg *leg, int to, int from)
{
    return exchange(v, leg, from, to, leg->flight->partial + (size_t)to * v->hier->piece_bytes);
}

static mz_status scatter_arrive(const mz_voyage *v, mz_flight *f)
{
    mz_hier *hier = v->hier;
    const mz_layout *layout = hier->layout;
    mz_status status = MZ_OK;
    for (int m = 0; m < layout->n_nodes && !status; m++) {
        char *sums = hier->sums + (size_t)m * hier->piece_bytes;
        hier->sources[m] = sums;
        if (m != layout->node)
            status = unpack(v, f, f->inbox + (size_t)m * hier->piece_bytes, sums);
    }
    if (status)
        return status;
    hier->sources[layout->node] = has_rails(v)
                                      ? (const void *)(f->partial + (size_t)layout->node * hier->piece_bytes)
                                      : mz_piece_send(&f->piece, layout->rank, v->element);
    mz_comm_sum(mz_piece_recv(&f->piece, 0, mz_dtype_size(v->recv_dtype)), v->recv_dtype, hier->sources,
                layout->n_nodes, v->dtype, f->piece.count, has_rails(v) ? 1.0f : v->scale, v->accumulate);
    return MZ_OK;
}

mz_status mz_hier_reduce_scatter_quantized(mz_hier *hier, const mz_op_info *op, const mz_segment *segments, int n,
                                           mz_dtype dtype, mz_dtype recv_dtype, float scale, bool accumulate,
                                           int bits)
{
    if (!hier->wire || !mz_segments_count(segments, n))
        return mz_hier_reduce_scatter(hier, op, segments, n, dtype, recv_dtype, scale, accumulate);
    const mz_voyage v = {.hier = hier,
                         .op = op,
                         .element = mz_dtype_size(dtype),
                         .dtype = dtype,
                         .recv_dtype = recv_dtype,
                         .scale = scale,
                         .accumulate = accumulate,
                         .bits = bits,
                         .depart = scatter_depart,
                         .exchange = scatter_exchange,
                         .arrive = scatter_arrive};
    return mz_voyage_run(&v, segments, n);
}
