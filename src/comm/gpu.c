#include "comm/gpu.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "comm/mpi_check.h"
#include "comm/nccl.h"
#include "comm/peers.h"
#include "comm/relay.h"
#include "comm/watch.h"
#include "core/error.h"
#include "core/log.h"
#include "core/memory.h"
#include "kernels/kernels.h"

struct mz_gpu_comm {
    mz_comm *comm;
    mz_stream *stream; /* for callers that bring none */
    mz_shm_segment segment;
    mz_shm_sync sync;
    mz_node_transport *node; /* NULL: one rank per node */
    mz_relay *relay;         /* NULL: one node */
    mz_peers *peers;         /* NULL: no memory is shared */
    mz_watch *watch;         /* NULL: one rank */
    uint64_t n_issued;
};

/* ---- which GPU has which rank ---- */

typedef struct device_card {
    char host[64], kind[16], address[32], label[128];
    bool may_share; /* MPIZERO_SHARE_GPU */
} device_card;

static bool is_gpu(const device_card *card)
{
    return strcmp(card->kind, "cuda") == 0;
}

static bool share_gpu(const device_card *a, const device_card *b)
{
    return strcmp(a->host, b->host) == 0 && strcmp(a->address, b->address) == 0;
}

static bool share_node(const mz_layout *layout, int a, int b)
{
    int node_of_a = -1, node_of_b = -1;
    for (int m = 0; m < layout->n_nodes; m++)
        for (int l = 0; l < layout->per_node; l++) {
            node_of_a = mz_layout_rank(layout, m, l) == a ? m : node_of_a;
            node_of_b = mz_layout_rank(layout, m, l) == b ? m : node_of_b;
        }
    return node_of_a == node_of_b;
}

/* For tests of what lies between nodes on a machine with one GPU. NCCL, inside a node, wants a GPU for each rank.
 */
static bool may_share(const mz_comm *comm, const device_card *cards, int a, int b)
{
    return cards[a].may_share && cards[b].may_share && !share_node(&comm->layout, a, b);
}

static mz_status compare_devices(const mz_comm *comm, const device_card *cards)
{
    const int *ranks = comm->layout.world_ranks;
    for (int r = 1; r < comm->layout.size; r++)
        if (strcmp(cards[r].kind, cards[0].kind) != 0)
            return mz_fail(MZ_ERR_LAUNCH,
                           "rank %d on %s computes on %s, rank %d on %s on %s: all ranks need the same kind of "
                           "device; see what `mpizero topo` says of GPUs, or give --device",
                           ranks[r], cards[r].host, cards[r].label, ranks[0], cards[0].host, cards[0].label);
    for (int r = 1; r < comm->layout.size && is_gpu(&cards[0]); r++)
        for (int q = 0; q < r; q++)
            if (share_gpu(&cards[r], &cards[q]) && !may_share(comm, cards, r, q))
                return mz_fail(MZ_ERR_LAUNCH,
                               "ranks %d and %d on %s would share %s at %s: start no more ranks there than it has "
                               "GPUs, and give each rank one (CUDA_VISIBLE_DEVICES, Slurm's --gpus-per-task=1)",
                               ranks[q], ranks[r], cards[r].host, cards[r].label, cards[r].address);
    return MZ_OK;
}

/* How many ranks have this rank's device; a group of ranks may show fewer than the whole job. */
static void count_sharing(const mz_comm *comm, const device_card *cards)
{
    int n = 0;
    for (int r = 0; r < comm->layout.size; r++)
        n += share_gpu(&cards[r], &cards[comm->layout.rank]);
    if (n > comm->device->n_sharing)
        comm->device->n_sharing = n;
}

/* Every rank comes to the same verdict, since all see the same cards. */
mz_status mz_gpu_check(const mz_comm *comm, bool *gpus)
{
    const mz_device *device = comm->device;
    device_card mine = {.kind = "cpu", .may_share = getenv("MPIZERO_SHARE_GPU") != NULL};
    snprintf(mine.host, sizeof mine.host, "%.63s", comm->world->host);
    if (device) {
        snprintf(mine.kind, sizeof mine.kind, "%s", device->ops->name);
        snprintf(mine.label, sizeof mine.label, "%s", device->label);
        snprintf(mine.address, sizeof mine.address, "%s", device->address);
    }
    *gpus = is_gpu(&mine);
    device_card *cards = mz_calloc((size_t)comm->layout.size, sizeof *cards);
    mz_status status = mz_mpi_agree(comm->group, cards ? MZ_OK : MZ_ERR_MEMORY, "comparing devices");
    if (!status)
        status =
            mz_mpi_check(MPI_Allgather(&mine, sizeof mine, MPI_BYTE, cards, sizeof mine, MPI_BYTE, comm->group),
                         "MPI_Allgather");
    if (!status)
        status = compare_devices(comm, cards);
    if (!status && *gpus)
        count_sharing(comm, cards);
    mz_free(cards);
    return status;
}

