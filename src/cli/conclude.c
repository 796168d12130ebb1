/* How a job ends: one message, and every rank leaves with a code that says how it went. */
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/cli.h"
#include "core/clock.h"
#include "core/log.h"

/* So long a failed rank waits for the others in all; and so long until it says what it knows, before a launcher
 * that has seen another rank end sends SIGKILL (Open MPI's mpirun after 1 s). */
static const double GRACE_SECONDS = 5, SILENCE_SECONDS = 0.3;

int mz_exit_code(mz_status status)
{
    switch (status) {
    case MZ_OK:
        return 0;
    case MZ_ERR_USAGE:
        return 2;
    case MZ_STOPPED:
    case MZ_ERR_TIMEOUT: /* a rank or a link was lost: from the last checkpoint, on other nodes, it may go well */
    case MZ_ERR_PEER:
    case MZ_ERR_MISMATCH:
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

/* How a rank ended, as a number whose least over all ranks tells who is to speak and how the job ends: the lowest
 * rank with a failure of its own; one that only heard of a failure, if there is no other. INT_MAX: it did well. */
static int key_of(const mz_world *world, mz_status status)
{
    int rank = world->rank + (status == MZ_ERR_PEER ? world->size : 0);
    return rank << 7 | mz_exit_code(status);
}

static int code_of(int key)
{
    return key & 0x7f;
}

/* Whether all ranks came here in time; then *key is the least of theirs. A rank that did well waits for the others
 * without limit: they may have more to do. A failed one speaks when it has waited for a moment, since the job may
 * be ended any time by who started it; *spoke tells. */
static bool meet(const mz_world *world, mz_status status, bool failed, int *key, bool *spoke)
{
    static int mine, least; /* they outlive this call, as does the request when time is up */
    int done = 0;
    MPI_Request request;
    double begin = mz_clock_seconds();
    mine = *key;
    if (MPI_Iallreduce(&mine, &least, 1, MPI_INT, MPI_MIN, world->comm, &request) != MPI_SUCCESS)
        return false;
    while (MPI_Test(&request, &done, MPI_STATUS_IGNORE) == MPI_SUCCESS && !done) {
        double waited = mz_clock_seconds() - begin;
        if (failed && !*spoke && waited > SILENCE_SECONDS) {
            print_failure(status);
            *spoke = true;
        }
        if (failed && waited > GRACE_SECONDS)
            return false;
        usleep(1000);
    }
    *key = least;
    return done != 0;
}

int mz_conclude(mz_world *world, mz_status status, bool *alone)
{
    bool failed = status != MZ_OK && status != MZ_STOPPED, spoke = false;
    *alone = false;
    if (!world || world->size == 1) {
        if (failed && (world || mz_is_first_process()))
            print_failure(status);
        return mz_exit_code(status);
    }
    int own_key = failed ? key_of(world, status) : INT_MAX;
    int key = own_key;
    *alone = !meet(world, status, failed, &key, &spoke);
    if (failed && !spoke && (*alone || key == own_key))
        print_failure(status);
    return *alone || key == INT_MAX ? mz_exit_code(status) : code_of(key);
}

static volatile sig_atomic_t abandon_code;

static void leave_now(int number)
{
    (void)number;
    _exit(abandon_code);
}

void mz_abandon(mz_world *world, int code)
{
    static const unsigned abort_seconds = 3;
    abandon_code = code;
    signal(SIGALRM, leave_now);
    alarm(abort_seconds);
    MPI_Abort(world->comm, code);
}
