/* Private to nccl.c (beginning, end and failures) and nccl_collectives.c (launches). */
#ifndef MZ_COMM_NCCL_IMPL_H
#define MZ_COMM_NCCL_IMPL_H

/* Some of its declarations say () for (void). */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wstrict-prototypes"
#include <nccl.h>
#pragma GCC diagnostic pop
#include <cuda_runtime_api.h>
#include <pthread.h>

#include "comm/nccl.h"
#include "device/device.h"

enum { MZ_NCCL_SCALES = 8 };

/* A sum that multiplies each rank's values first. */
typedef struct mz_nccl_sum {
    ncclDataType_t type;
    float scale;
    ncclRedOp_t op;
} mz_nccl_sum;

typedef struct mz_nccl_node {
    mz_node_transport base;
    const mz_shm_sync *sync;
    mz_device *device;
    char place[160]; /* "rank 1 on NVIDIA H200 (GPU 1)" */
    ncclUniqueId id;
    ncclComm_t comm;
    cudaStream_t stream; /* of set-up and barriers; it tells whether the GPU has failed */
    float *scratch;      /* device memory, [size] */
    mz_nccl_sum sums[MZ_NCCL_SCALES];
    int n_sums;
    pthread_mutex_t launching;
    bool aborted; /* read and written atomically */
} mz_nccl_node;

static inline mz_nccl_node *mz_nccl_of(mz_node_transport *node)
{
    return (mz_nccl_node *)node;
}

/* MZ_OK, or MZ_ERR_COMM (MZ_ERR_DEVICE) with the rank, its GPU, the call and the library's text. */
mz_status mz_nccl_checked(mz_nccl_node *n, ncclResult_t result, const char *call);
mz_status mz_nccl_cuda_checked(mz_nccl_node *n, cudaError_t error, const char *call);

/* nccl_collectives.c: the operations of mz_node_ops. */
mz_status mz_nccl_all_gather(mz_node_transport *node, const mz_op_info *op, const mz_segment *segments, int n,
                             mz_dtype dtype, mz_stream *stream);
mz_status mz_nccl_reduce_scatter(mz_node_transport *node, const mz_op_info *op, const mz_segment *segments, int n,
                                 mz_dtype dtype, mz_dtype recv_dtype, float scale, bool accumulate,
                                 mz_stream *stream);
mz_status mz_nccl_all_reduce(mz_node_transport *node, const mz_op_info *op, const mz_segment *segments, int n,
                             mz_dtype dtype, float scale, mz_stream *stream);
mz_status mz_nccl_broadcast(mz_node_transport *node, const mz_op_info *op, const mz_segment *segments, int n,
                            mz_dtype dtype, int root, mz_stream *stream);
mz_status mz_nccl_barrier(mz_node_transport *node, const mz_op_info *op);

#endif
