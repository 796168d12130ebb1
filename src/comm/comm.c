#include "comm/comm.h"

#include <sched.h>
#include <string.h>
#include <time.h>

#include "comm/issue.h"
#include "comm/mpi_check.h"
#include "core/error.h"
#include "core/memory.h"
#include "core/threads.h"

/* A slot that holds a good piece of a layer, as long as a node's staging stays small beside its caches. */
static size_t default_chunk_bytes(int ranks_per_node)
{
    const size_t most = 1 << 20, least = 64 << 10, staging = 32 << 20;
    size_t chunk = staging / (3 * (size_t)ranks_per_node);
    return chunk > most ? most : chunk < least ? least : chunk;
}

/* ---- life ---- */

/* Has every rank of the comm on this machine a core of its own? */
static mz_status cores_suffice(MPI_Comm group, bool *suffice)
{
    MPI_Comm machine = MPI_COMM_NULL;
    cpu_set_t own, all;
    int n_ranks = 0;
    CPU_ZERO(&own);
    sched_getaffinity(0, sizeof own, &own);
    mz_status status = mz_mpi_check(MPI_Comm_split_type(group, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &machine),
                                    "MPI_Comm_split_type");
    if (status)
        return status;
    status = mz_mpi_check(MPI_Comm_size(machine, &n_ranks), "MPI_Comm_size");
    mz_status reduced =
        mz_mpi_check(MPI_Allreduce(&own, &all, (int)sizeof own, MPI_BYTE, MPI_BOR, machine), "MPI_Allreduce");
    MPI_Comm_free(&machine);
    /* Ranks bound to different cores see few each; what they have is the union. */
    int cores = CPU_COUNT(&all) > CPU_COUNT(&own) ? CPU_COUNT(&all) : mz_cores_available();
    *suffice = n_ranks <= cores;
    return status ? status : reduced;
}

static mz_status find_members(mz_comm *comm)
{
    int size = 0;
    mz_status status = mz_mpi_check(MPI_Comm_size(comm->group, &size), "MPI_Comm_size");
    if (status)
        return status;
    int *members = mz_alloc((size_t)size * sizeof *members);
    status = mz_mpi_agree(comm->group, members ? MZ_OK : MZ_ERR_MEMORY, "setting up collectives");
    if (!status)
        status = mz_mpi_check(MPI_Allgather(&comm->world->rank, 1, MPI_INT, members, 1, MPI_INT, comm->group),
                              "MPI_Allgather");
    if (!status)
        status = mz_layout_find(comm->world, members, size, &comm->layout);
    mz_free(members);
    return mz_mpi_agree(comm->group, status, "setting up collectives");
}

static mz_status open_transports(mz_comm *comm, size_t chunk_bytes)
{
    bool spin = false;
    size_t size = (size_t)comm->layout.size;
    if (size == 1)
        return MZ_OK;
    mz_status status = cores_suffice(comm->group, &spin);
    status = mz_mpi_agree(comm->group, status, "setting up collectives");
    if (status)
        return status;
    if (!chunk_bytes)
        chunk_bytes = default_chunk_bytes(comm->layout.per_node);
    status = mz_hier_create(comm->group, &comm->layout, chunk_bytes, spin, &comm->hier);
    if (!status)
        status = mz_all_reduce_plan_create(comm->layout.rank, comm->layout.size, &comm->plan);
    if (!status && !(comm->host_values = mz_calloc(size * MZ_HOST_VALUES_MAX, sizeof(double))))
        status = MZ_ERR_MEMORY;
    return mz_mpi_agree(comm->group, status, "setting up collectives");
}

