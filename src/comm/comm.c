#include "comm/comm.h"

#include <sched.h>
#include <stdio.h>
#include <time.h>

#include "comm/gpu.h"
#include "comm/issue.h"
#include "comm/mpi_check.h"
#include "comm/predicted.h"
#include "core/error.h"
#include "core/memory.h"
#include "core/threads.h"

/* Between GPUs only host values of a step take the way through shared memory. */
static const size_t host_chunk_bytes = 64 << 10;

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
    bool spin = false, gpus = false;
    size_t size = (size_t)comm->layout.size, piece_bytes = chunk_bytes;
    mz_status status = mz_gpu_check(comm, &gpus);
    if (status || size == 1)
        return status || !gpus ? status : mz_gpu_comm_create(comm, piece_bytes, spin, &comm->gpu);
    status = mz_mpi_agree(comm->group, cores_suffice(comm->group, &spin), "setting up collectives");
    if (status)
        return status;
    if (gpus)
        chunk_bytes = host_chunk_bytes;
    else if (!chunk_bytes)
        chunk_bytes = mz_hier_chunk_bytes(comm->layout.per_node);
    status = mz_hier_create(comm->group, &comm->layout, comm->world->wire, chunk_bytes, spin, &comm->hier);
    if (!status)
        status = mz_all_reduce_plan_create(comm->layout.rank, comm->layout.size, &comm->plan);
    if (!status && !(comm->host_values = mz_calloc(size * MZ_HOST_VALUES_MAX, sizeof(double))))
        status = MZ_ERR_MEMORY;
    status = mz_mpi_agree(comm->group, status, "setting up collectives");
    return status || !gpus ? status : mz_gpu_comm_create(comm, piece_bytes, spin, &comm->gpu);
}

/* Collective over `from`. rank: this one's there. */
static mz_status create(mz_world *world, mz_device *device, MPI_Comm from, int rank, int color, size_t chunk_bytes,
                        mz_comm **out)
{
    MPI_Comm group = MPI_COMM_NULL;
    mz_status status =
        mz_mpi_check(MPI_Comm_split(from, color < 0 ? MPI_UNDEFINED : color, rank, &group), "MPI_Comm_split");
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
    pthread_mutex_lock(&world->comms_lock);
    comm->next_in_world = world->comms;
    world->comms = comm;
    pthread_mutex_unlock(&world->comms_lock);
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

mz_status mz_comm_create(mz_world *world, mz_device *device, int color, size_t chunk_bytes, mz_comm **out)
{
    return create(world, device, world->comm, world->rank, color, chunk_bytes, out);
}

static mz_status check_group(const mz_comm *comm, int first, int count, int step)
{
    int rank = comm->layout.rank, size = comm->layout.size;
    bool fits = count > 0 && step > 0 && first >= 0 && (int64_t)first + (int64_t)(count - 1) * step < size;
    if (count == 0 || (fits && rank >= first && (rank - first) % step == 0 && (rank - first) / step < count))
        return MZ_OK;
    return mz_fail(MZ_ERR_ARGUMENT, "rank %d of %d: a group of %d ranks from %d in steps of %d has not got it",
                   rank, size, count, first, step);
}

mz_status mz_comm_split(mz_comm *comm, int first, int count, int step, mz_comm **group)
{
    *group = NULL;
    if (!comm)
        return MZ_OK;
    mz_comm *made = NULL;
    mz_status status = check_group(comm, first, count, step);
    if (comm->predicted) {
        status = status ? status : mz_comm_split_predicted(comm, count, step, &made);
    } else {
        status = mz_mpi_agree(comm->group, status, "setting up groups of ranks");
        if (!status) {
            mz_status mine =
                create(comm->world, comm->device, comm->group, comm->layout.rank, count > 0 ? first : -1, 0, &made);
            status = mz_mpi_agree(comm->group, mine, "setting up groups of ranks");
        }
    }
    if (status) {
        mz_comm_destroy(made);
        return status;
    }
    if (made) {
        made->parent = comm;
        made->next_group = comm->groups;
        comm->groups = made;
    }
    *group = made;
    return MZ_OK;
}

static void add_stats(mz_comm_stats *sum, const mz_comm_stats *more)
{
    sum->n_calls += more->n_calls;
    sum->bytes_in_node += more->bytes_in_node;
    sum->bytes_between_nodes += more->bytes_between_nodes;
    sum->seconds += more->seconds;
}

/* The parent keeps what this group has sent. */
static void leave_parent(mz_comm *comm)
{
    if (!comm->parent)
        return;
    mz_comm_stats stats;
    mz_comm_get_stats(comm, &stats);
    add_stats(&comm->parent->past, &stats);
    mz_comm **link = &comm->parent->groups;
    while (*link != comm)
        link = &(*link)->next_group;
    *link = comm->next_group;
}

static void leave_world(mz_comm *comm)
{
    pthread_mutex_lock(&comm->world->comms_lock);
    mz_comm **link = &comm->world->comms;
    while (*link && *link != comm)
        link = &(*link)->next_in_world;
    if (*link)
        *link = comm->next_in_world;
    pthread_mutex_unlock(&comm->world->comms_lock);
}

void mz_comm_destroy(mz_comm *comm)
{
    if (!comm)
        return;
    leave_parent(comm);
    if (comm->world)
        leave_world(comm);
    mz_gpu_comm_destroy(comm->gpu);
    mz_hier_destroy(comm->hier);
    mz_all_reduce_plan_free(&comm->plan);
    mz_free(comm->host_values);
    mz_layout_free(&comm->layout);
    mz_comm_free_records(comm);
    pthread_cond_destroy(&comm->turn_changed);
    pthread_mutex_destroy(&comm->lock);
    mz_free(comm->predicted);
    if (!comm->failed &&
        comm->group != MPI_COMM_NULL) /* else others may be gone, and with them who would take part */
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

void mz_comm_get_place(const mz_comm *comm, mz_comm_place *place)
{
    *place = (mz_comm_place){.n_nodes = 1, .per_node = 1};
    if (comm)
        *place = (mz_comm_place){.n_nodes = comm->layout.n_nodes,
                                 .per_node = comm->layout.per_node,
                                 .node = comm->layout.node,
                                 .local = comm->layout.local};
}

int mz_comm_rank_at(const mz_comm *comm, int node, int local)
{
    return comm ? mz_layout_rank(&comm->layout, node, local) : 0;
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
    if (comm->gpu)
        mz_gpu_comm_stats(comm->gpu, stats);
    add_stats(stats, &comm->past);
    for (const mz_comm *group = comm->groups; group; group = group->next_group) {
        mz_comm_stats more;
        mz_comm_get_stats(group, &more);
        add_stats(stats, &more);
    }
}

void mz_comm_describe_rail(const mz_comm *comm, char *text, size_t bytes)
{
    snprintf(text, bytes, "%s", "");
    if (comm && comm->hier)
        mz_hier_describe_rail(comm->hier, text, bytes);
}

void mz_comm_set_delay(mz_comm *comm, double seconds)
{
    comm->delay = seconds;
}
