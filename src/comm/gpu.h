/* Collectives between GPUs: inside a node launched on the caller's stream by NCCL, with no host thread taking part;
 * between nodes by relay.h, also in order of the stream. Both are looked after by watch.h. What issue.h is for host
 * memory. */
#ifndef MZ_COMM_GPU_H
#define MZ_COMM_GPU_H

#include "comm/issue.h"

typedef struct mz_gpu_comm mz_gpu_comm;

/* Collective over comm->group: all ranks compute on CPUs, or each on a GPU of its own. *gpus: the latter. */
mz_status mz_gpu_check(const mz_comm *comm, bool *gpus);

/* Collective over comm->group, also when it has one rank. Needs comm->hier where there are more: a failure here
 * ends what waits there. piece_bytes, spin: as mz_relay_create. */
mz_status mz_gpu_comm_create(mz_comm *comm, size_t piece_bytes, bool spin, mz_gpu_comm **gpu);
void mz_gpu_comm_destroy(mz_gpu_comm *gpu);

/* Launches a collective on device memory; stream NULL: and waits for it. */
mz_status mz_gpu_comm_issue(mz_gpu_comm *gpu, const mz_collective *what, mz_stream *stream);

/* The ranks of this node, this one too, find this failure. Any thread's. */
void mz_gpu_comm_tell(mz_gpu_comm *gpu, mz_status status, const char *message);

/* What ended the comm's collectives on the GPUs, or MZ_OK. */
mz_status mz_gpu_comm_status(const mz_gpu_comm *gpu);

/* As mz_comm_share, mz_comm_publish and mz_comm_forget. */
mz_status mz_gpu_comm_share(mz_gpu_comm *gpu, void *memory, size_t bytes);
mz_status mz_gpu_comm_publish(mz_gpu_comm *gpu, const char *label, mz_stream *stream);
void mz_gpu_comm_forget(mz_gpu_comm *gpu, const void *memory);

void mz_gpu_comm_stats(mz_gpu_comm *gpu, mz_comm_stats *stats);

#endif
