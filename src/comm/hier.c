#include <config.h>

#include "comm/hier.h"

#include <stdio.h>
#include <string.h>

#include "comm/mpi_check.h"
#include "comm/voyage.h"
#include "core/memory.h"

enum {
    LEAST_PIECE_BYTES = 64 << 10, /* a shorter message would pay more for its latency than for its bytes */
    ALIGNMENT = 1024              /* a block of numbers of few bits in any type */
};

/* A slot that holds a good piece of a layer, as long as a node's staging stays small beside its caches. */
size_t mz_hier_chunk_bytes(int per_node)
{
    const size_t most = 1 << 20, least = 64 << 10, staging = 32 << 20;
    size_t chunk = staging / (3 * (size_t)per_node);
    return chunk > most ? most : chunk < least ? least : chunk;
}

static size_t piece_of(size_t chunk_bytes, int n_nodes)
{
    size_t piece = chunk_bytes / (size_t)n_nodes;
    return (piece > LEAST_PIECE_BYTES ? piece : LEAST_PIECE_BYTES) / ALIGNMENT * ALIGNMENT;
}

size_t mz_hier_piece_bytes(int n_nodes, int per_node)
{
    return piece_of(mz_hier_chunk_bytes(per_node), n_nodes);
}

static mz_status take_buffers(mz_hier *hier, size_t chunk_bytes)
{
    const mz_wire_ops *ops = hier->wire->ops;
    size_t n_nodes = (size_t)hier->layout->n_nodes;
    size_t piece = piece_of(chunk_bytes, hier->layout->n_nodes);
    hier->piece_bytes = piece;
    hier->staging = mz_alloc_aligned(MZ_VOYAGE_WINDOW * 2 * n_nodes * piece);
    hier->node_segments = mz_calloc(n_nodes, sizeof *hier->node_segments);
    hier->sources = mz_calloc(n_nodes, sizeof *hier->sources);
    hier->sums = mz_alloc_aligned(n_nodes * piece);
    if (!hier->staging || !hier->sums || !hier->node_segments || !hier->sources)
        return MZ_ERR_MEMORY;
    for (size_t i = 0; i < MZ_VOYAGE_WINDOW; i++) {
        hier->flights[i].partial = hier->staging + i * 2 * n_nodes * piece;
        hier->flights[i].inbox = hier->flights[i].partial + n_nodes * piece;
    }
    const mz_wire_memory memory = {.memory = hier->staging, .bytes = MZ_VOYAGE_WINDOW * 2 * n_nodes * piece};
    return ops->pin ? ops->pin(hier->wire, &memory) : MZ_OK;
}

mz_status mz_hier_open_wire(mz_hier *hier, MPI_Comm group, const char *wire, bool spin)
{
    const mz_layout *layout = hier->layout;
    const mz_members members = {layout->world_ranks, layout->rank, layout->size, layout->board};
    int max_requests = 2 * MZ_LEG_WINDOW * (layout->uneven ? layout->uneven->most : 1);
#ifdef HAVE_UCX
    if (strcmp(wire, "ucx") == 0) {
        int *rail = mz_alloc((size_t)layout->n_nodes * sizeof *rail);
        mz_status status = mz_mpi_agree(group, rail ? MZ_OK : MZ_ERR_MEMORY, "setting up collectives");
        for (int m = 0; m < layout->n_nodes && !status; m++)
            rail[m] = mz_rail_rank(hier, m);
        if (!status)
            status = mz_ucx_wire_create(group, &members, rail, layout->n_nodes, max_requests, spin, &hier->wire);
        mz_free(rail);
        return status;
    }
#endif
    (void)wire;
    (void)spin;
    return mz_mpi_wire_create(group, &members, max_requests, &hier->wire);
}

static mz_status open_node(mz_hier *hier, MPI_Comm group, size_t chunk_bytes, bool spin)
{
    const mz_layout *layout = hier->layout;
    const mz_uneven *u = layout->uneven;
    const mz_members members = {u ? u->node_ranks : layout->node_ranks, u ? u->local : layout->local,
                                u ? u->count[u->node] : layout->per_node, layout->board};
    MPI_Comm ranks = MPI_COMM_NULL;
    mz_status status =
        mz_mpi_check(MPI_Comm_split(group, u ? u->node : layout->node, members.rank, &ranks), "MPI_Comm_split");
    if (status)
        return status;
    if (members.size > 1)
        status = mz_shm_create(ranks, &members, chunk_bytes, spin, &hier->node);
    MPI_Comm_free(&ranks);
    return status;
}

mz_status mz_hier_create(MPI_Comm group, const mz_layout *layout, const char *wire, size_t chunk_bytes, bool spin,
                         mz_hier **out)
{
    mz_hier *hier = mz_calloc(1, sizeof *hier);
    mz_status status = mz_mpi_agree(group, hier ? MZ_OK : MZ_ERR_MEMORY, "setting up collectives");
    if (!status) {
        hier->layout = layout;
        if (layout->n_nodes > 1)
            status = mz_hier_open_wire(hier, group, wire, spin);
        if (!status && layout->n_nodes > 1)
            status = take_buffers(hier, chunk_bytes);
        status = mz_mpi_agree(group, status, "setting up collectives");
    }
    if (!status && (layout->per_node > 1 || layout->uneven))
        status = open_node(hier, group, chunk_bytes, spin);
    if (!status && hier->wire)
        hier->wire->node = hier->node;
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
    if (hier->wire)
        hier->wire->node = NULL;
    if (hier->node)
        hier->node->ops->destroy(hier->node);
    if (hier->wire)
        hier->wire->ops->destroy(hier->wire);
    mz_free(hier->staging);
    mz_free(hier->sums);
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

mz_status mz_hier_failure(mz_hier *hier)
{
    mz_status status = hier->node ? hier->node->ops->failure(hier->node) : MZ_OK;
    return status || !hier->wire ? status : hier->wire->ops->failure(hier->wire);
}

void mz_hier_describe_rail(mz_hier *hier, char *text, size_t bytes)
{
    if (hier->wire && hier->wire->ops->describe)
        hier->wire->ops->describe(hier->wire, text, bytes);
    else
        snprintf(text, bytes, "%s", hier->wire ? hier->wire->ops->name : "");
}

void mz_hier_bytes(const mz_hier *hier, double *in_node, double *between_nodes)
{
    *in_node = hier->node ? hier->node->bytes_sent : 0;
    *between_nodes = hier->wire ? hier->wire->bytes_sent : 0;
}

mz_status mz_hier_barrier(mz_hier *hier, const mz_op_info *op)
{
    mz_status status = hier->node ? hier->node->ops->barrier(hier->node, op) : MZ_OK;
    if (!hier->wire || status)
        return status;
    /* Who hears from a rank of another node knows that all ranks there came to their node's barrier. */
    int n_nodes = hier->layout->n_nodes, node = hier->layout->node;
    for (int k = 1; k < n_nodes + MZ_LEG_WINDOW; k++) {
        mz_leg *leg = &hier->legs[k % MZ_LEG_WINDOW];
        mz_status landed = mz_leg_land(hier, op, leg);
        status = status ? status : landed;
        if (k >= n_nodes || status)
            continue;
        status = mz_leg_recv(hier, op, leg, (node + n_nodes - k) % n_nodes, NULL, 0);
        if (!status)
            status = mz_leg_send(hier, op, leg, (node + k) % n_nodes, NULL, 0);
    }
    return status;
}