/* ---- one rank alone ---- */

static mz_status run_alone(mz_gpu_comm *gpu, const mz_collective *what, mz_stream *stream)
{
    const mz_device_ops *ops = gpu->comm->device->ops;
    bool is_sum = what->kind == MZ_REDUCE_SCATTER || what->kind == MZ_ALL_REDUCE;
    mz_status status = MZ_OK;
    for (int i = 0; i < what->n_segments && !status; i++) {
        const mz_segment *s = &what->segments[i];
        const mz_cast_args args = {.n = s->count,
                                   .src = s->send,
                                   .src_dtype = what->dtype,
                                   .dst = s->recv,
                                   .dst_dtype = what->recv_dtype,
                                   .scale = what->scale,
                                   .accumulate = what->accumulate};
        if (is_sum)
            status = ops->kernels->cast(&args, stream);
        else
            status = ops->copy(stream, s->recv, s->send, (size_t)s->count * mz_dtype_size(what->dtype));
    }
    return status;
}

/* ---- several ---- */

static mz_status all_gather(mz_gpu_comm *gpu, const mz_collective *what, const mz_op_info *op, mz_stream *stream)
{
    mz_node_transport *node = gpu->node;
    if (!mz_peers_can_gather(gpu->peers, what->segments, what->n_segments, what->dtype))
        return node->ops->all_gather(node, op, what->segments, what->n_segments, what->dtype, stream);
    for (int i = 0; i < what->n_segments; i++)
        node->bytes_sent += (double)what->segments[i].count * (double)mz_dtype_size(what->dtype) * (node->size - 1);
    return mz_peers_all_gather(gpu->peers, what->segments, what->n_segments, what->dtype, stream);
}

static mz_status launch(mz_gpu_comm *gpu, const mz_collective *what, const mz_op_info *op, mz_stream *stream)
{
    mz_node_transport *node = gpu->node;
    if (gpu->relay)
        return mz_relay_issue(gpu->relay, what, op, stream);
    switch (what->kind) {
    case MZ_ALL_GATHER:
        return all_gather(gpu, what, op, stream);
    case MZ_REDUCE_SCATTER:
        return node->ops->reduce_scatter(node, op, what->segments, what->n_segments, what->dtype, what->recv_dtype,
                                         what->scale, what->accumulate, stream);
    case MZ_ALL_REDUCE:
        return node->ops->all_reduce(node, op, what->segments, what->n_segments, what->dtype, what->scale, stream);
    case MZ_BROADCAST:
        return node->ops->broadcast(node, op, what->segments, what->n_segments, what->dtype, what->root, stream);
    case MZ_BARRIER:
        return mz_peers_meet(gpu->peers, stream);
    case MZ_ALL_TO_ALL:
    case MZ_HOST_REDUCE:
    case MZ_N_COLLECTIVES:
        break;
    }
    return mz_fail(MZ_ERR_INTERNAL, "%s is not for GPUs", op->kind);
}

mz_status mz_gpu_comm_issue(mz_gpu_comm *gpu, const mz_collective *what, mz_stream *stream)
{
    const mz_device_ops *ops = gpu->comm->device->ops;
    mz_stream *on = stream ? stream : gpu->stream;
    mz_status status;
    if (gpu->watch) {
        mz_op_info op;
        mz_collective_describe(what, &op);
        op.sequence = gpu->n_issued++;
        op.seconds = gpu->comm->world->timeout_seconds;
        mz_comm_delay(gpu->comm);
        status = mz_watch_begin(gpu->watch, &op, on);
        if (!status)
            status = mz_watch_end(gpu->watch, launch(gpu, what, &op, on), on);
    } else {
        status = run_alone(gpu, what, on);
    }
    if (!status && !stream)
        status = ops->stream_sync(on);
    if (!status && !stream && gpu->watch)
        status = mz_watch_status(gpu->watch);
    return status;
}

