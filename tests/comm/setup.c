/* Set-up that fails on one rank fails on all and hangs nowhere: each allocation in turn, and no room in /dev/shm.
 * Built with GPU_DOUBLE, comms between GPUs, whose many events are allocations too: a part of these; and ranks that
 * would share a GPU. */
#include <dirent.h>
#include <unistd.h>

#include "check.h"
#include "comm/comm.h"
#include "comm/shm_segment.h"
#include "core/memory.h"
#ifdef GPU_DOUBLE
#include "gpu_double.h"
enum { COMM_STEP = 43, COMM_MOST = 1000 };
#else
enum { COMM_STEP = 1, COMM_MOST = 200 };
#endif

typedef mz_status (*create_function)(mz_world *world, mz_device *device, int ranks_per_node);

static mz_status create_comm(mz_world *world, mz_device *device, int ranks_per_node)
{
    mz_comm *comm = NULL;
    (void)ranks_per_node;
    mz_status status = mz_comm_create(world, device, 0, 0, &comm);
    CHECK((comm != NULL) == (status == MZ_OK), "%s, but comm %s", mz_status_text(status), comm ? "set" : "not set");
    mz_comm_destroy(comm);
    return status;
}

static mz_status create_world(mz_world *world, mz_device *device, int ranks_per_node)
{
    const mz_world_options options = {.ranks_per_node = ranks_per_node};
    mz_world *second = NULL;
    (void)world;
    (void)device;
    mz_status status = mz_world_create(&options, &second);
    CHECK((second != NULL) == (status == MZ_OK), "%s", mz_status_text(status));
    mz_world_destroy(second);
    return status;
}

/* Fails the n-th allocation on one rank, every `step` of them, until nothing fails any more. */
static void sweep(create_function create, mz_world *world, mz_device *device, int ranks_per_node, long first,
                  long step, long most)
{
    int failed = 1;
    for (long n = first; failed && n < most; n += step) {
        int culprit = (int)(n % world->size);
        if (world->rank == culprit)
            mz_memory_fail_at(n);
        mz_status status = create(world, device, ranks_per_node);
        mz_memory_fail_at(0);
        failed = status != MZ_OK;
        CHECK(!failed || status == (world->rank == culprit ? MZ_ERR_MEMORY : MZ_ERR_PEER),
              "rank %d, allocation %ld: %s", world->rank, n, mz_status_text(status));
        int all_failed = 0, some_failed = 0;
        MPI_Allreduce(&failed, &all_failed, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD);
        MPI_Allreduce(&failed, &some_failed, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
        CHECK(all_failed == some_failed, "allocation %ld: some ranks failed, others did not", n);
        failed = some_failed;
    }
    CHECK(!failed, "never succeeded");
}

static void check_no_room(void)
{
    mz_shm_segment segment;
    mz_status status = mz_shm_segment_open(MPI_COMM_WORLD, 4096, (size_t)1 << 46, &segment);
    int rank = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    CHECK(status == (rank ? MZ_ERR_PEER : MZ_ERR_MEMORY), "%s", mz_status_text(status));
    if (rank == 0)
        CHECK_MESSAGE("MiB needed in /dev/shm");
    mz_shm_segment_close(&segment);
}

static void check_nothing_left(void)
{
    DIR *directory = opendir("/dev/shm");
    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        char own[64];
        snprintf(own, sizeof own, "mpizero.%ld.", (long)getpid());
        CHECK(strncmp(entry->d_name, own, strlen(own)) != 0, "left in /dev/shm: %s", entry->d_name);
    }
    if (directory)
        closedir(directory);
}

#ifdef GPU_DOUBLE
/* Ranks share a GPU where that is asked for and each is a node of its own. */
static void check_sharing(mz_device *device, int ranks_per_node, bool asked, bool allowed)
{
    const mz_world_options options = {.ranks_per_node = ranks_per_node};
    mz_world *world = NULL;
    mz_comm *comm = NULL;
    REQUIRE(mz_world_create(&options, &world));
    gpu_double_become(device, 0);
    device->n_sharing = 1;
    if (asked)
        setenv("MPIZERO_SHARE_GPU", "1", 1);
    mz_status status = mz_comm_create(world, device, 0, 0, &comm);
    unsetenv("MPIZERO_SHARE_GPU");
    CHECK(status == (allowed ? MZ_OK : MZ_ERR_LAUNCH), "%d per node: %s", ranks_per_node, mz_status_text(status));
    if (!allowed)
        CHECK_MESSAGE("would share");
    CHECK(device->n_sharing == (allowed ? world->size : 1), "%d ranks share", device->n_sharing);
    mz_comm_destroy(comm);
    mz_world_destroy(world);
}
#endif

int main(void)
{
    int level = 0;
    mz_device *device = NULL;
    MPI_Init_thread(NULL, NULL, MPI_THREAD_MULTIPLE, &level);
    REQUIRE(mz_device_open("cpu", 0, 1, &device));
#ifdef GPU_DOUBLE
    int rank = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    gpu_double_become(device, rank);
#endif
    for (int cut = 1; cut <= 3; cut++) {
        mz_world *world = NULL;
        const mz_world_options options = {.ranks_per_node = cut};
        REQUIRE(mz_world_create(&options, &world));
        sweep(create_world, world, device, cut, 2, 1,
              200); /* the first comes before anything that others could notice */
        sweep(create_comm, world, device, cut, 1, COMM_STEP, COMM_MOST);
        mz_world_destroy(world);
    }
#ifdef GPU_DOUBLE
    check_sharing(device, 1, false, false);
    check_sharing(device, 1, true, true);
    check_sharing(device, 3, true, false);
#endif
    check_no_room();
    check_nothing_left();
    mz_device_close(device);
    MPI_Finalize();
    return n_failures != 0;
}