mz_status mz_comm_create(mz_world *world, mz_device *device, int color, size_t chunk_bytes, mz_comm **out)
{
    MPI_Comm group = MPI_COMM_NULL;
    mz_status status = mz_mpi_check(
        MPI_Comm_split(world->comm, color < 0 ? MPI_UNDEFINED : color, world->rank, &group), "MPI_Comm_split");
    if (status)
        return status;
    if (group == MPI_COMM_NULL) {
        *out = NULL;
        return MZ_OK;
    }
    MPI_Comm_set_errhandler(group, MPI_ERRORS_RETURN);
    mz_comm *comm = mz_calloc(1, sizeof *comm);
    status = mz_mpi_agree(group, comm ? MZ_OK : MZ_ERR_MEMORY, "setting up collectives");
    if (status) {
        mz_free(comm);
        MPI_Comm_free(&group);
        return status;
    }
    comm->world = world;
    comm->device = device;
    comm->group = group;
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&comm->turn_changed, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&comm->lock, NULL);
    status = find_members(comm);
    if (!status)
        status = open_transports(comm, chunk_bytes);
    if (status) {
        mz_comm_destroy(comm);
        return status;
    }
    *out = comm;
    return MZ_OK;
}

void mz_comm_destroy(mz_comm *comm)
{
    if (!comm)
        return;
    mz_hier_destroy(comm->hier);
    mz_all_reduce_plan_free(&comm->plan);
    mz_free(comm->host_values);
    mz_layout_free(&comm->layout);
    mz_comm_free_spares(comm);
    pthread_cond_destroy(&comm->turn_changed);
    pthread_mutex_destroy(&comm->lock);
    if (!comm->failed) /* else others may be gone, and with them who would take part */
        MPI_Comm_free(&comm->group);
    mz_free(comm);
}

int mz_comm_rank(const mz_comm *comm)
{
    return comm ? comm->layout.rank : 0;
}

int mz_comm_size(const mz_comm *comm)
{
    return comm ? comm->layout.size : 1;
}

void mz_comm_get_stats(const mz_comm *comm, mz_comm_stats *stats)
{
    *stats = (mz_comm_stats){0};
    if (!comm)
        return;
    pthread_mutex_t *lock = (pthread_mutex_t *)&comm->lock;
    pthread_mutex_lock(lock);
    *stats = comm->stats;
    pthread_mutex_unlock(lock);
}

void mz_comm_set_delay(mz_comm *comm, double seconds)
{
    comm->delay = seconds;
}

/* ---- collectives ---- */

static bool is_floating(mz_dtype dtype)
{
    return dtype == MZ_F32 || dtype == MZ_F16 || dtype == MZ_BF16;
}

static mz_status check(const mz_comm *comm, const mz_collective *what)
{
    bool is_sum = what->kind == MZ_REDUCE_SCATTER || what->kind == MZ_ALL_REDUCE;
    bool has_blocks = what->kind == MZ_ALL_GATHER || what->kind == MZ_REDUCE_SCATTER;
    if (what->n_segments < 0 || (what->n_segments && !what->segments))
        return mz_fail(MZ_ERR_ARGUMENT, "collective (%s): %d segments", what->label, what->n_segments);
    if ((unsigned)what->dtype >= MZ_N_DTYPES ||
        (is_sum && (!is_floating(what->dtype) || !is_floating(what->recv_dtype))))
        return mz_fail(MZ_ERR_ARGUMENT, "collective (%s): expected f32, f16 or bf16 to add up, found type %d",
                       what->label, (int)what->dtype);
    if (what->root < 0 || what->root >= mz_comm_size(comm))
        return mz_fail(MZ_ERR_ARGUMENT, "collective (%s): root %d of %d ranks", what->label, what->root,
                       mz_comm_size(comm));
    for (int i = 0; i < what->n_segments; i++) {
        const mz_segment *s = &what->segments[i];
        if (s->count < 0 || (has_blocks && mz_comm_size(comm) > 1 && s->stride < s->count))
            return mz_fail(MZ_ERR_ARGUMENT, "collective (%s): segment %d has count %lld and stride %lld",
                           what->label, i, (long long)s->count, (long long)s->stride);
    }
    return MZ_OK;
}

