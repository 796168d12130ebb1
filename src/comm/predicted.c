#include "comm/predicted.h"

#include <math.h>

#include "comm/cursor.h"
#include "comm/voyage.h"
#include "core/memory.h"
#include "kernels/kernels.h"

/* What host values take in an all-reduce of them: each rank's are gathered. */
static const double host_bytes = 8 * MZ_HOST_VALUES_MAX;

static double over(double bytes, double bandwidth)
{
    return bandwidth > 0 ? bytes / bandwidth : 0;
}

/* `whole`: what is gathered or reduced inside a node, of which this rank's block is one of per_node. */
static double inner_seconds(const mz_links *links, int per_node, double whole)
{
    return per_node > 1 ? links->inner_latency + over(whole * (per_node - 1) / per_node, links->inner_bandwidth)
                        : 0;
}

/* legs of `bytes` each, one after the other, on a link shared by per_node rails. */
static double outer_seconds(const mz_links *links, int per_node, double legs, double bytes)
{
    double each = over(bytes * per_node, links->outer_bandwidth), floor = links->outer_latency / MZ_LEG_WINDOW;
    return legs < 1 ? 0 : links->outer_latency + each + (legs - 1) * (each > floor ? each : floor);
}

/* Stages of which one works on a piece while the other works on the next. */
static double pipelined(double inner, double outer, double n_pieces)
{
    return inner > outer ? inner + outer / n_pieces : outer + inner / n_pieces;
}

/* An all-gather or a reduce-scatter. */
static double blocks_seconds(const mz_links *links, int n_nodes, int per_node, double whole)
{
    if (n_nodes == 1)
        return inner_seconds(links, per_node, whole);
    double block = whole / ((double)n_nodes * per_node), piece = (double)mz_hier_piece_bytes(n_nodes, per_node);
    double n_pieces = ceil(block / piece) > 1 ? ceil(block / piece) : 1;
    double outer = outer_seconds(links, per_node, n_pieces * (n_nodes - 1), block / n_pieces);
    return pipelined(n_pieces * inner_seconds(links, per_node, whole / n_pieces), outer, n_pieces);
}

static double broadcast_seconds(const mz_links *links, int n_nodes, int per_node, double whole)
{
    double inner = per_node > 1 ? links->inner_latency + over(whole, links->inner_bandwidth) : 0;
    if (n_nodes == 1)
        return inner;
    double piece = (double)mz_hier_piece_bytes(n_nodes, per_node);
    double n_pieces = ceil(whole / piece) > 1 ? ceil(whole / piece) : 1;
    return pipelined(inner, outer_seconds(links, 1, n_pieces * (n_nodes - 1), whole / n_pieces), n_pieces);
}

double mz_links_seconds(const mz_links *links, mz_collective_kind kind, int n_nodes, int per_node, double bytes)
{
    switch (kind) {
    case MZ_ALL_GATHER:
    case MZ_REDUCE_SCATTER:
        return blocks_seconds(links, n_nodes, per_node, bytes);
    case MZ_ALL_REDUCE:
        return 2 * blocks_seconds(links, n_nodes, per_node, bytes);
    case MZ_BROADCAST:
        return broadcast_seconds(links, n_nodes, per_node, bytes);
    case MZ_ALL_TO_ALL:
        return outer_seconds(links, 1, n_nodes - 1, bytes / n_nodes);
    case MZ_HOST_REDUCE:
        return blocks_seconds(links, n_nodes, per_node, host_bytes * n_nodes * per_node);
    default:
        return blocks_seconds(links, n_nodes, per_node, 0);
    }
}

void mz_links_bytes(mz_collective_kind kind, int n_nodes, int per_node, double bytes, double *in_node,
                    double *between_nodes)
{
    double size = (double)n_nodes * per_node, passes = kind == MZ_ALL_REDUCE ? 2 : 1;
    *in_node = passes * bytes / size * n_nodes * (per_node - 1);
    *between_nodes = passes * bytes / size * (n_nodes - 1);
    if (kind == MZ_BROADCAST) { /* the root's node sends all; on average over all ranks */
        *in_node = bytes * (per_node - 1) / per_node;
        *between_nodes = bytes * (n_nodes - 1) / size;
    }
}

/* Bytes of the whole: what an all-gather's result or a reduce-scatter's input takes. */
static double whole_bytes(const mz_comm *comm, const mz_collective *what)
{
    bool has_blocks = what->kind == MZ_ALL_GATHER || what->kind == MZ_REDUCE_SCATTER || what->kind == MZ_ALL_TO_ALL;
    double count = (double)mz_segments_count(what->segments, what->n_segments);
    return count * (double)mz_dtype_size(what->dtype) * (has_blocks ? comm->layout.size : 1);
}

/* Which part of a collective's bytes goes between nodes where numbers of few bits stand for its own. */
static double packed_share(const mz_collective *what)
{
    double plain = (double)mz_dtype_size(what->dtype) * MZ_QUANT_BLOCK;
    return what->bits ? (double)mz_quantized_bytes(MZ_QUANT_BLOCK, what->bits) / plain : 1;
}

mz_status mz_comm_predict(mz_comm *comm, const mz_collective *what, mz_stream *stream)
{
    const mz_layout *layout = &comm->layout;
    bool is_host = what->kind == MZ_HOST_REDUCE || what->kind == MZ_BARRIER;
    double bytes = is_host ? 0 : whole_bytes(comm, what), in_node, between_nodes;
    double share = packed_share(what);
    mz_links links = *comm->predicted;
    links.outer_bandwidth /= share;
    double seconds = mz_links_seconds(&links, what->kind, layout->n_nodes, layout->per_node, bytes);
    mz_links_bytes(what->kind, layout->n_nodes, layout->per_node, bytes, &in_node, &between_nodes);
    between_nodes *= share;
    comm->stats.n_calls++;
    comm->stats.bytes_in_node += in_node;
    comm->stats.bytes_between_nodes += between_nodes;
    comm->stats.seconds += seconds;
    return mz_device_meta_pass(comm->device, is_host ? NULL : stream, seconds);
}

mz_status mz_comm_create_predicted(mz_device *meta, int n_nodes, int per_node, const mz_links *links, mz_comm **out)
{
    mz_comm *comm = mz_calloc(1, sizeof *comm);
    mz_links *kept = mz_alloc(sizeof *kept);
    if (!comm || !kept) {
        mz_free(comm);
        mz_free(kept);
        return MZ_ERR_MEMORY;
    }
    *kept = *links;
    comm->device = meta;
    comm->group = MPI_COMM_NULL;
    comm->predicted = kept;
    comm->layout = (mz_layout){.size = n_nodes * per_node, .n_nodes = n_nodes, .per_node = per_node, .step = 1};
    pthread_cond_init(&comm->turn_changed, NULL);
    pthread_mutex_init(&comm->lock, NULL);
    *out = comm;
    return MZ_OK;
}

mz_status mz_comm_split_predicted(const mz_comm *comm, int count, int step, mz_comm **group)
{
    int per_node = (comm->layout.per_node + step - 1) / step; /* of the group's ranks on a node */
    if (count < 1)
        return MZ_OK;
    if (per_node > count)
        per_node = count;
    if (count % per_node) /* each rank counts as a node */
        per_node = 1;
    mz_links links = *comm->predicted;
    if (count > per_node)
        links.outer_bandwidth *= (double)per_node / comm->layout.per_node;
    return mz_comm_create_predicted(comm->device, count / per_node, per_node, &links, group);
}
