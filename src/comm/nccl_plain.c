#include "comm/nccl_plain.h"

/* Some of its declarations say () for (void). */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wstrict-prototypes"
#include <nccl.h>
#pragma GCC diagnostic pop

#include "comm/mpi_check.h"
#include "core/error.h"
#include "core/memory.h"
#include "device/cuda/stream.h"

struct mz_nccl_plain {
    ncclComm_t comm;
};

static mz_status check(ncclResult_t result, const char *call)
{
    return result == ncclSuccess ? MZ_OK : mz_fail(MZ_ERR_COMM, "%s: %s", call, ncclGetErrorString(result));
}

mz_status mz_nccl_plain_create(MPI_Comm group, mz_device *device, mz_nccl_plain **out)
{
    ncclUniqueId id;
    int rank = 0, size = 0;
    MPI_Comm_rank(group, &rank);
    MPI_Comm_size(group, &size);
    mz_nccl_plain *plain = mz_calloc(1, sizeof *plain);
    mz_status status = plain ? mz_cuda_check(cudaSetDevice(device->ordinal), "cudaSetDevice") : MZ_ERR_MEMORY;
    if (!status && rank == 0)
        status = check(ncclGetUniqueId(&id), "ncclGetUniqueId");
    status = mz_mpi_agree(group, status, "opening NCCL");
    if (!status)
        status = mz_mpi_check(MPI_Bcast(&id, sizeof id, MPI_BYTE, 0, group), "MPI_Bcast");
    if (!status)
        status = check(ncclCommInitRank(&plain->comm, size, id, rank), "ncclCommInitRank");
    if (status) {
        mz_free(plain);
        return status;
    }
    *out = plain;
    return MZ_OK;
}

void mz_nccl_plain_destroy(mz_nccl_plain *plain)
{
    if (plain)
        ncclCommDestroy(plain->comm);
    mz_free(plain);
}

mz_status mz_nccl_plain_run(mz_nccl_plain *plain, mz_collective_kind kind, const void *in, void *out, int64_t count,
                            mz_stream *stream)
{
    const size_t n = (size_t)count;
    const cudaStream_t on = stream->stream;
    switch (kind) {
    case MZ_ALL_GATHER:
        return check(ncclAllGather(in, out, n, ncclFloat32, plain->comm, on), "ncclAllGather");
    case MZ_REDUCE_SCATTER:
        return check(ncclReduceScatter(in, out, n, ncclFloat32, ncclSum, plain->comm, on), "ncclReduceScatter");
    case MZ_ALL_REDUCE:
        return check(ncclAllReduce(in, out, n, ncclFloat32, ncclSum, plain->comm, on), "ncclAllReduce");
    case MZ_BROADCAST:
        return check(ncclBroadcast(in, out, n, ncclFloat32, 0, plain->comm, on), "ncclBroadcast");
    default:
        return mz_fail(MZ_ERR_INTERNAL, "NCCL alone: collective of kind %d", (int)kind);
    }
}