static mz_status collect(mz_comm *comm, const mz_collective *what, mz_stream *stream)
{
    mz_status status = check(comm, what);
    if (status)
        return status;
    if (!comm) {
        mz_comm_run_alone(what);
        return MZ_OK;
    }
    bool only_copies = what->kind == MZ_ALL_GATHER || what->kind == MZ_BROADCAST;
    if (comm->hier || !stream || !only_copies)
        return mz_comm_issue(comm, what, stream);
    for (int i = 0; i < what->n_segments && !status; i++) {
        const mz_segment *s = &what->segments[i];
        if (s->recv != s->send && s->count)
            status =
                comm->device->ops->copy(stream, s->recv, s->send, (size_t)s->count * mz_dtype_size(what->dtype));
    }
    return status;
}

mz_status mz_all_gather(mz_comm *comm, const mz_segment *segments, int n_segments, mz_dtype dtype,
                        const char *label, mz_stream *stream)
{
    const mz_collective what = {
        .kind = MZ_ALL_GATHER, .segments = segments, .n_segments = n_segments, .dtype = dtype, .label = label};
    return collect(comm, &what, stream);
}

mz_status mz_reduce_scatter(mz_comm *comm, const mz_segment *segments, int n_segments, mz_dtype dtype,
                            mz_dtype recv_dtype, float scale, bool accumulate, const char *label, mz_stream *stream)
{
    const mz_collective what = {.kind = MZ_REDUCE_SCATTER,
                                .segments = segments,
                                .n_segments = n_segments,
                                .dtype = dtype,
                                .recv_dtype = recv_dtype,
                                .scale = scale,
                                .accumulate = accumulate,
                                .label = label};
    return collect(comm, &what, stream);
}

mz_status mz_all_reduce(mz_comm *comm, const mz_segment *segments, int n_segments, mz_dtype dtype, float scale,
                        const char *label, mz_stream *stream)
{
    const mz_collective what = {.kind = MZ_ALL_REDUCE,
                                .segments = segments,
                                .n_segments = n_segments,
                                .dtype = dtype,
                                .recv_dtype = dtype,
                                .scale = scale,
                                .label = label};
    return collect(comm, &what, stream);
}

mz_status mz_broadcast(mz_comm *comm, const mz_segment *segments, int n_segments, mz_dtype dtype, int root,
                       const char *label, mz_stream *stream)
{
    const mz_collective what = {.kind = MZ_BROADCAST,
                                .segments = segments,
                                .n_segments = n_segments,
                                .dtype = dtype,
                                .root = root,
                                .label = label};
    return collect(comm, &what, stream);
}

mz_status mz_barrier(mz_comm *comm, const char *label)
{
    const mz_collective what = {.kind = MZ_BARRIER, .dtype = MZ_U8, .label = label};
    return comm && comm->hier ? mz_comm_issue(comm, &what, NULL) : MZ_OK;
}

mz_status mz_all_reduce_host(mz_comm *comm, double *values, int n, bool maximum, const char *label)
{
    if (n < 0 || n > MZ_HOST_VALUES_MAX)
        return mz_fail(MZ_ERR_ARGUMENT, "all_reduce_host (%s): %d values, at most %d", label, n,
                       MZ_HOST_VALUES_MAX);
    if (!comm || !comm->hier)
        return MZ_OK;
    const mz_segment segment = {values, comm->host_values, n, MZ_HOST_VALUES_MAX};
    const mz_collective what = {.kind = MZ_HOST_REDUCE,
                                .segments = &segment,
                                .n_segments = 1,
                                .dtype = MZ_F64,
                                .root = maximum,
                                .label = label};
    mz_status status = mz_comm_issue(comm, &what, NULL);
    for (int i = 0; i < n && !status; i++) {
        double result = comm->host_values[i];
        for (int r = 1; r < comm->layout.size; r++) {
            double value = comm->host_values[r * MZ_HOST_VALUES_MAX + i];
            if (!maximum)
                result += value;
            else if (!(result >= value) && result == result) /* a NaN stays */
                result = value;
        }
        values[i] = result;
    }
    return status;
}