void mz_gpu_comm_tell(mz_gpu_comm *gpu, mz_status status, const char *message)
{
    if (gpu->watch)
        mz_shm_sync_abort(&gpu->sync, status, message);
}

mz_status mz_gpu_comm_status(const mz_gpu_comm *gpu)
{
    return gpu->watch ? mz_watch_status(gpu->watch) : MZ_OK;
}

/* ---- the ranks of a node, and the watch ---- */

static mz_status check(void *context)
{
    mz_gpu_comm *gpu = context;
    const mz_device *device = gpu->comm->device;
    char reason[512];
    if (gpu->node)
        return mz_nccl_check(gpu->node);
    mz_status status = device->ops->check(gpu->stream);
    if (!status)
        return MZ_OK;
    snprintf(reason, sizeof reason, "%s", mz_last_error());
    return mz_fail(status, "rank %d on %s: %s", gpu->comm->world->rank, device->label, reason);
}

static void say_slow(void *context, const mz_op_info *op)
{
    mz_gpu_comm *gpu = context;
    if (!gpu->relay)
        return;
    mz_log(MZ_LOG_WARN, "stands still: %s #%" PRIu64 " (%s), for half of its %g s", op->kind, op->sequence,
           op->label, op->seconds);
    mz_relay_report(gpu->relay);
}

static void mark(void *context, mz_status status, const char *message)
{
    mz_gpu_comm *gpu = context;
    mz_comm_fail(gpu->comm, status, message);
}

/* The watch's: the relay first, since what it let go may not wait for NCCL's end. */
static void give_up(void *context, mz_status status, const char *message)
{
    mz_gpu_comm *gpu = context;
    if (gpu->relay)
        mz_relay_abort(gpu->relay, status, message);
    if (gpu->node)
        gpu->node->ops->abort(gpu->node, status, message);
    mz_peers_abort(gpu->peers);
}

static mz_status open_watch(mz_gpu_comm *gpu)
{
    const mz_watch_options options = {.device = gpu->comm->device,
                                      .sync = &gpu->sync,
                                      .timeout_seconds = gpu->comm->world->timeout_seconds,
                                      .context = gpu,
                                      .check = check,
                                      .mark = mark,
                                      .abort = give_up,
                                      .slow = say_slow};
    return mz_watch_create(&options, &gpu->watch);
}

/* Collective over the ranks of this rank's node. */
static mz_status open_node(mz_gpu_comm *gpu, MPI_Comm node)
{
    const mz_layout *layout = &gpu->comm->layout;
    size_t page = 4096, bytes = (mz_shm_sync_bytes(layout->per_node) + page - 1) / page * page;
    gpu->sync.segment = &gpu->segment;
    gpu->sync.members = (mz_members){layout->node_ranks, layout->local, layout->per_node, layout->board};
    gpu->sync.checked = mz_calloc((size_t)layout->per_node, sizeof *gpu->sync.checked);
    mz_status status = gpu->sync.checked ? MZ_OK : MZ_ERR_MEMORY;
    status = mz_mpi_agree(node, status, "setting up collectives between GPUs");
    if (!status)
        status = mz_shm_segment_open(node, bytes, page, &gpu->segment);
    if (status)
        return status;
    mz_shm_sync_attach(&gpu->sync, gpu->segment.memory);
    if (layout->per_node > 1)
        status = mz_nccl_create(node, &gpu->sync, gpu->comm->device, gpu->comm->world->timeout_seconds, &gpu->node);
    return status ? status : open_watch(gpu);
}

/* ---- the nodes ---- */

/* The courier's. */
static void relay_failed(void *context, mz_status status)
{
    mz_gpu_comm *gpu = context;
    mz_watch_fail(gpu->watch, status);
}

static mz_status open_relay(mz_gpu_comm *gpu, size_t piece_bytes, bool spin)
{
    mz_comm *comm = gpu->comm;
    const mz_relay_options options = {.group = comm->group,
                                      .layout = &comm->layout,
                                      .device = comm->device,
                                      .node = gpu->node,
                                      .wire = comm->world->wire,
                                      .spin = spin,
                                      .piece_bytes = piece_bytes,
                                      .timeout_seconds = comm->world->timeout_seconds,
                                      .context = gpu,
                                      .failed = relay_failed};
    return mz_relay_create(&options, &gpu->relay);
}

