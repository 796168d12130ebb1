/* Saved on this many ranks, read as any other number of ranks would, whole and in odd ranges; older steps go. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "checkpoint/checkpoint.h"
#include "core/file.h"
#include "core/memory.h"
#include "core/rng.h"
#include "tests/checkpoint/scratch.h"
#include "tests/checkpoint/synthetic.h"

static mz_world *world;
static mz_device *device;
static char run_folder[4096];

/* Rank 0's folder, known to all. */
static void share_folder(char **mine)
{
    if (world->rank == 0)
        snprintf(run_folder, sizeof run_folder, "%s", *mine = scratch_create("reshard"));
    MPI_Bcast(run_folder, sizeof run_folder, MPI_CHAR, 0, world->comm);
}

static void save(mz_writer *writer, synthetic *s, int64_t step, int keep, bool asynchronous)
{
    char state[128];
    snprintf(state, sizeof state, "{\"step\": %lld, \"lr\": 0.1, \"seed\": 9007199254740993}", (long long)step);
    const mz_save_request request = {run_folder, step, keep, state, asynchronous, step % 2 == 0, NULL};
    synthetic_fill(s, step);
    CHECK(!mz_writer_save(writer, &request));
    mz_writer_settle(writer); /* training goes on: the snapshot must not see it */
    synthetic_fill(s, 99);
}

static void check_ranges(const synthetic *s, mz_checkpoint *checkpoint)
{
    for (int i = 0; i < 300; i++) {
        const uint32_t a = mz_rng_u32(7, 1, (uint64_t)world->rank, (uint64_t)i);
        const int t = (int)(a % (uint32_t)s->n_tensors);
        const int64_t offset = (int64_t)(mz_rng_u32(7, 2, 0, (uint64_t)i) % (uint64_t)s->numel[t]);
        const int64_t count = (int64_t)(mz_rng_u32(7, 3, 0, (uint64_t)i) % (uint64_t)(s->numel[t] - offset + 1));
        CHECK(!synthetic_check_range(s, checkpoint, t, (mz_shard_kind)(a % 3), offset, count));
    }
}

static void check_refusals(const synthetic *s, mz_checkpoint *checkpoint)
{
    float value;
    CHECK(mz_checkpoint_read(checkpoint, "no such", MZ_SHARD_PARAM, 0, 1, &value) == MZ_ERR_CHECKPOINT);
    CHECK(mz_checkpoint_read(checkpoint, s->names[0], MZ_SHARD_PARAM, -1, 1, &value) == MZ_ERR_ARGUMENT);
    CHECK(mz_checkpoint_read(checkpoint, s->names[0], MZ_SHARD_PARAM, s->numel[0], 1, &value) == MZ_ERR_ARGUMENT);
}

static void check_tensors(const synthetic *s, mz_checkpoint *checkpoint)
{
    for (int i = 0; i < s->n_tensors; i++) {
        const mz_checkpoint_tensor *tensor = mz_checkpoint_tensor_at(checkpoint, i);
        int t = 0;
        while (t < s->n_tensors && strcmp(s->names[t], tensor->name))
            t++;
        CHECK(t < s->n_tensors && tensor->n_dims == s->n_dims[t] && tensor->numel == s->numel[t]);
        CHECK(!memcmp(tensor->shape, s->shapes[t], (size_t)tensor->n_dims * sizeof *tensor->shape));
        CHECK(tensor->kinds[0] && tensor->kinds[1] && tensor->kinds[2]);
    }
}

static void check_step(const synthetic *s, const char *folder, int64_t step)
{
    mz_checkpoint *checkpoint;
    char *report;
    CHECK(!mz_checkpoint_open(folder, &checkpoint));
    CHECK(mz_checkpoint_step(checkpoint) == step);
    CHECK(strstr(mz_checkpoint_state(checkpoint), "9007199254740993"));
    check_tensors(s, checkpoint);
    for (int parts = 1; parts <= 5; parts++)
        CHECK(!synthetic_check(s, checkpoint, parts));
    check_ranges(s, checkpoint);
    check_refusals(s, checkpoint);
    CHECK(!mz_checkpoint_verify(checkpoint, &report));
    mz_free(report);
    mz_checkpoint_close(checkpoint);
}

