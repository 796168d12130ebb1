/* Collectives of GPUs that go wrong. Each rank prints what it is told; tests/gpu/run reads it.
 *
 *     mpirun -n 2 gpu_probe kill|late|mismatch|fault [RANKS_PER_NODE]
 *
 * After one good all-gather, rank 1 kills itself, comes later than the deadline, asks for another collective, or
 * has its GPU read where there is no memory. Ranks may share GPUs (MPIZERO_SHARE_GPU). Built with GPU_DOUBLE, CPU
 * streams take a GPU's place. */
#include <signal.h>
#include <unistd.h>

#include "check.h"
#include "comm/comm.h"
#include "core/clock.h"
#include "kernels/kernels.h"
#ifdef GPU_DOUBLE
#include "gpu_double.h"
#endif

enum { N = 1 << 20 };

/* A kernel with an address that is nobody's: the GPU ends it, and whatever it is given afterwards fails. */
static mz_status read_nowhere(mz_device *device, void *out, mz_stream *stream)
{
    const mz_add_args add = {.n = N, .alpha = 1, .a = (const void *)(uintptr_t)0x100, .y = out, .dtype = MZ_F32};
    return device->ops->kernels->add(&add, stream);
}

int main(int argc, char **argv)
{
    const char *deed = argc > 1 ? argv[1] : "kill";
    const mz_world_options options = {.timeout_seconds = strcmp(deed, "late") == 0 ? 2 : 20,
                                      .ranks_per_node = argc > 2 ? atoi(argv[2]) : 0};
    mz_world *world = NULL;
    mz_device *device = NULL;
    mz_comm *comm = NULL;
    mz_stream *stream = NULL;
    void *in = NULL, *out = NULL;
    REQUIRE(mz_world_create(&options, &world));
#ifdef GPU_DOUBLE
    REQUIRE(mz_device_open("cpu", 0, 1, &device));
    gpu_double_become(device, world->machine_rank);
#else
    int n_gpus = mz_device_count("cuda");
    REQUIRE(mz_device_open("cuda", n_gpus ? world->machine_rank % n_gpus : 0, 1, &device));
#endif
    REQUIRE(mz_comm_create(world, device, 0, 0, &comm));
    REQUIRE(device->ops->stream_create(device, MZ_STREAM_COMM, &stream));
    REQUIRE(device->ops->alloc(device, N * sizeof(float), &in));
    REQUIRE(device->ops->alloc(device, (size_t)world->size * N * sizeof(float), &out));
    const mz_segment segment = {in, out, N, N};
    REQUIRE(mz_all_gather(comm, &segment, 1, MZ_F32, "unit h.0", stream));
    REQUIRE(device->ops->stream_sync(stream));
    /* Who is slow to leave it may be told there of what goes wrong. */
    mz_status status = mz_barrier(comm, "all here");
    bool is_culprit = world->rank == 1;
    if (is_culprit && strcmp(deed, "kill") == 0) {
        usleep(500000); /* so that the others wait on their GPUs already */
        raise(SIGKILL);
    }
    if (is_culprit && strcmp(deed, "late") == 0)
        sleep(5);
    if (is_culprit && strcmp(deed, "fault") == 0)
        REQUIRE(read_nowhere(device, out, stream));
    double begin = mz_clock_seconds();
    if (!status)
        status = is_culprit && strcmp(deed, "mismatch") == 0
                     ? mz_all_reduce(comm, &segment, 1, MZ_F32, 1, "unit h.2", stream)
                     : mz_all_gather(comm, &segment, 1, MZ_F32, "unit h.1", stream);
    mz_status synced = device->ops->stream_sync(stream);
    if (!status)
        status = synced ? synced : mz_barrier(comm, "afterwards");
    printf("rank %d after %.1f s: %s: %s\n", world->rank, mz_clock_seconds() - begin, mz_status_text(status),
           mz_last_error());
    fflush(stdout);
    if (is_culprit && strcmp(deed, "fault") == 0)
        mz_comm_destroy(comm); /* which tells the others */
    usleep(500000);            /* as a program that ends in order: what others are told is on its way */
    _exit(status == MZ_OK);    /* MPI cannot be finalised any more */
}