static mz_status open_all(mz_gpu_comm *gpu, size_t piece_bytes, bool spin)
{
    mz_comm *comm = gpu->comm;
    MPI_Comm node = MPI_COMM_NULL;
    mz_status status =
        mz_mpi_check(MPI_Comm_split(comm->group, comm->layout.node, comm->layout.local, &node), "MPI_Comm_split");
    if (status)
        return status;
    MPI_Comm_set_errhandler(node, MPI_ERRORS_RETURN);
    status = mz_mpi_agree(comm->group, open_node(gpu, node), "setting up collectives between GPUs");
    MPI_Comm_free(&node);
    return status || comm->layout.n_nodes == 1 ? status : open_relay(gpu, piece_bytes, spin);
}

mz_status mz_gpu_comm_create(mz_comm *comm, size_t piece_bytes, bool spin, mz_gpu_comm **out)
{
    mz_gpu_comm *gpu = mz_calloc(1, sizeof *gpu);
    mz_status status = gpu ? MZ_OK : MZ_ERR_MEMORY;
    if (gpu) {
        gpu->comm = comm;
        gpu->segment.fd = -1;
        status = comm->device->ops->stream_create(comm->device, MZ_STREAM_COMM, &gpu->stream);
    }
    status = mz_mpi_agree(comm->group, status, "setting up collectives between GPUs");
    if (!status && comm->layout.size > 1)
        status = mz_mpi_agree(comm->group, open_all(gpu, piece_bytes, spin), "setting up collectives between GPUs");
    if (status) {
        mz_gpu_comm_destroy(gpu);
        return status;
    }
    *out = gpu;
    return MZ_OK;
}

void mz_gpu_comm_destroy(mz_gpu_comm *gpu)
{
    char message[1024];
    if (!gpu)
        return;
    snprintf(message, sizeof message, "%s", mz_last_error());
    if (gpu->relay && gpu->comm->failed) /* the others may be gone */
        mz_relay_abort(gpu->relay, gpu->comm->failed, gpu->comm->failed_message);
    mz_device_settle(gpu->comm->device); /* other comms' */
    mz_relay_stop(gpu->relay);           /* the courier may still have something to tell the watch */
    mz_watch_destroy(gpu->watch);
    if (gpu->node && gpu->comm->failed)
        gpu->node->ops->abort(gpu->node, gpu->comm->failed, gpu->comm->failed_message);
    mz_relay_destroy(gpu->relay);
    mz_peers_destroy(gpu->peers);
    if (gpu->node)
        gpu->node->ops->destroy(gpu->node);
    if (gpu->stream)
        gpu->comm->device->ops->stream_destroy(gpu->stream);
    mz_shm_segment_close(&gpu->segment);
    mz_free(gpu->sync.checked);
    mz_free(gpu);
    mz_fail_adopt(MZ_OK, message); /* what ended the job, not what failed on the way out */
}

void mz_gpu_comm_stats(mz_gpu_comm *gpu, mz_comm_stats *stats)
{
    if (!gpu->watch)
        return;
    stats->n_calls += (int64_t)gpu->n_issued;
    if (gpu->node)
        stats->bytes_in_node += gpu->node->bytes_sent;
    if (gpu->relay)
        stats->bytes_between_nodes += mz_relay_bytes_sent(gpu->relay);
    stats->seconds += mz_watch_seconds(gpu->watch);
}

/* ---- shared memory ---- */

mz_status mz_gpu_comm_share(mz_gpu_comm *gpu, void *memory, size_t bytes)
{
    mz_comm *comm = gpu->comm;
    mz_status status = MZ_OK;
    if (!gpu->node || gpu->relay)
        return MZ_OK;
    if (!gpu->peers)
        status = mz_peers_create(comm->group, &gpu->sync.members, comm->device, &gpu->peers);
    return status ? status : mz_peers_share(gpu->peers, memory, bytes);
}

void mz_gpu_comm_forget(mz_gpu_comm *gpu, const void *memory)
{
    mz_peers_forget(gpu->peers, memory);
}

mz_status mz_gpu_comm_publish(mz_gpu_comm *gpu, const char *label, mz_stream *stream)
{
    const mz_collective what = {.kind = MZ_BARRIER, .label = label};
    return gpu->peers ? mz_gpu_comm_issue(gpu, &what, stream) : MZ_OK;
}
