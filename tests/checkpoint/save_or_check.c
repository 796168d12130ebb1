/* For kill_ranks.sh. `save DIR`: saves step after step, from the newest checkpoint on, until it is killed; each
 * rank leaves its process number in DIR/pid.RANK. `check DIR`: prints the step of the newest checkpoint, all of it
 * verified. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "checkpoint/checkpoint.h"
#include "core/memory.h"
#include "tests/checkpoint/scratch.h"
#include "tests/checkpoint/synthetic.h"

static const uint64_t seed = 17;

static void save(const char *run_folder)
{
    mz_world *world;
    mz_device *device;
    mz_writer *writer;
    mz_checkpoint *checkpoint;
    synthetic s;
    char name[32], pid[32], *folder;
    int64_t step = 0;
    CHECK(!mz_world_create(NULL, &world));
    CHECK(!mz_device_open("cpu", 0, 1, &device));
    synthetic_create(&s, seed, world->rank, world->size, 8000);
    CHECK(!mz_writer_create(world, device, s.shards, s.n_shards, 0, &writer));
    if (!mz_checkpoint_find_latest(run_folder, &folder)) {
        CHECK(!mz_checkpoint_open(folder, &checkpoint));
        CHECK(!synthetic_check(&s, checkpoint, 1));
        step = mz_checkpoint_step(checkpoint);
        mz_checkpoint_close(checkpoint);
        mz_free(folder);
    }
    snprintf(name, sizeof name, "pid.%d", world->rank);
    snprintf(pid, sizeof pid, "%ld\n", (long)getpid());
    MPI_Barrier(world->comm); /* all have found the same one */
    scratch_write(scratch_path(run_folder, name), pid, strlen(pid));
    for (;;) {
        const mz_save_request request = {run_folder, ++step, 2, "{}", step % 2, step % 3, NULL};
        synthetic_fill(&s, step);
        CHECK(!mz_writer_save(writer, &request));
        mz_writer_settle(writer);
    }
}

static void check(const char *run_folder)
{
    char *folder, *report;
    mz_checkpoint *checkpoint;
    synthetic s;
    synthetic_create(&s, seed, 0, 1, 8000);
    CHECK(!mz_checkpoint_find_latest(run_folder, &folder));
    CHECK(!mz_checkpoint_open(folder, &checkpoint));
    CHECK(!mz_checkpoint_verify(checkpoint, &report));
    CHECK(!synthetic_check(&s, checkpoint, 1));
    printf("%lld\n", (long long)mz_checkpoint_step(checkpoint));
    mz_checkpoint_close(checkpoint);
    mz_free(report);
    mz_free(folder);
    synthetic_destroy(&s);
}

int main(int argc, char **argv)
{
    CHECK(argc == 3);
    if (!strcmp(argv[1], "save"))
        save(argv[2]);
    else
        check(argv[2]);
    return 0;
}
