/* SIGKILL at random moments of a process that saves all the time: whatever the moment, a whole checkpoint is there,
 * and the next run goes on from it. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "checkpoint/checkpoint.h"
#include "core/clock.h"
#include "core/file.h"
#include "core/memory.h"
#include "core/rng.h"
#include "tests/checkpoint/scratch.h"
#include "tests/checkpoint/synthetic.h"

enum { KILLS = 200, KEEP = 2 };
static const double budget_seconds = 30;

static const char *run_folder;

/* Saves step after step until it is killed; every fifth step is saved again, as a resumed run may do. */
static void save_forever(int64_t step)
{
    synthetic s;
    mz_device *device;
    mz_writer *writer;
    synthetic_create(&s, 3, 0, 1, 4000);
    CHECK(!mz_device_open("cpu", 0, 1, &device));
    CHECK(!mz_writer_create(&synthetic_world, device, s.shards, s.n_shards, 0, &writer));
    for (;; step++) {
        for (int again = 0; again < (step % 5 ? 1 : 2); again++) {
            const mz_save_request request = {run_folder, step, KEEP, "{\"a\": 1}", step % 2, false, NULL};
            synthetic_fill(&s, step);
            CHECK(!mz_writer_save(writer, &request));
        }
    }
}

static int64_t check_latest(const synthetic *s)
{
    char *folder, *report;
    mz_checkpoint *checkpoint;
    CHECK(!mz_checkpoint_find_latest(run_folder, &folder));
    CHECK(!mz_checkpoint_open(folder, &checkpoint));
    CHECK(!mz_checkpoint_verify(checkpoint, &report));
    CHECK(!synthetic_check(s, checkpoint, 1));
    const int64_t step = mz_checkpoint_step(checkpoint);
    mz_checkpoint_close(checkpoint);
    CHECK(!mz_checkpoint_open(run_folder, &checkpoint)); /* as --resume latest would */
    CHECK(mz_checkpoint_step(checkpoint) == step);
    mz_checkpoint_close(checkpoint);
    mz_free(report);
    mz_free(folder);
    return step;
}

static void kill_after(int64_t step, double seconds)
{
    const struct timespec pause = {0, (long)(seconds * 1e9)};
    int status;
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        save_forever(step);
        _exit(0);
    }
    nanosleep(&pause, NULL);
    CHECK(!kill(child, SIGKILL) && waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

int main(void)
{
    char *folder = scratch_create("kill");
    synthetic s;
    int64_t step = 0, n_saves = 0;
    int n_unfinished = 0, n_kills = 0;
    run_folder = folder;
    synthetic_create(&s, 3, 0, 1, 4000);
    for (double first = 0.2; !mz_path_exists(scratch_path(folder, "checkpoints/latest")); first *= 2)
        kill_after(0, first > 0.9 ? 0.9 : first); /* one whole checkpoint before the first */
    const double start = mz_clock_seconds();
    for (; n_kills < KILLS && (n_kills < 100 || mz_clock_seconds() - start < budget_seconds); n_kills++) {
        char name[64];
        kill_after(step + 1, 0.003 + 0.09 * mz_rng_uniform(mz_rng_u32(1, 1, 0, (uint64_t)n_kills)));
        const int64_t now = check_latest(&s);
        CHECK(now >= step); /* what was saved stays saved */
        n_saves += now - step;
        for (int64_t t = now - 1; t < now + 3; t++) {
            snprintf(name, sizeof name, "checkpoints/step-%06lld.tmp", (long long)t);
            n_unfinished += t >= 0 && mz_path_exists(scratch_path(folder, name));
        }
        step = now;
    }
    printf("%d kills, %lld saves, %d of them left unfinished, %.1f s\n", n_kills, (long long)n_saves, n_unfinished,
           mz_clock_seconds() - start);
    CHECK(n_unfinished > n_kills / 10);
    synthetic_destroy(&s);
    scratch_remove(folder);
    return 0;
}
