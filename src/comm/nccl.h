/* NCCL among the GPUs of one node. In builds without it (nccl_none.c) creating it says so. */
#ifndef MZ_COMM_NCCL_H
#define MZ_COMM_NCCL_H

#include "comm/shm_sync.h"

/* Collective over `group`, the ranks of sync->members in their order, which must outlive the transport, as must the
 * device. Connects all of them, so that no collective has to. `sync` tells whether a rank ends meanwhile.
 *
 * Launches return at once; what they wait for on the GPU, and errors found later, are for watch.h to see. */
mz_status mz_nccl_create(MPI_Comm group, const mz_shm_sync *sync, mz_device *device, double timeout_seconds,
                         mz_node_transport **node);

/* From any thread: MZ_OK, or MZ_ERR_COMM or MZ_ERR_DEVICE where NCCL or the GPU has failed. Binds the calling
 * thread to the GPU. */
mz_status mz_nccl_check(mz_node_transport *node);

/* "2.28.9" */
void mz_nccl_version(char *text, size_t bytes);

#endif
