#include "comm/nccl.h"

/* Some of its declarations say () for (void). */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wstrict-prototypes"
#include <nccl.h>
#pragma GCC diagnostic pop
#include <cuda_runtime_api.h>
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "comm/mpi_check.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/half.h"
#include "core/memory.h"
#include "device/cuda/stream.h"
#include "kernels/kernels.h"

/* So long a launch may take that is under way when the communicator is to be aborted. */
enum { LAUNCH_SECONDS = 5, MAX_SCALES = 8 };
/* So long the ranks wait for each other to take the communicator down. */
static const double leave_seconds = 10;

/* A sum that multiplies each rank's values first. */
typedef struct scaled_sum {
    ncclDataType_t type;
    float scale;
    ncclRedOp_t op;
} scaled_sum;

typedef struct nccl_node {
    mz_node_transport base;
    const mz_shm_sync *sync;
    mz_device *device;
    char place[160]; /* "rank 1 on NVIDIA H200 (GPU 1)" */
    ncclUniqueId id;
    ncclComm_t comm;
    cudaStream_t stream; /* of set-up and barriers; it tells whether the GPU has failed */
    float *scratch;      /* device memory, [size] */
    scaled_sum sums[MAX_SCALES];
    int n_sums;
    pthread_mutex_t launching;
    bool aborted; /* read and written atomically */
} nccl_node;

static nccl_node *of(mz_node_transport *node)
{
    return (nccl_node *)node;
}

static mz_status check(nccl_node *n, ncclResult_t result, const char *call)
{
    if (result == ncclSuccess)
        return MZ_OK;
    const char *detail = n->comm ? ncclGetLastError(n->comm) : NULL;
    return mz_fail(MZ_ERR_COMM, "%s: %s failed: %s%s%.600s", n->place, call, ncclGetErrorString(result),
                   detail && *detail ? ": " : "", detail ? detail : "");
}

static mz_status check_cuda(nccl_node *n, cudaError_t error, const char *call)
{
    return error == cudaSuccess
               ? MZ_OK
               : mz_fail(MZ_ERR_DEVICE, "%s: %s failed: %s", n->place, call, cudaGetErrorString(error));
}

static ncclDataType_t type_of(mz_dtype dtype)
{
    static const ncclDataType_t types[MZ_N_DTYPES] = {
        [MZ_F32] = ncclFloat32, [MZ_F16] = ncclFloat16, [MZ_BF16] = ncclBfloat16, [MZ_F64] = ncclFloat64,
        [MZ_I32] = ncclInt32,   [MZ_I64] = ncclInt64,   [MZ_U8] = ncclUint8,
    };
    return types[dtype];
}

/* ---- launches ---- */

static mz_status begin_group(nccl_node *n)
{
    pthread_mutex_lock(&n->launching);
    mz_status status = __atomic_load_n(&n->aborted, __ATOMIC_ACQUIRE)
                           ? mz_fail(MZ_ERR_COMM, "%s: the communicator has been aborted", n->place)
                           : check(n, ncclGroupStart(), "ncclGroupStart");
    if (status)
        pthread_mutex_unlock(&n->launching);
    return status;
}

/* `result` is that of the calls in the group, `call` the name of one of them. */
static mz_status end_group(nccl_node *n, ncclResult_t result, const char *call)
{
    ncclResult_t end = ncclGroupEnd();
    mz_status status = check(n, result != ncclSuccess ? result : end, call);
    pthread_mutex_unlock(&n->launching);
    return status;
}

static char *block(const void *base, int64_t stride, int rank, mz_dtype dtype)
{
    return (char *)base + (size_t)(stride * rank) * mz_dtype_size(dtype);
}

