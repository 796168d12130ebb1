/* Reading another rank's memory without a copy on its side: process_vm_readv, which the kernel grants between
 * processes of one user unless a security module or a container's filter says no. So it is tried at start, and the
 * staging slots stay for where it is refused. */
#ifndef MZ_COMM_SHM_DIRECT_H
#define MZ_COMM_SHM_DIRECT_H

#include <mpi.h>

#include "comm/shm_sync.h"

/* Collective over `group`, the ranks of `sync`. *possible: every rank can read every other's memory. */
mz_status mz_shm_direct_probe(MPI_Comm group, mz_shm_sync *sync, bool *possible);

/* Copies from the memory of a member's process. MZ_ERR_COMM names it. */
mz_status mz_shm_direct_read(const mz_shm_sync *sync, int member, const void *from, void *to, size_t bytes);

#endif
