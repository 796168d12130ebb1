/* The collectives, composed from what a node transport and a wire transport can do.
 *
 * With M nodes of L ranks each: an all-gather goes between the nodes along each rail (the ranks of equal local
 * number), then inside the node; a reduce-scatter inside the node, then between the nodes, where the nodes' partial
 * sums travel in the collective's own type and are added in fp32 in the order of nodes. So S * (M - 1) / M bytes
 * enter a node for S bytes of result or input, which is the least possible, and all rails carry equal parts.
 *
 * Where nodes have unequally many ranks, uneven.h says how.
 *
 * All functions block until the data is there, run on one thread, and are called in the same order on all ranks. */
#ifndef MZ_COMM_HIER_H
#define MZ_COMM_HIER_H

#include "comm/layout.h"
#include "comm/transport.h"

typedef struct mz_hier mz_hier;

/* Collective over `group`, whose ranks `layout` describes; both are borrowed. wire: world->wire. spin: as
 * mz_shm_create. */
mz_status mz_hier_create(MPI_Comm group, const mz_layout *layout, const char *wire, size_t chunk_bytes, bool spin,
                         mz_hier **hier);
void mz_hier_destroy(mz_hier *hier);

/* The default of chunk_bytes, and of a rank's block the bytes that then go between nodes at a time. */
size_t mz_hier_chunk_bytes(int per_node);
size_t mz_hier_piece_bytes(int n_nodes, int per_node);

/* This rank is in collective `op`: comes before the calls below, which are all or part of it. */
void mz_hier_begin(mz_hier *hier, const mz_op_info *op);
/* What another rank has told of a failure, or MZ_OK. Any thread's; does not wait. */
mz_status mz_hier_failure(mz_hier *hier);
/* Tells all ranks of the comm that the collective failed here. */
void mz_hier_abort(mz_hier *hier, mz_status status, const char *message);

/* Semantics of comm.h. */
mz_status mz_hier_all_gather(mz_hier *hier, const mz_op_info *op, const mz_segment *segments, int n,
                             mz_dtype dtype);
mz_status mz_hier_reduce_scatter(mz_hier *hier, const mz_op_info *op, const mz_segment *segments, int n,
                                 mz_dtype dtype, mz_dtype recv_dtype, float scale, bool accumulate);
mz_status mz_hier_all_gather_quantized(mz_hier *hier, const mz_op_info *op, const mz_segment *segments, int n,
                                       mz_dtype dtype, int bits);
mz_status mz_hier_reduce_scatter_quantized(mz_hier *hier, const mz_op_info *op, const mz_segment *segments, int n,
                                           mz_dtype dtype, mz_dtype recv_dtype, float scale, bool accumulate,
                                           int bits);
mz_status mz_hier_broadcast(mz_hier *hier, const mz_op_info *op, const mz_segment *segments, int n, mz_dtype dtype,
                            int root);
/* One rank per node. */
mz_status mz_hier_all_to_all(mz_hier *hier, const mz_op_info *op, const mz_segment *segments, int n,
                             mz_dtype dtype);
mz_status mz_hier_barrier(mz_hier *hier, const mz_op_info *op);

/* As mz_comm_describe_rail. */
void mz_hier_describe_rail(mz_hier *hier, char *text, size_t bytes);

/* Bytes that this rank sent so far. */
void mz_hier_bytes(const mz_hier *hier, double *in_node, double *between_nodes);

#endif
