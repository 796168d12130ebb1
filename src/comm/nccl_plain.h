/* NCCL called directly, as a program without mpizero would: what the collectives are measured against. In builds
 * with NCCL only. */
#ifndef MZ_COMM_NCCL_PLAIN_H
#define MZ_COMM_NCCL_PLAIN_H

#include <mpi.h>

#include "comm/issue.h"

typedef struct mz_nccl_plain mz_nccl_plain;

/* Collective over `group`, each of whose ranks has a GPU of its own. Waits for the others without limit. */
mz_status mz_nccl_plain_create(MPI_Comm group, mz_device *device, mz_nccl_plain **plain);
void mz_nccl_plain_destroy(mz_nccl_plain *plain);

/* One collective of fp32 values on the stream, of the kinds up to MZ_BROADCAST. count as in mz_segment; blocks lie
 * one after the other. */
mz_status mz_nccl_plain_run(mz_nccl_plain *plain, mz_collective_kind kind, const void *in, void *out, int64_t count,
                            mz_stream *stream);

#endif
