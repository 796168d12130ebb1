#include "gpu_double.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "comm/cursor.h"
#include "comm/nccl.h"
#include "comm/sum.h"
#include "core/clock.h"
#include "core/memory.h"
#include "kernels/kernels.h"

/* ---- the device ---- */

static mz_device_ops ops;
static mz_kernels kernels;

/* A kernel of the reference that runs in its turn on the stream. */
#define QUEUED(kernel)                                                                                             \
    static mz_status run_##kernel(void *arg)                                                                       \
    {                                                                                                              \
        mz_status status = mz_kernels_ref.kernel(arg, NULL);                                                       \
        mz_free(arg);                                                                                              \
        return status;                                                                                             \
    }                                                                                                              \
    static mz_status queue_##kernel(const mz_##kernel##_args *args, mz_stream *stream)                             \
    {                                                                                                              \
        mz_##kernel##_args *copy = mz_alloc(sizeof *copy);                                                         \
        if (!copy)                                                                                                 \
            return MZ_ERR_MEMORY;                                                                                  \
        *copy = *args;                                                                                             \
        mz_status status = ops.host_call(stream, run_##kernel, copy);                                              \
        if (status)                                                                                                \
            mz_free(copy);                                                                                         \
        return status;                                                                                             \
    }
QUEUED(cast)
QUEUED(quantize)
QUEUED(dequantize)

void gpu_double_become(mz_device *device, int number)
{
    ops = *device->ops;
    kernels = *device->ops->kernels;
    kernels.cast = queue_cast;
    kernels.quantize = queue_quantize;
    kernels.dequantize = queue_dequantize;
    ops.name = "cuda";
    ops.kernels = &kernels;
    device->ops = &ops;
    snprintf(device->label, sizeof device->label, "double of a GPU");
    snprintf(device->address, sizeof device->address, "0000:%02x:00.0", number);
}

/* ---- NCCL ---- */

typedef struct node_double {
    mz_node_transport base;
    mz_node_transport *shm;
    mz_stream *stream; /* brings calls on several streams in order, as NCCL does */
    mz_event *asked, *done;
    double timeout_seconds;
    uint64_t begun; /* sequence number, plus one, of the newest collective */
    atomic_bool aborted;
} node_double;

typedef enum call_kind { GATHER, SCATTER, REDUCE, BROADCAST } call_kind;

typedef struct call {
    node_double *node;
    call_kind kind;
    mz_op_info op;
    int n, root;
    mz_dtype dtype, recv_dtype;
    float scale;
    bool accumulate;
    mz_segment segments[];
} call;

static mz_status reduce(const call *c)
{
    mz_node_transport *shm = c->node->shm;
    const void *sources[16];
    mz_status status = MZ_OK;
    for (int i = 0; i < c->n && !status; i++) {
        size_t bytes = (size_t)c->segments[i].count * mz_dtype_size(c->dtype);
        char *all = mz_alloc((size_t)shm->size * bytes + 1);
        const mz_segment whole = {c->segments[i].send, all, c->segments[i].count, c->segments[i].count};
        status = all ? shm->ops->all_gather(shm, &c->op, &whole, 1, c->dtype, NULL) : MZ_ERR_MEMORY;
        for (int r = 0; r < shm->size; r++)
            sources[r] = all + (size_t)r * bytes;
        if (!status)
            mz_comm_sum(c->segments[i].recv, c->dtype, sources, shm->size, c->dtype, whole.count, c->scale, false);
        mz_free(all);
    }
    return status;
}

static mz_status run_call(void *arg)
{
    call *c = arg;
    mz_node_transport *shm = c->node->shm;
    mz_status status = MZ_OK;
    c->op.deadline = mz_clock_seconds() + c->node->timeout_seconds;
    if (c->node->begun != c->op.sequence + 1)
        shm->ops->begin(shm, &c->op);
    c->node->begun = c->op.sequence + 1;
    if (c->kind == GATHER)
        status = shm->ops->all_gather(shm, &c->op, c->segments, c->n, c->dtype, NULL);
    else if (c->kind == SCATTER)
        status = shm->ops->reduce_scatter(shm, &c->op, c->segments, c->n, c->dtype, c->recv_dtype, c->scale,
                                          c->accumulate, NULL);
    else if (c->kind == REDUCE)
        status = reduce(c);
    else
        status = shm->ops->broadcast(shm, &c->op, c->segments, c->n, c->dtype, c->root, NULL);
    c->node->base.bytes_sent = shm->bytes_sent;
    while (status && !c->node->aborted) /* NCCL itself notices nothing: its kernels wait until they are ended */
        usleep(1000);
    mz_free(c);
    return status;
}

static mz_status queue(const call *c, const mz_segment *segments, int n, mz_stream *stream)
{
    node_double *node = c->node;
    call *copy = mz_alloc(sizeof *copy + (size_t)n * sizeof *segments);
    if (!copy)
        return MZ_ERR_MEMORY;
    memcpy(copy, c, sizeof *copy);
    copy->n = n;
    if (n)
        memcpy(copy->segments, segments, (size_t)n * sizeof *segments);
    mz_status status = ops.event_record(node->asked, stream);
    if (!status)
        status = ops.wait(node->stream, node->asked);
    if (!status)
        status = ops.host_call(node->stream, run_call, copy);
    if (status) {
        mz_free(copy);
        return status;
    }
    status = ops.event_record(node->done, node->stream);
    return status ? status : ops.wait(stream, node->done);
}

static mz_status all_gather(mz_node_transport *node, const mz_op_info *op, const mz_segment *segments, int n,
                            mz_dtype dtype, mz_stream *stream)
{
    const call c = {.node = (node_double *)node, .kind = GATHER, .op = *op, .dtype = dtype};
    return queue(&c, segments, n, stream);
}

static mz_status reduce_scatter(mz_node_transport *node, const mz_op_info *op, const mz_segment *segments, int n,
                                mz_dtype dtype, mz_dtype recv_dtype, float scale, bool accumulate,
                                mz_stream *stream)
{
    const call c = {.node = (node_double *)node,
                    .kind = SCATTER,
                    .op = *op,
                    .dtype = dtype,
                    .recv_dtype = recv_dtype,
                    .scale = scale,
                    .accumulate = accumulate};
    return queue(&c, segments, n, stream);
}

static mz_status all_reduce(mz_node_transport *node, const mz_op_info *op, const mz_segment *segments, int n,
                            mz_dtype dtype, float scale, mz_stream *stream)
{
    const call c = {.node = (node_double *)node, .kind = REDUCE, .op = *op, .dtype = dtype, .scale = scale};
    return queue(&c, segments, n, stream);
}

static mz_status broadcast(mz_node_transport *node, const mz_op_info *op, const mz_segment *segments, int n,
                           mz_dtype dtype, int root, mz_stream *stream)
{
    const call c = {.node = (node_double *)node, .kind = BROADCAST, .op = *op, .dtype = dtype, .root = root};
    return queue(&c, segments, n, stream);
}

static void begin(mz_node_transport *node, const mz_op_info *op)
{
    (void)node;
    (void)op;
}

static void abort_waiting(mz_node_transport *node, mz_status status, const char *message)
{
    mz_node_transport *shm = ((node_double *)node)->shm;
    shm->ops->abort(shm, status, message);
    ((node_double *)node)->aborted = true;
}

static void destroy(mz_node_transport *node)
{
    node_double *n = (node_double *)node;
    n->aborted = true;
    if (n->stream)
        ops.stream_destroy(n->stream);
    if (n->asked)
        ops.event_destroy(n->asked);
    if (n->done)
        ops.event_destroy(n->done);
    n->shm->ops->destroy(n->shm);
    mz_free(n);
}

static const mz_node_ops node_ops = {.name = "double of NCCL",
                                     .destroy = destroy,
                                     .begin = begin,
                                     .abort = abort_waiting,
                                     .all_gather = all_gather,
                                     .reduce_scatter = reduce_scatter,
                                     .broadcast = broadcast,
                                     .all_reduce = all_reduce};

mz_status mz_nccl_create(MPI_Comm group, const mz_shm_sync *sync, mz_device *device, double timeout_seconds,
                         mz_node_transport **out)
{
    node_double *node = mz_calloc(1, sizeof *node);
    if (!node)
        return MZ_ERR_MEMORY;
    mz_status status = mz_shm_create(group, &sync->members, 64 << 10, false, &node->shm);
    if (status) {
        mz_free(node);
        return status;
    }
    node->base = (mz_node_transport){.ops = &node_ops, .rank = sync->members.rank, .size = sync->members.size};
    node->timeout_seconds = timeout_seconds;
    status = ops.stream_create(device, MZ_STREAM_COMM, &node->stream);
    if (!status)
        status = ops.event_create(device, &node->asked);
    if (!status)
        status = ops.event_create(device, &node->done);
    if (status) {
        destroy(&node->base);
        return status;
    }
    *out = &node->base;
    return MZ_OK;
}

mz_status mz_nccl_check(mz_node_transport *node)
{
    (void)node;
    return MZ_OK;
}
