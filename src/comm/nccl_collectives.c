/* The collectives of a node's GPUs as NCCL's. */
#include <math.h>

#include "comm/nccl_impl.h"
#include "core/error.h"
#include "core/half.h"
#include "device/cuda/stream.h"
#include "kernels/kernels.h"

static ncclDataType_t type_of(mz_dtype dtype)
{
    static const ncclDataType_t types[MZ_N_DTYPES] = {
        [MZ_F32] = ncclFloat32, [MZ_F16] = ncclFloat16, [MZ_BF16] = ncclBfloat16, [MZ_F64] = ncclFloat64,
        [MZ_I32] = ncclInt32,   [MZ_I64] = ncclInt64,   [MZ_U8] = ncclUint8,
    };
    return types[dtype];
}

static mz_status begin_group(mz_nccl_node *n)
{
    pthread_mutex_lock(&n->launching);
    mz_status status = __atomic_load_n(&n->aborted, __ATOMIC_ACQUIRE)
                           ? mz_fail(MZ_ERR_COMM, "%s: the communicator has been aborted", n->place)
                           : mz_nccl_checked(n, ncclGroupStart(), "ncclGroupStart");
    if (status)
        pthread_mutex_unlock(&n->launching);
    return status;
}

/* `result` is that of the calls in the group, `call` the name of one of them. */
static mz_status end_group(mz_nccl_node *n, ncclResult_t result, const char *call)
{
    ncclResult_t end = ncclGroupEnd();
    mz_status status = mz_nccl_checked(n, result != ncclSuccess ? result : end, call);
    pthread_mutex_unlock(&n->launching);
    return status;
}

static char *block(const void *base, int64_t stride, int rank, mz_dtype dtype)
{
    return (char *)base + (size_t)(stride * rank) * mz_dtype_size(dtype);
}

mz_status mz_nccl_all_gather(mz_node_transport *node, const mz_op_info *op, const mz_segment *segments, int n,
                             mz_dtype dtype, mz_stream *stream)
{
    mz_nccl_node *self = mz_nccl_of(node);
    ncclResult_t result = ncclSuccess;
    (void)op;
    mz_status status = begin_group(self);
    if (status)
        return status;
    for (int i = 0; i < n && result == ncclSuccess; i++) {
        const mz_segment *s = &segments[i];
        size_t count = (size_t)s->count;
        node->bytes_sent += (double)count * (double)mz_dtype_size(dtype) * (node->size - 1);
        if (s->stride == s->count)
            result = ncclAllGather(s->send, s->recv, count, type_of(dtype), self->comm, stream->stream);
        for (int r = 0; r < node->size && s->stride != s->count && result == ncclSuccess; r++)
            result = ncclBroadcast(s->send, block(s->recv, s->stride, r, dtype), count, type_of(dtype), r,
                                   self->comm, stream->stream);
    }
    return end_group(self, result, "ncclAllGather");
}

static bool is_power_of_two(float scale)
{
    int exponent;
    return scale > 0 && frexpf(scale, &exponent) == 0.5f;
}

/* The reduction that multiplies by `scale` on the way, when that rounds nothing; else plain sums, and *rest is what
 * is left to multiply by. */
static ncclResult_t sum_for(mz_nccl_node *n, mz_dtype dtype, float scale, ncclRedOp_t *op, float *rest)
{
    *op = ncclSum;
    *rest = scale;
    if (scale == 1 || !is_power_of_two(scale))
        return ncclSuccess;
    for (int i = 0; i < n->n_sums; i++)
        if (n->sums[i].type == type_of(dtype) && n->sums[i].scale == scale) {
            *op = n->sums[i].op;
            *rest = 1;
            return ncclSuccess;
        }
    if (n->n_sums == MZ_NCCL_SCALES)
        return ncclSuccess;
    float value;
    mz_store_f32(&value, dtype, 0, scale);
    mz_nccl_sum *sum = &n->sums[n->n_sums];
    *sum = (mz_nccl_sum){.type = type_of(dtype), .scale = scale};
    ncclResult_t result = ncclRedOpCreatePreMulSum(&sum->op, &value, sum->type, ncclScalarHostImmediate, n->comm);
    if (result == ncclSuccess) {
        n->n_sums++;
        *op = sum->op;
        *rest = 1;
    }
    return result;
}

/* dst (+)= scale * src, where the reduction left something to do. */
static mz_status finish(mz_nccl_node *n, const void *src, mz_dtype dtype, void *dst, mz_dtype dst_dtype,
                        int64_t count, float scale, bool accumulate, mz_stream *stream)
{
    const mz_cast_args args = {.n = count,
                               .src = src,
                               .src_dtype = dtype,
                               .dst = dst,
                               .dst_dtype = dst_dtype,
                               .scale = scale,
                               .accumulate = accumulate};
    if (src == dst && scale == 1)
        return MZ_OK;
    return n->device->ops->kernels->cast(&args, stream);
}

