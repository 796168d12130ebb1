/* Rank 3 of four, on two nodes of two, stops (SIGSTOP) while rank 1 or 2 waits for it, and rank 0, whose time is up
 * first, for that one. They print what they are told. For blame.sh.
 *
 *     blame_probe node     0 waits in its node for 1, that for 3 between nodes
 *     blame_probe wire     0 waits between nodes for 2, that in its node for 3
 *     blame_probe agree    0 waits in an agreement for 1, that for 3 between nodes
 *     blame_probe all      all wait in one collective after another, as in training */
#include <signal.h>
#include <unistd.h>

#include "check.h"
#include "comm/comm.h"
#include "core/error.h"

enum { CULPRIT = 3, N = 50000 };

typedef struct stage {
    mz_world *world;
    mz_comm *comm, *inner, *outer; /* all; the ranks of a node; of a rail */
    pid_t pids[4];
} stage;

/* The one that waits for the culprit begins later. */
static mz_status wait_in_chain(stage *s, mz_comm *first, mz_comm *second, int middle, bool agree)
{
    mz_status status = MZ_OK;
    if (s->world->rank == middle) {
        usleep(700000);
        status = mz_barrier(first, "the culprit is awaited");
    }
    if (status || (s->world->rank != 0 && s->world->rank != middle))
        return status;
    return agree ? mz_agree(s->world, MZ_OK, "breakfast") : mz_barrier(second, "a chain");
}

static mz_status wait_for_all(stage *s)
{
    static float in[4 * N], out[4 * N];
    const mz_segment gather = {in, out, N, N}, scatter = {in, in, N, N};
    mz_status status = MZ_OK;
    double value = 1;
    for (int i = 0; i < 100000 && !status; i++) {
        status = mz_reduce_scatter(s->comm, &scatter, 1, MZ_F32, MZ_F32, 1, false, "gradients", NULL);
        if (!status)
            status = mz_all_gather(s->comm, &gather, 1, MZ_F32, "weights", NULL);
        if (!status)
            status = mz_all_reduce_host(s->comm, &value, 1, false, "loss");
    }
    return status;
}

/* The culprit stops at any moment of what it does. */
static void on_alarm(int number)
{
    (void)number;
    raise(SIGSTOP);
}

static mz_status act(stage *s, const char *scene)
{
    if (strcmp(scene, "all") == 0) {
        if (s->world->rank == CULPRIT) {
            signal(SIGALRM, on_alarm);
            ualarm((useconds_t)(300000 + getpid() % 1000 * 300), 0);
        }
        return wait_for_all(s);
    }
    if (s->world->rank == CULPRIT)
        raise(SIGSTOP);
    if (strcmp(scene, "wire") == 0)
        return wait_in_chain(s, s->inner, s->outer, 2, false);
    return wait_in_chain(s, s->outer, s->inner, 1, strcmp(scene, "agree") == 0);
}

int main(int argc, char **argv)
{
    const mz_world_options options = {.timeout_seconds = 2, .ranks_per_node = 2};
    mz_device *device = NULL;
    stage s = {0};
    REQUIRE(mz_world_create(&options, &s.world));
    REQUIRE(mz_device_open("cpu", 0, 1, &device));
    REQUIRE(mz_comm_create(s.world, device, 0, 0, &s.comm));
    REQUIRE(mz_comm_split(s.comm, s.world->rank / 2 * 2, 2, 1, &s.inner));
    REQUIRE(mz_comm_split(s.comm, s.world->rank % 2, 2, 2, &s.outer));
    const pid_t own = getpid();
    MPI_Allgather(&own, sizeof own, MPI_BYTE, s.pids, sizeof own, MPI_BYTE, s.world->comm);
    REQUIRE(mz_barrier(s.comm, "all here"));
    MPI_Barrier(s.world->comm);
    mz_status status = act(&s, argc > 1 ? argv[1] : "all");
    if (status)
        printf("rank %d: %s: %s\n", s.world->rank, mz_status_text(status), mz_last_error());
    fflush(stdout);
    usleep(1000000); /* as a program that ends in order: what others are told is on its way */
    if (s.world->rank == 0)
        kill(s.pids[CULPRIT], SIGKILL);
    _exit(0); /* MPI cannot be finalised any more */
}
