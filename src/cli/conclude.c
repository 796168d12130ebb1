/* How a job ends: one message, and every rank leaves with a code that says how it went. */
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/cli.h"
#include "core/clock.h"
#include "core/log.h"

static const double GRACE_SECONDS = 5;

int mz_exit_code(mz_status status)
{
    switch (status) {
    case MZ_OK:
        return 0;
    case MZ_ERR_USAGE:
        return 2;
    case MZ_STOPPED:
        return 75;
    default:
        return 1;
    }
}

bool mz_is_first_process(void)
{
    static const char *const variables[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"};
    for (size_t i = 0; i < sizeof variables / sizeof variables[0]; i++) {
        const char *rank = getenv(variables[i]);
        if (rank)
            return atoi(rank) == 0;
    }
    return true;
}

static void print_failure(mz_status status)
{
    const char *message = mz_last_error();
    if (*message)
        mz_log(MZ_LOG_ERROR, "%s", message);
    else
        mz_log(MZ_LOG_ERROR, "%s", mz_status_text(status));
}

/* Whether all ranks came here in time; then *key is the least of theirs. A rank that did well waits for the
 * others without limit: they may have more to do. */
static bool meet(const mz_world *world, bool failed, int *key)
{
    static int mine, least; /* they outlive this call, as does the request when time is up */
    int done = 0;
    MPI_Request request;
    double begin = mz_clock_seconds();
    mine = *key;
    if (MPI_Iallreduce(&mine, &least, 1, MPI_INT, MPI_MIN, world->comm, &request) != MPI_SUCCESS)
        return false;
    while (MPI_Test(&request, &done, MPI_STATUS_IGNORE) == MPI_SUCCESS && !done) {
        if (failed && mz_clock_seconds() - begin > GRACE_SECONDS)
            return false;
        usleep(1000);
    }
    *key = least;
    return done != 0;
}

int mz_conclude(mz_world *world, mz_status status, bool *alone)
{
    bool failed = status != MZ_OK && status != MZ_STOPPED;
    *alone = false;
    if (!world || world->size == 1) {
        if (failed && (world || mz_is_first_process()))
            print_failure(status);
        return mz_exit_code(status);
    }
    /* The lowest rank with a failure of its own speaks; one that only heard of a failure, if there is no other. */
    int own_key = !failed ? INT_MAX : world->rank + (status == MZ_ERR_PEER ? world->size : 0);
    int key = own_key;
    *alone = !meet(world, failed, &key);
    if (failed && (*alone || key == own_key))
        print_failure(status);
    if (!failed && key != INT_MAX)
        return mz_exit_code(MZ_ERR_PEER);
    return mz_exit_code(status);
}