/* Where the types differ or something is added, the sums arrive in the rank's own block of what it sends. */
mz_status mz_nccl_reduce_scatter(mz_node_transport *node, const mz_op_info *op, const mz_segment *segments, int n,
                                 mz_dtype dtype, mz_dtype recv_dtype, float scale, bool accumulate,
                                 mz_stream *stream)
{
    mz_nccl_node *self = mz_nccl_of(node);
    bool direct = dtype == recv_dtype && !accumulate;
    ncclRedOp_t sum;
    float rest;
    (void)op;
    mz_status status = begin_group(self);
    if (status)
        return status;
    ncclResult_t result = sum_for(self, dtype, scale, &sum, &rest);
    for (int i = 0; i < n && result == ncclSuccess; i++) {
        const mz_segment *s = &segments[i];
        size_t count = (size_t)s->count;
        void *to = direct ? s->recv : block(s->send, s->stride, node->rank, dtype);
        node->bytes_sent += (double)count * (double)mz_dtype_size(dtype) * (node->size - 1);
        if (s->stride == s->count)
            result = ncclReduceScatter(s->send, to, count, type_of(dtype), sum, self->comm, stream->stream);
        for (int r = 0; r < node->size && s->stride != s->count && result == ncclSuccess; r++)
            result = ncclReduce(block(s->send, s->stride, r, dtype), to, count, type_of(dtype), sum, r, self->comm,
                                stream->stream);
    }
    status = end_group(self, result, "ncclReduceScatter");
    for (int i = 0; i < n && !status; i++) {
        const mz_segment *s = &segments[i];
        void *from = direct ? s->recv : block(s->send, s->stride, node->rank, dtype);
        status = finish(self, from, dtype, s->recv, recv_dtype, s->count, rest, accumulate, stream);
    }
    return status;
}

mz_status mz_nccl_all_reduce(mz_node_transport *node, const mz_op_info *op, const mz_segment *segments, int n,
                             mz_dtype dtype, float scale, mz_stream *stream)
{
    mz_nccl_node *self = mz_nccl_of(node);
    ncclRedOp_t sum;
    float rest;
    (void)op;
    mz_status status = begin_group(self);
    if (status)
        return status;
    ncclResult_t result = sum_for(self, dtype, scale, &sum, &rest);
    for (int i = 0; i < n && result == ncclSuccess; i++) {
        const mz_segment *s = &segments[i];
        node->bytes_sent += 2.0 * (double)s->count * (double)mz_dtype_size(dtype) * (node->size - 1) / node->size;
        result = ncclAllReduce(s->send, s->recv, (size_t)s->count, type_of(dtype), sum, self->comm, stream->stream);
    }
    status = end_group(self, result, "ncclAllReduce");
    for (int i = 0; i < n && !status; i++)
        status =
            finish(self, segments[i].recv, dtype, segments[i].recv, dtype, segments[i].count, rest, false, stream);
    return status;
}

mz_status mz_nccl_broadcast(mz_node_transport *node, const mz_op_info *op, const mz_segment *segments, int n,
                            mz_dtype dtype, int root, mz_stream *stream)
{
    mz_nccl_node *self = mz_nccl_of(node);
    ncclResult_t result = ncclSuccess;
    (void)op;
    mz_status status = begin_group(self);
    if (status)
        return status;
    for (int i = 0; i < n && result == ncclSuccess; i++) {
        const mz_segment *s = &segments[i];
        if ((root + node->size - 1) % node->size != node->rank) /* all but the last in the chain pass it on */
            node->bytes_sent += (double)s->count * (double)mz_dtype_size(dtype);
        result =
            ncclBroadcast(s->send, s->recv, (size_t)s->count, type_of(dtype), root, self->comm, stream->stream);
    }
    return end_group(self, result, "ncclBroadcast");
}

mz_status mz_nccl_barrier(mz_node_transport *node, const mz_op_info *op)
{
    mz_nccl_node *self = mz_nccl_of(node);
    (void)op;
    mz_status status = begin_group(self);
    if (status)
        return status;
    ncclResult_t result =
        ncclAllReduce(self->scratch, self->scratch, 1, ncclFloat32, ncclSum, self->comm, self->stream);
    status = end_group(self, result, "ncclAllReduce");
    return status ? status
                  : mz_nccl_cuda_checked(self, cudaStreamSynchronize(self->stream), "cudaStreamSynchronize");
}
