#include "comm/conclude.h"

#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/error.h"
#include "core/log.h"

/* So long a rank that failed before MPI has started, and does not speak, waits for the one that does. */
static const unsigned COURTESY_SECONDS = 2;
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

static bool is_failure(mz_status status)
{
    return status != MZ_OK && status != MZ_STOPPED;
}

enum { CODE_MASK = 0x7f, EARLY = 0x80, RANK_SHIFT = 8 };

/* How a rank ended, as a number whose least over all ranks tells who is to speak and how the job ends: the lowest
 * rank with a failure of its own; one that only heard of a failure, if there is no other. INT_MAX: it did well. */
static int key_of(const mz_world *world, mz_status status, bool is_early)
{
    if (!is_failure(status))
        return INT_MAX;
    int rank = world->rank + (status == MZ_ERR_PEER ? world->size : 0);
    return rank << RANK_SHIFT | (is_early ? EARLY : 0) | mz_exit_code(status);
}

/* Whether all ranks came here in time; then *key is the least of theirs. A rank that did well waits for the others
 * without limit: they may have more to do. A failed one speaks when it has waited for a moment, since the job may
 * be ended any time by who started it; *spoke tells. */
static bool meet(const mz_world *world, mz_status status, int *key, bool *spoke)
{
    /* They outlive this call, as does a request whose time is up; after that nobody meets again. */
    static int mine, least;
    int done = 0;
    MPI_Request request;
    double begin = mz_clock_seconds();
    mine = *key;
    if (MPI_Iallreduce(&mine, &least, 1, MPI_INT, MPI_MIN, world->comm, &request) != MPI_SUCCESS)
        return false;
    while (MPI_Test(&request, &done, MPI_STATUS_IGNORE) == MPI_SUCCESS && !done) {
        double waited = mz_clock_seconds() - begin;
        if (is_failure(status) && !*spoke && waited > SILENCE_SECONDS) {
            print_failure(status);
            *spoke = true;
        }
        if (is_failure(status) && waited > GRACE_SECONDS)
            return false;
        usleep(1000);
    }
    *key = least;
    return done != 0;
}

/* Fills in world->end. */
static void meet_and_speak(mz_world *world, mz_status status, bool is_early)
{
    int own_key = key_of(world, status, is_early);
    bool spoke = false;
    mz_world_end end = {.has_met = true, .key = own_key};
    end.is_alone = !meet(world, status, &end.key, &spoke);
    if (is_failure(status) && !spoke && (end.is_alone || end.key == own_key))
        print_failure(status);
    world->end = end;
}

void mz_conclude_early(mz_world *world, mz_status status)
{
    if (world->size > 1 && is_failure(status) && !world->end.has_met)
        meet_and_speak(world, status, true);
}

/* The first process speaks for all, since all got the same command line. The others wait for it: a launcher that
 * sees one of them end kills the rest, the first among them, before it has spoken. When the first ends, it kills
 * those who wait. */
static int conclude_without_mpi(mz_status status)
{
    if (is_failure(status) && mz_is_first_process())
        print_failure(status);
    else if (is_failure(status))
        sleep(COURTESY_SECONDS);
    return mz_exit_code(status);
}

int mz_conclude(mz_world *world, mz_status status, bool *alone)
{
    *alone = false;
    if (!world)
        return conclude_without_mpi(status);
    if (world->size == 1) {
        if (is_failure(status))
            print_failure(status);
        return mz_exit_code(status);
    }
    if (!world->end.has_met)
        meet_and_speak(world, status, false);
    *alone = world->end.is_alone;
    int key = world->end.key;
    if (!*alone && key != INT_MAX && (key & EARLY)) {
        int again = INT_MAX;
        bool spoke = true;
        *alone = !meet(world, status, &again, &spoke);
    }
    return *alone || key == INT_MAX ? mz_exit_code(status) : key & CODE_MASK;
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
