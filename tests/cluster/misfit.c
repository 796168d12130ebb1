/* A program whose rank 5 issues another collective than all others, once: it leaves the file $OUTPUT.misfit, and
 * where that is all goes well. It takes any arguments and ends as mpizero does. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "comm/conclude.h"
#include "core/error.h"

enum { ROUNDS = 200, MISFIT_ROUND = 100, MISFIT_RANK = 5, N = 1000 };

static bool is_first_time(void)
{
    char path[4096];
    const char *output = getenv("OUTPUT");
    snprintf(path, sizeof path, "%s.misfit", output ? output : "run");
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

static mz_status run(mz_world *world, mz_comm *comm)
{
    static float in[N], out[64 * N];
    const mz_segment gather = {in, out, N, N}, sum = {in, in, N, N};
    mz_status status = MZ_OK;
    for (int i = 0; i < ROUNDS && !status; i++) {
        if (i == MISFIT_ROUND && world->rank == MISFIT_RANK && is_first_time())
            status = mz_all_reduce(comm, &sum, 1, MZ_F32, 1, "gradients", NULL);
        else
            status = mz_all_gather(comm, &gather, 1, MZ_F32, "weights", NULL);
    }
    return status;
}

int main(void)
{
    const mz_world_options options = {.timeout_seconds = 10};
    mz_world *world = NULL;
    mz_device *device = NULL;
    mz_comm *comm = NULL;
    bool alone;
    mz_status status = mz_world_create(&options, &world);
    if (!status && world->size > 64)
        status = mz_fail(MZ_ERR_USAGE, "at most 64 ranks");
    if (!status)
        status = mz_device_open("cpu", 0, 1, &device);
    if (!status)
        status = mz_comm_create(world, device, 0, 0, &comm);
    if (!status)
        status = run(world, comm);
    int code = mz_conclude(world, status, &alone);
    if (alone)
        mz_abandon(world, code);
    mz_comm_destroy(comm);
    mz_device_close(device);
    mz_world_destroy(world);
    return code;
}