static mz_status nccl_all_gather(mz_node_transport *node, const mz_op_info *op, const mz_segment *segments, int n,
                                 mz_dtype dtype, mz_stream *stream)
{
    nccl_node *self = of(node);
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
static ncclResult_t sum_for(nccl_node *n, mz_dtype dtype, float scale, ncclRedOp_t *op, float *rest)
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
    if (n->n_sums == MAX_SCALES)
        return ncclSuccess;
    float value;
    mz_store_f32(&value, dtype, 0, scale);
    scaled_sum *sum = &n->sums[n->n_sums];
    *sum = (scaled_sum){.type = type_of(dtype), .scale = scale};
    ncclResult_t result = ncclRedOpCreatePreMulSum(&sum->op, &value, sum->type, ncclScalarHostImmediate, n->comm);
    if (result == ncclSuccess) {
        n->n_sums++;
        *op = sum->op;
        *rest = 1;
    }
    return result;
}

/* dst (+)= scale * src, where the reduction left something to do. */
static mz_status finish(nccl_node *n, const void *src, mz_dtype dtype, void *dst, mz_dtype dst_dtype, int64_t count,
                        float scale, bool accumulate, mz_stream *stream)
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
static mz_status nccl_reduce_scatter(mz_node_transport *node, const mz_op_info *op, const mz_segment *segments,
                                     int n, mz_dtype dtype, mz_dtype recv_dtype, float scale, bool accumulate,
                                     mz_stream *stream)
{
    nccl_node *self = of(node);
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

static mz_status nccl_all_reduce(mz_node_transport *node, const mz_op_info *op, const mz_segment *segments, int n,
                                 mz_dtype dtype, float scale, mz_stream *stream)
{
    nccl_node *self = of(node);
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

static mz_status nccl_broadcast(mz_node_transport *node, const mz_op_info *op, const mz_segment *segments, int n,
                                mz_dtype dtype, int root, mz_stream *stream)
{
    nccl_node *self = of(node);
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

static mz_status nccl_barrier(mz_node_transport *node, const mz_op_info *op)
{
    nccl_node *self = of(node);
    (void)op;
    mz_status status = begin_group(self);
    if (status)
        return status;
    ncclResult_t result =
        ncclAllReduce(self->scratch, self->scratch, 1, ncclFloat32, ncclSum, self->comm, self->stream);
    status = end_group(self, result, "ncclAllReduce");
    return status ? status : check_cuda(self, cudaStreamSynchronize(self->stream), "cudaStreamSynchronize");
}

/* ---- failure ---- */

static void nccl_begin(mz_node_transport *node, const mz_op_info *op)
{
    (void)node;
    (void)op;
}

/* NCCL's kernels on this GPU end, and what waits for them goes on. */
static void nccl_abort(mz_node_transport *node, mz_status status, const char *message)
{
    nccl_node *n = of(node);
    struct timespec until;
    (void)status;
    (void)message;
    if (__atomic_exchange_n(&n->aborted, true, __ATOMIC_ACQ_REL))
        return;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += LAUNCH_SECONDS;
    /* A launch that does not come back is stuck in NCCL, and only an abort can get it out. */
    bool locked = pthread_mutex_timedlock(&n->launching, &until) == 0;
    ncclCommAbort(n->comm);
    if (locked)
        pthread_mutex_unlock(&n->launching);
}

mz_status mz_nccl_check(mz_node_transport *node)
{
    nccl_node *n = of(node);
    ncclResult_t result = ncclSuccess;
    enum cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
    cudaError_t error = cudaSetDevice(n->device->ordinal);
    if (error == cudaSuccess)
        error = cudaThreadExchangeStreamCaptureMode(&mode); /* a capture in another thread is none of ours */
    if (error == cudaSuccess)
        error = cudaStreamQuery(n->stream);
    if (error != cudaSuccess && error != cudaErrorNotReady)
        return mz_fail(MZ_ERR_DEVICE, "%s: the GPU has failed: %s", n->place, cudaGetErrorString(error));
    if (__atomic_load_n(&n->aborted, __ATOMIC_ACQUIRE))
        return MZ_OK; /* on purpose */
    if (ncclCommGetAsyncError(n->comm, &result) != ncclSuccess)
        return MZ_OK;
    return result == ncclInProgress ? MZ_OK : check(n, result, "NCCL");
}

/* ---- life ---- */

/* Something that NCCL does in a thread of its own, because it may wait for other ranks without limit. */
typedef struct errand {
    nccl_node *node;
    mz_status (*run)(nccl_node *node);
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t changed;
    bool done, given_up; /* the last to know of the other frees the errand */
    mz_status status;
    char message[1024];
} errand;

static void free_errand(errand *e)
{
    pthread_cond_destroy(&e->changed);
    pthread_mutex_destroy(&e->lock);
    mz_free(e);
}

static void *run_errand(void *arg)
{
    errand *e = arg;
    mz_status status = check_cuda(e->node, cudaSetDevice(e->node->device->ordinal), "cudaSetDevice");
    if (!status)
        status = e->run(e->node);
    pthread_mutex_lock(&e->lock);
    e->status = status;
    snprintf(e->message, sizeof e->message, "%s", status ? mz_last_error() : "");
    e->done = true;
    bool given_up = e->given_up;
    pthread_cond_signal(&e->changed);
    pthread_mutex_unlock(&e->lock);
    if (given_up)
        free_errand(e);
    return NULL;
}

static mz_status find_gone(const nccl_node *n)
{
    const mz_members *members = &n->sync->members;
    for (int i = 0; i < members->size; i++)
        if (i != members->rank && !mz_shm_segment_alive(n->sync->segment, i))
            return mz_fail(MZ_ERR_PEER, "rank %d has ended while NCCL connected the GPUs", members->ranks[i]);
    return MZ_OK;
}

/* Until the errand is done, time is up, or (watching) a rank has ended. */
static mz_status await_errand(errand *e, double seconds, bool watching)
{
    mz_status status = MZ_OK;
    double deadline = mz_clock_seconds() + seconds;
    pthread_mutex_lock(&e->lock);
    while (!e->done && !status) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += 100000000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&e->changed, &e->lock, &until);
        if (!e->done && watching)
            status = find_gone(e->node);
        if (!e->done && !status && mz_clock_seconds() > deadline)
            status = mz_fail(MZ_ERR_TIMEOUT, "%s: NCCL did not connect %d GPUs within %g s", e->node->place,
                             e->node->base.size, seconds);
    }
    bool done = e->done;
    if (done)
        status = e->status ? mz_fail_adopt(e->status, e->message) : MZ_OK;
    e->given_up = !done;
    pthread_mutex_unlock(&e->lock);
    if (done)
        free_errand(e);
    return status;
}

/* *given_up: the thread still uses the node. */
static mz_status send_errand(nccl_node *n, mz_status (*fn)(nccl_node *node), double seconds, bool watching,
                             bool *given_up)
{
    pthread_t thread;
    *given_up = false;
    errand *e = mz_calloc(1, sizeof *e);
    if (!e)
        return MZ_ERR_MEMORY;
    e->node = n;
    e->run = fn;
    pthread_mutex_init(&e->lock, NULL);
    pthread_cond_init(&e->changed, NULL);
    int error = pthread_create(&thread, NULL, run_errand, e);
    if (error) {
        free_errand(e);
        return mz_fail(MZ_ERR_MEMORY, "cannot start a thread: %s", strerror(error));
    }
    pthread_detach(thread);
    mz_status status = await_errand(e, seconds, watching);
    *given_up = status == MZ_ERR_TIMEOUT || status == MZ_ERR_PEER;
    return status;
}

/* One small collective of each kind, so that NCCL connects what they use. */
static mz_status connect(nccl_node *n)
{
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    int size = n->base.size;
    mz_status status =
        check(n, ncclCommInitRankConfig(&n->comm, size, n->id, n->base.rank, &config), "ncclCommInitRankConfig");
    if (!status)
        status = check(n, ncclAllGather(n->scratch + n->base.rank, n->scratch, 1, ncclFloat32, n->comm, n->stream),
                       "ncclAllGather");
    if (!status)
        status = check(
            n,
            ncclReduceScatter(n->scratch, n->scratch + n->base.rank, 1, ncclFloat32, ncclSum, n->comm, n->stream),
            "ncclReduceScatter");
    if (!status)
        status =
            check(n, ncclAllReduce(n->scratch, n->scratch, (size_t)size, ncclFloat32, ncclSum, n->comm, n->stream),
                  "ncclAllReduce");
    if (!status)
        status =
            check(n, ncclBroadcast(n->scratch, n->scratch, 1, ncclFloat32, 0, n->comm, n->stream), "ncclBroadcast");
    return status ? status : check_cuda(n, cudaStreamSynchronize(n->stream), "cudaStreamSynchronize");
}

static mz_status leave(nccl_node *n)
{
    return check(n, ncclCommDestroy(n->comm), "ncclCommDestroy");
}

static void free_node(nccl_node *n)
{
    if (n->stream)
        cudaStreamDestroy(n->stream);
    cudaFree(n->scratch);
    pthread_mutex_destroy(&n->launching);
    mz_free(n);
}

/* To take a communicator down, NCCL waits for the other ranks of the node; one that has failed does not come. */
static void nccl_destroy(mz_node_transport *node)
{
    nccl_node *n = of(node);
    bool given_up = false;
    if (n->comm && !n->aborted)
        send_errand(n, leave, leave_seconds, false, &given_up);
    if (!given_up)
        free_node(n);
}

static const mz_node_ops ops = {
    .name = "NCCL",
    .destroy = nccl_destroy,
    .begin = nccl_begin,
    .abort = nccl_abort,
    .all_gather = nccl_all_gather,
    .reduce_scatter = nccl_reduce_scatter,
    .broadcast = nccl_broadcast,
    .all_reduce = nccl_all_reduce,
    .barrier = nccl_barrier,
};

static mz_status prepare(nccl_node *n)
{
    size_t bytes = (size_t)n->base.size * sizeof *n->scratch;
    mz_status status = check_cuda(n, cudaMalloc((void **)&n->scratch, bytes), "cudaMalloc");
    if (!status)
        status = check_cuda(n, cudaMemset(n->scratch, 0, bytes), "cudaMemset");
    if (!status)
        status = check_cuda(n, cudaStreamCreateWithFlags(&n->stream, cudaStreamNonBlocking), "cudaStreamCreate");
    if (!status && n->base.rank == 0)
        status = check(n, ncclGetUniqueId(&n->id), "ncclGetUniqueId");
    return status;
}

mz_status mz_nccl_create(MPI_Comm group, const mz_shm_sync *sync, mz_device *device, double timeout_seconds,
                         mz_node_transport **node)
{
    const mz_members *members = &sync->members;
    bool given_up = false;
    nccl_node *n = mz_calloc(1, sizeof *n);
    mz_status status = mz_mpi_agree(group, n ? MZ_OK : MZ_ERR_MEMORY, "setting up NCCL");
    if (status) {
        mz_free(n);
        return status;
    }
    n->base = (mz_node_transport){.ops = &ops, .rank = members->rank, .size = members->size};
    n->sync = sync;
    n->device = device;
    pthread_mutex_init(&n->launching, NULL);
    snprintf(n->place, sizeof n->place, "rank %d on %s", members->ranks[members->rank], device->label);
    status = mz_mpi_agree(group, prepare(n), "setting up NCCL");
    if (!status)
        status = mz_mpi_check(MPI_Bcast(&n->id, sizeof n->id, MPI_BYTE, 0, group), "MPI_Bcast");
    if (!status)
        status = send_errand(n, connect, timeout_seconds, true, &given_up);
    if (!status) {
        *node = &n->base;
        return MZ_OK;
    }
    if (!given_up) {
        if (n->comm)
            ncclCommAbort(n->comm);
        free_node(n);
    }
    return status;
}

void mz_nccl_version(char *text, size_t bytes)
{
    int version = 0;
    if (ncclGetVersion(&version) == ncclSuccess)
        snprintf(text, bytes, "%d.%d.%d", version / 10000, version / 100 % 100, version % 100);
    else
        snprintf(text, bytes, "unknown");
}
