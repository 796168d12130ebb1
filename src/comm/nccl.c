/* A node's NCCL communicator: its beginning, its end and its failures. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "comm/mpi_check.h"
#include "comm/nccl_impl.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/memory.h"
#include "device/cuda/stream.h"

/* So long a launch may take that is under way when the communicator is to be aborted. */
enum { LAUNCH_SECONDS = 5 };
/* So long the ranks wait for each other to take the communicator down. */
static const double leave_seconds = 10;

mz_status mz_nccl_checked(mz_nccl_node *n, ncclResult_t result, const char *call)
{
    if (result == ncclSuccess)
        return MZ_OK;
    const char *detail = n->comm ? ncclGetLastError(n->comm) : NULL;
    return mz_fail(MZ_ERR_COMM, "%s: %s failed: %s%s%.600s", n->place, call, ncclGetErrorString(result),
                   detail && *detail ? ": " : "", detail ? detail : "");
}

mz_status mz_nccl_cuda_checked(mz_nccl_node *n, cudaError_t error, const char *call)
{
    return error == cudaSuccess
               ? MZ_OK
               : mz_fail(MZ_ERR_DEVICE, "%s: %s failed: %s", n->place, call, cudaGetErrorString(error));
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
    mz_nccl_node *n = mz_nccl_of(node);
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
    mz_nccl_node *n = mz_nccl_of(node);
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
    return result == ncclInProgress ? MZ_OK : mz_nccl_checked(n, result, "NCCL");
}

/* ---- life ---- */

/* Something that NCCL does in a thread of its own, because it may wait for other ranks without limit. */
typedef struct errand {
    mz_nccl_node *node;
    mz_status (*run)(mz_nccl_node *node);
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
    mz_status status = mz_nccl_cuda_checked(e->node, cudaSetDevice(e->node->device->ordinal), "cudaSetDevice");
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

static mz_status find_gone(const mz_nccl_node *n)
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
static mz_status send_errand(mz_nccl_node *n, mz_status (*fn)(mz_nccl_node *node), double seconds, bool watching,
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
static mz_status connect(mz_nccl_node *n)
{
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    int size = n->base.size;
    mz_status status = mz_nccl_checked(n, ncclCommInitRankConfig(&n->comm, size, n->id, n->base.rank, &config),
                                       "ncclCommInitRankConfig");
    if (!status)
        status = mz_nccl_checked(
            n, ncclAllGather(n->scratch + n->base.rank, n->scratch, 1, ncclFloat32, n->comm, n->stream),
            "ncclAllGather");
    if (!status)
        status = mz_nccl_checked(
            n,
            ncclReduceScatter(n->scratch, n->scratch + n->base.rank, 1, ncclFloat32, ncclSum, n->comm, n->stream),
            "ncclReduceScatter");
    if (!status)
        status = mz_nccl_checked(
            n, ncclAllReduce(n->scratch, n->scratch, (size_t)size, ncclFloat32, ncclSum, n->comm, n->stream),
            "ncclAllReduce");
    if (!status)
        status = mz_nccl_checked(n, ncclBroadcast(n->scratch, n->scratch, 1, ncclFloat32, 0, n->comm, n->stream),
                                 "ncclBroadcast");
    return status ? status : mz_nccl_cuda_checked(n, cudaStreamSynchronize(n->stream), "cudaStreamSynchronize");
}

static mz_status leave(mz_nccl_node *n)
{
    return mz_nccl_checked(n, ncclCommDestroy(n->comm), "ncclCommDestroy");
}

static void free_node(mz_nccl_node *n)
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
    mz_nccl_node *n = mz_nccl_of(node);
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
    .all_gather = mz_nccl_all_gather,
    .reduce_scatter = mz_nccl_reduce_scatter,
    .broadcast = mz_nccl_broadcast,
    .all_reduce = mz_nccl_all_reduce,
    .barrier = mz_nccl_barrier,
};

static mz_status prepare(mz_nccl_node *n)
{
    size_t bytes = (size_t)n->base.size * sizeof *n->scratch;
    mz_status status = mz_nccl_cuda_checked(n, cudaMalloc((void **)&n->scratch, bytes), "cudaMalloc");
    if (!status)
        status = mz_nccl_cuda_checked(n, cudaMemset(n->scratch, 0, bytes), "cudaMemset");
    if (!status)
        status = mz_nccl_cuda_checked(n, cudaStreamCreateWithFlags(&n->stream, cudaStreamNonBlocking),
                                      "cudaStreamCreate");
    if (!status && n->base.rank == 0)
        status = mz_nccl_checked(n, ncclGetUniqueId(&n->id), "ncclGetUniqueId");
    return status;
}

mz_status mz_nccl_create(MPI_Comm group, const mz_shm_sync *sync, mz_device *device, double timeout_seconds,
                         mz_node_transport **node)
{
    const mz_members *members = &sync->members;
    bool given_up = false;
    mz_nccl_node *n = mz_calloc(1, sizeof *n);
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
