/* How ranks that ended differently leave: their exit codes, who speaks, and the rank that nobody joins. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "comm/conclude.h"
#include "core/clock.h"
#include "core/error.h"

static int wrong;

/* Each rank ends with its own status, and with something to take down for so long, of which it says so early where
 * `early`; checks its exit code, and whether it was the one to print. */
static void check_down(mz_world *world, const char *name, const mz_status status[3], const int code[3], int speaker,
                       bool early, const double seconds[3])
{
    FILE *captured = tmpfile();
    int old = dup(STDERR_FILENO);
    bool alone = true;
    world->end = (mz_world_end){0};
    char line[256] = "";
    if (status[world->rank] != MZ_OK)
        mz_fail(status[world->rank], "told by rank %d", world->rank);
    dup2(fileno(captured), STDERR_FILENO);
    if (early)
        mz_conclude_early(world, status[world->rank]);
    usleep((useconds_t)(seconds[world->rank] * 1e6));
    int found = mz_conclude(world, status[world->rank], &alone);
    dup2(old, STDERR_FILENO);
    close(old);
    rewind(captured);
    int n = 0;
    while (fgets(line, sizeof line, captured))
        n += strstr(line, "told by rank") != NULL;
    fclose(captured);
    if (found == code[world->rank] && !alone && n == (world->rank == speaker))
        return;
    printf("%s, rank %d: code %d for %d, alone %d, spoke %d times\n", name, world->rank, found, code[world->rank],
           alone, n);
    wrong = 1;
}

static void check(mz_world *world, const char *name, const mz_status status[3], const int code[3], int speaker)
{
    check_down(world, name, status, code, speaker, false, (double[]){0, 0, 0});
}

/* Rank 1 fails while the others are busy for longer than it waits. */
static void check_alone(mz_world *world)
{
    bool alone;
    double begin = mz_clock_seconds();
    world->end = (mz_world_end){0};
    MPI_Barrier(world->comm);
    if (world->rank != 1)
        sleep(6);
    mz_fail(MZ_ERR_IO, "alone");
    mz_conclude(world, world->rank == 1 ? MZ_ERR_IO : MZ_OK, &alone);
    double seconds = mz_clock_seconds() - begin;
    if (alone != (world->rank == 1) || (world->rank == 1 && (seconds < 4.5 || seconds > 5.9))) {
        printf("rank %d: alone %d after %g s\n", world->rank, alone, seconds);
        wrong = 1;
    }
}

int main(void)
{
    mz_world *world = NULL;
    const mz_world_options options = {.timeout_seconds = 60};
    if (mz_world_create(&options, &world) != MZ_OK || world->size != 3) {
        printf("3 ranks are needed: %s\n", mz_last_error());
        mz_world_destroy(world);
        return 1;
    }
    check(world, "all well", (mz_status[]){MZ_OK, MZ_OK, MZ_OK}, (int[]){0, 0, 0}, -1);
    check(world, "all stopped", (mz_status[]){MZ_STOPPED, MZ_STOPPED, MZ_STOPPED}, (int[]){75, 75, 75}, -1);
    check(world, "all failed", (mz_status[]){MZ_ERR_CONFIG, MZ_ERR_CONFIG, MZ_ERR_CONFIG}, (int[]){1, 1, 1}, 0);
    check(world, "wrong usage", (mz_status[]){MZ_ERR_USAGE, MZ_ERR_USAGE, MZ_ERR_USAGE}, (int[]){2, 2, 2}, 0);
    check(world, "peers", (mz_status[]){MZ_ERR_PEER, MZ_ERR_PEER, MZ_ERR_IO}, (int[]){1, 1, 1}, 2);
    check(world, "peers only", (mz_status[]){MZ_OK, MZ_ERR_PEER, MZ_ERR_PEER}, (int[]){75, 75, 75}, 1);
    check(world, "late", (mz_status[]){MZ_ERR_PEER, MZ_ERR_TIMEOUT, MZ_ERR_TIMEOUT}, (int[]){75, 75, 75}, 1);
    check(world, "one failed", (mz_status[]){MZ_OK, MZ_ERR_IO, MZ_OK}, (int[]){1, 1, 1}, 1);
    /* Who knows the cause needs longer than the others' patience to end; they wait without a word. */
    check_down(world, "early", (mz_status[]){MZ_ERR_PEER, MZ_ERR_PEER, MZ_ERR_DEVICE}, (int[]){1, 1, 1}, 2, true,
               (double[]){0, 0.1, 1});
    check_down(world, "early, all but one", (mz_status[]){MZ_ERR_PEER, MZ_OK, MZ_ERR_DEVICE}, (int[]){1, 1, 1}, 2,
               true, (double[]){0, 0.2, 1});
    check_down(world, "early, but not who knows", (mz_status[]){MZ_ERR_PEER, MZ_OK, MZ_OK}, (int[]){75, 75, 75}, 0,
               true, (double[]){0.5, 0, 0});
    check_down(world, "early, and all is well", (mz_status[]){MZ_OK, MZ_STOPPED, MZ_OK}, (int[]){0, 75, 0}, -1,
               true, (double[]){0, 0, 0.1});
    check_alone(world);
    MPI_Allreduce(MPI_IN_PLACE, &wrong, 1, MPI_INT, MPI_MAX, world->comm);
    mz_world_destroy(world);
    return wrong;
}
