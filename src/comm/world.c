#include <config.h>

#include "comm/comm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "comm/board.h"
#include "comm/launch.h"
#include "comm/mpi_check.h"
#include "core/error.h"
#include "core/log.h"
#include "core/memory.h"
#include "device/placement.h"

static const double default_timeout_seconds = 1800;

static mz_status start_mpi(mz_world *world)
{
    int running = 0, level = MPI_THREAD_SINGLE;
    mz_status status = mz_mpi_check(MPI_Initialized(&running), "MPI_Initialized");
    if (status)
        return status;
    if (running) {
        status = mz_mpi_check(MPI_Query_thread(&level), "MPI_Query_thread");
    } else {
        status = mz_launch_check_early();
        /* MPI carries control messages only. Open MPI's busy waiting, which srun does not know to turn off where
         * ranks share cores, would take those from ranks that still start. */
        setenv("OMPI_MCA_mpi_yield_when_idle", "1", 0);
        if (!status)
            status = mz_mpi_check(MPI_Init_thread(NULL, NULL, MPI_THREAD_MULTIPLE, &level), "MPI_Init_thread");
        world->owns_mpi = !status;
    }
    if (status)
        return status;
    if (level < MPI_THREAD_MULTIPLE)
        return mz_fail(MZ_ERR_LAUNCH, "MPI offers thread level %d, expected MPI_THREAD_MULTIPLE (%d): %s", level,
                       MPI_THREAD_MULTIPLE,
                       running ? "start it with MPI_Init_thread and MPI_THREAD_MULTIPLE"
                               : "this MPI library was built without threads; use another");
    status = mz_mpi_check(MPI_Comm_dup(MPI_COMM_WORLD, &world->comm), "MPI_Comm_dup");
    if (!status)
        status = mz_mpi_check(MPI_Comm_set_errhandler(world->comm, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    if (!status)
        status = mz_mpi_check(MPI_Comm_rank(world->comm, &world->rank), "MPI_Comm_rank");
    if (!status)
        status = mz_mpi_check(MPI_Comm_size(world->comm, &world->size), "MPI_Comm_size");
    return status;
}

/* All ranks must cut their machines alike, else they would disagree about who is where. */
static mz_status check_ranks_per_node(const mz_world *world, int ranks_per_node)
{
    int range[2] = {ranks_per_node, -ranks_per_node};
    mz_status status =
        mz_mpi_check(MPI_Allreduce(MPI_IN_PLACE, range, 2, MPI_INT, MPI_MIN, world->comm), "MPI_Allreduce");
    if (status)
        return status;
    if (range[0] != -range[1])
        return mz_fail(MZ_ERR_MISMATCH, "ranks per node: %d on one rank, %d on another; give all the same",
                       range[0], -range[1]);
    if (range[0] < 0)
        return mz_fail(MZ_ERR_ARGUMENT, "ranks per node: expected 0 (as found) or more, found %d", range[0]);
    return MZ_OK;
}

/* Where each rank of the machine may run; a rank that cannot tell says nowhere. */
static mz_status find_processors(mz_world *world, MPI_Comm machine)
{
    cpu_set_t own;
    mz_status status = mz_mpi_check(MPI_Comm_size(machine, &world->machine_size), "MPI_Comm_size");
    if (status)
        return status;
    if (sched_getaffinity(0, sizeof own, &own))
        CPU_ZERO(&own);
    world->cpus_of = mz_calloc((size_t)world->machine_size, sizeof *world->cpus_of);
    status = mz_mpi_agree(machine, world->cpus_of ? MZ_OK : MZ_ERR_MEMORY, "finding the topology");
    return status ? status
                  : mz_mpi_check(
                        MPI_Allgather(&own, sizeof own, MPI_BYTE, world->cpus_of, sizeof own, MPI_BYTE, machine),
                        "MPI_Allgather");
}

/* The world rank of the lowest rank on this rank's node. */
static mz_status find_leader(mz_world *world, int ranks_per_node, int *leader)
{
    MPI_Comm machine = MPI_COMM_NULL, node = MPI_COMM_NULL;
    int rank = 0;
    mz_status status =
        mz_mpi_check(MPI_Comm_split_type(world->comm, MPI_COMM_TYPE_SHARED, world->rank, MPI_INFO_NULL, &machine),
                     "MPI_Comm_split_type");
    if (!status)
        status = mz_mpi_check(MPI_Comm_rank(machine, &rank), "MPI_Comm_rank");
    if (!status)
        status = mz_mpi_check(MPI_Comm_split(machine, ranks_per_node > 0 ? rank / ranks_per_node : 0, rank, &node),
                              "MPI_Comm_split");
    world->machine_rank = rank;
    if (!status)
        status = find_processors(world, machine);
    *leader = world->rank;
    if (!status)
        status = mz_mpi_check(MPI_Bcast(leader, 1, MPI_INT, 0, node), "MPI_Bcast");
    if (node != MPI_COMM_NULL)
        MPI_Comm_free(&node);
    if (machine != MPI_COMM_NULL)
        MPI_Comm_free(&machine);
    return status;
}

/* Numbers the nodes in order of their lowest ranks, and the ranks within them. */
static void number_nodes(mz_world *world, const int *leader_of)
{
    for (int r = 0; r < world->size; r++) {
        int leader = leader_of[r];
        if (leader == r) {
            world->node_of[r] = world->n_nodes++;
            world->local_rank_of[r] = 0;
            continue;
        }
        world->node_of[r] = world->node_of[leader];
        world->local_rank_of[r] = 1;
        for (int q = leader + 1; q < r; q++)
            world->local_rank_of[r] += leader_of[q] == leader;
    }
    world->node = world->node_of[world->rank];
    world->local_rank = world->local_rank_of[world->rank];
    for (int r = 0; r < world->size; r++)
        world->local_size += world->node_of[r] == world->node;
}

/* 0: MPI, 1: UCX. */
static mz_status choose_wire(const char *asked, int *choice)
{
    if (!asked)
        asked = getenv("MPIZERO_WIRE");
    if (asked && *asked && strcmp(asked, "mpi") != 0 && strcmp(asked, "ucx") != 0)
        return mz_fail(MZ_ERR_ARGUMENT, "the wire between nodes: expected ucx or mpi, found \"%s\"", asked);
#ifdef HAVE_UCX
    *choice = !(asked && strcmp(asked, "mpi") == 0);
#else
    *choice = 0;
    if (asked && strcmp(asked, "ucx") == 0)
        return mz_fail(MZ_ERR_UNSUPPORTED,
                       "the wire between nodes: ucx asked for, but this program was built without UCX; install it "
                       "and build again, or take mpi");
#endif
    return MZ_OK;
}

static mz_status find_wire(mz_world *world, const char *asked)
{
    static const char *const names[] = {"mpi", "ucx"};
    int choice = 0;
    mz_status status = mz_mpi_agree(world->comm, choose_wire(asked, &choice), "choosing the wire between nodes");
    if (status)
        return status;
    int range[2] = {choice, -choice};
    status = mz_mpi_check(MPI_Allreduce(MPI_IN_PLACE, range, 2, MPI_INT, MPI_MIN, world->comm), "MPI_Allreduce");
    if (status)
        return status;
    if (range[0] != -range[1])
        return mz_fail(MZ_ERR_MISMATCH,
                       "the wire between nodes: ucx on one rank, mpi on another; give all the same "
                       "--wire or MPIZERO_WIRE, and the same build");
    world->wire = names[choice];
    return MZ_OK;
}

/* Returns alike on all ranks of the world. */
static mz_status open_board(mz_world *world)
{
    MPI_Comm node = MPI_COMM_NULL;
    int n = 0, *ranks = mz_alloc((size_t)world->local_size * sizeof *ranks);
    for (int r = 0; ranks && r < world->size; r++)
        if (world->node_of[r] == world->node)
            ranks[n++] = r;
    mz_status status = mz_mpi_agree(world->comm, ranks ? MZ_OK : MZ_ERR_MEMORY, "finding the topology");
    if (!status)
        status = mz_mpi_check(MPI_Comm_split(world->comm, world->node, world->local_rank, &node), "MPI_Comm_split");
    if (!status)
        status = mz_mpi_agree(world->comm,
                              mz_board_create(node, ranks, world->local_rank, world->local_size, &world->board),
                              "finding the topology");
    if (node != MPI_COMM_NULL)
        MPI_Comm_free(&node);
    mz_free(ranks);
    return status;
}

static mz_status find_topology(mz_world *world, int ranks_per_node)
{
    int leader;
    mz_status status = check_ranks_per_node(world, ranks_per_node);
    if (!status)
        status = find_leader(world, ranks_per_node, &leader);
    if (status)
        return status;

    int *leader_of = mz_alloc((size_t)world->size * sizeof *leader_of);
    world->node_of = mz_alloc((size_t)world->size * sizeof *world->node_of);
    world->local_rank_of = mz_alloc((size_t)world->size * sizeof *world->local_rank_of);
    if (!leader_of || !world->node_of || !world->local_rank_of)
        status = MZ_ERR_MEMORY;
    status = mz_mpi_agree(world->comm, status, "finding the topology");
    if (!status)
        status =
            mz_mpi_check(MPI_Allgather(&leader, 1, MPI_INT, leader_of, 1, MPI_INT, world->comm), "MPI_Allgather");
    if (!status)
        number_nodes(world, leader_of);
    mz_free(leader_of);
    return status ? status : open_board(world);
}

mz_status mz_world_create(const mz_world_options *options, mz_world **out)
{
    mz_world *world = mz_calloc(1, sizeof *world);
    if (!world)
        return MZ_ERR_MEMORY;
    world->comm = MPI_COMM_NULL;
    pthread_mutex_init(&world->comms_lock, NULL);
    world->timeout_seconds =
        options && options->timeout_seconds > 0 ? options->timeout_seconds : default_timeout_seconds;
    mz_status status = start_mpi(world);
    if (!status)
        status = mz_launch_check(world->rank, world->size);
    if (!status) {
        mz_log_set_rank(world->rank, world->size);
        if (gethostname(world->host, sizeof world->host - 1))
            snprintf(world->host, sizeof world->host, "unknown host");
        status = find_topology(world, options ? options->ranks_per_node : 0);
        if (!status && world->n_nodes > 1)
            mz_device_expect_awaits(); /* relay.h */
        if (!status)
            status = find_wire(world, options ? options->wire : NULL);
    }
    if (status) {
        mz_world_destroy(world);
        return status;
    }
    *out = world;
    return MZ_OK;
}

/* Every rank of the machine that sees the same devices comes to the same assignment. */
static mz_status choose_device(const mz_world *world, const char *name, int *ordinal)
{
    int n = mz_device_count(name);
    if (n < 2)
        return MZ_OK;
    cpu_set_t *near = mz_calloc((size_t)n, sizeof *near);
    int *device_of = mz_calloc((size_t)world->machine_size, sizeof *device_of);
    if (near && device_of) {
        mz_device_near(name, near, n);
        mz_place(near, n, world->cpus_of, world->machine_size, device_of);
        *ordinal = device_of[world->machine_rank];
    }
    mz_status status = near && device_of ? MZ_OK : MZ_ERR_MEMORY;
    mz_free(near);
    mz_free(device_of);
    return status;
}

mz_status mz_world_open_device(const mz_world *world, const char *name, int n_threads, mz_device **device)
{
    if (!name)
        name = mz_device_count("cuda") > 0 ? "cuda" : "cpu";
    int ordinal = 0;
    mz_status status = choose_device(world, name, &ordinal);
    return status ? status : mz_device_open(name, ordinal, n_threads, device);
}

void mz_world_destroy(mz_world *world)
{
    if (!world)
        return;
    mz_board_destroy(world->board);
    if (world->comm != MPI_COMM_NULL)
        MPI_Comm_free(&world->comm);
    if (world->owns_mpi)
        MPI_Finalize();
    mz_free(world->cpus_of);
    mz_free(world->node_of);
    mz_free(world->local_rank_of);
    pthread_mutex_destroy(&world->comms_lock);
    mz_free(world);
}