static bool step_exists(int step)
{
    char name[64];
    snprintf(name, sizeof name, "checkpoints/step-%06d", step);
    return mz_path_exists(scratch_path(run_folder, name));
}

/* Left by a crashed run of more ranks: another step's folder, and files in the folder of the step to come. */
static void leave_rubbish(void)
{
    CHECK(!mz_make_directories(scratch_path(run_folder, "checkpoints/step-000004.tmp")));
    CHECK(!mz_make_directories(scratch_path(run_folder, "checkpoints/step-000009.tmp")));
    scratch_write(scratch_path(run_folder, "checkpoints/step-000004.tmp/rank-00077.h5"), "x", 1);
    scratch_write(scratch_path(run_folder, "checkpoints/step-000009.tmp/rank-00000.h5"), "x", 1);
}

static void check_keeping(mz_writer *writer, synthetic *s)
{
    if (world->rank == 0)
        leave_rubbish();
    MPI_Barrier(world->comm);
    for (int step = 3; step <= 6; step++)
        save(writer, s, step, 2, step % 2);
    CHECK(!mz_writer_wait(writer));
    for (int step = 1; step <= 6; step++)
        CHECK(step_exists(step) == (step >= 5));
    CHECK(!mz_path_exists(scratch_path(run_folder, "checkpoints/step-000004.tmp")));
    CHECK(!mz_path_exists(scratch_path(run_folder, "checkpoints/step-000009.tmp")));
    MPI_Barrier(world->comm);
    /* Resumed from 5: what was saved last stays, though 6 is a higher step; then a step is saved again. */
    save(writer, s, 2, 1, false);
    CHECK(step_exists(2) && !step_exists(5) && !step_exists(6));
    MPI_Barrier(world->comm);
    save(writer, s, 2, 1, false);
    check_step(s, run_folder, 2);
    check_step(s, scratch_path(run_folder, "checkpoints/latest"), 2);
}

/* A writer that may use a part of the disk's speed only. */
static void check_rate(synthetic *s)
{
    static const double seconds = 0.3;
    mz_writer *writer;
    double blocked, total;
    int64_t bytes = 0;
    for (int64_t i = 0; i < s->n_shards; i++)
        bytes += (int64_t)mz_shard_bytes(&s->shards[i], s->shards[i].count);
    CHECK(!mz_writer_create(world, device, s->shards, s->n_shards, (double)bytes / seconds, &writer));
    save(writer, s, 8, 1, false);
    mz_writer_times(writer, &blocked, &total, &bytes);
    CHECK(total >= seconds && blocked >= seconds);
    check_step(s, run_folder, 8);
    mz_writer_destroy(writer);
}

int main(void)
{
    char *mine = NULL, *folder;
    synthetic s;
    mz_writer *writer;
    double blocked, total;
    int64_t bytes;
    CHECK(!mz_world_create(NULL, &world));
    CHECK(!mz_device_open("cpu", 0, 1, &device));
    share_folder(&mine);
    for (uint64_t seed = 1; seed <= 3; seed++) {
        synthetic_create(&s, seed, world->rank, world->size, 60000);
        CHECK(!mz_writer_create(world, device, s.shards, s.n_shards, 0, &writer));
        save(writer, &s, 1, 0, false);
        check_step(&s, scratch_path(run_folder, "checkpoints/step-000001"), 1);
        save(writer, &s, 2, 0, true);
        CHECK(!mz_writer_wait(writer));
        CHECK(!mz_checkpoint_find_latest(run_folder, &folder));
        CHECK(!strcmp(strrchr(folder, '/'), "/step-000002"));
        check_step(&s, folder, 2);
        mz_free(folder);
        mz_writer_times(writer, &blocked, &total, &bytes);
        CHECK(blocked > 0 && total > 0 && bytes > 0);
        MPI_Barrier(world->comm);
        if (seed == 3)
            check_keeping(writer, &s);
        mz_writer_destroy(writer);
        if (seed == 3)
            check_rate(&s);
        synthetic_destroy(&s);
    }
    mz_device_close(device);
    MPI_Barrier(world->comm);
    if (mine)
        scratch_remove(mine);
    mz_world_destroy(world);
    return 0;
}
