/* All-gathers as copies: the GPUs of a node read each other's memory. NCCL's kernels wait on multiprocessors for what
 * other GPUs send, and a matrix product that starts meanwhile, made for all of them, takes up to twice as long. In
 * builds without NCCL (peers_none.c) nothing is shared. */
#ifndef MZ_COMM_PEERS_H
#define MZ_COMM_PEERS_H

#include "comm/shm_segment.h"
#include "comm/transport.h"

typedef struct mz_peers mz_peers;

/* Collective over `group`, the members in their order, all on one node; these and the device are borrowed. *peers
 * is NULL, with MZ_OK, where the ranks cannot wait for each other on the GPU; the log says why. */
mz_status mz_peers_create(MPI_Comm group, const mz_members *members, mz_device *device, mz_peers **peers);
void mz_peers_destroy(mz_peers *peers);

/* See mz_comm_share and mz_comm_forget. peers may be NULL. */
mz_status mz_peers_share(mz_peers *peers, void *memory, size_t bytes);
void mz_peers_forget(mz_peers *peers, const void *memory);

/* Whether every segment's source lies in shared memory; the same on all ranks. peers may be NULL. */
bool mz_peers_can_gather(const mz_peers *peers, const mz_segment *segments, int n, mz_dtype dtype);
/* Stream-ordered; waits for nobody. */
mz_status mz_peers_all_gather(mz_peers *peers, const mz_segment *segments, int n, mz_dtype dtype,
                              mz_stream *stream);
/* Stream-ordered: the stream goes on when those of all ranks have got here. */
mz_status mz_peers_meet(mz_peers *peers, mz_stream *stream);

/* From any thread: lets go what waits on this GPU. */
void mz_peers_abort(mz_peers *peers);

#endif
