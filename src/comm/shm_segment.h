/* A piece of POSIX shared memory among the ranks of one node. Its name is gone as soon as all have opened it,
 * so that nothing stays in /dev/shm, however the job ends. */
#ifndef MZ_COMM_SHM_SEGMENT_H
#define MZ_COMM_SHM_SEGMENT_H

#include <mpi.h>
#include <stdbool.h>
#include <stddef.h>

#include "mpizero/status.h"

typedef struct mz_shm_segment {
    unsigned char *memory; /* zeroed: head_bytes for all, then part_bytes of each rank */
    size_t bytes;
    int fd, rank;
} mz_shm_segment;

/* Collective over `group`. Sizes are multiples of the page size. Each rank takes the pages of its own part, so that
 * they lie near it; all pages are taken here, so that nothing fails later. MZ_ERR_MEMORY says how much
 * /dev/shm lacks. *segment is to be closed also after an error. */
mz_status mz_shm_segment_open(MPI_Comm group, size_t head_bytes, size_t part_bytes, mz_shm_segment *segment);
void mz_shm_segment_close(mz_shm_segment *segment);

/* Does the process of that rank still live? It holds a lock in the segment's file as long as it does, which works
 * across process-ID namespaces and for processes that nobody has waited for. */
bool mz_shm_segment_alive(const mz_shm_segment *segment, int rank);

#endif
