/* One wrong byte anywhere, a file cut short, a file gone: always an error that names the file, never wrong values;
 * and the older checkpoint still loads. Saved by two ranks; rank 0 does the damage. */
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

enum { FLIPS_PER_FILE = 150, CUTS_PER_FILE = 30 };

static mz_world *world;
static char run_folder[4000];

static uint64_t random_below(uint64_t i, uint32_t site, uint64_t below)
{
    return mz_rng_u32(2024, site, 0, i) % below;
}

static const char *damaged_path(const char *file)
{
    char name[128];
    snprintf(name, sizeof name, "checkpoints/step-000002/%s", file);
    return scratch_path(run_folder, name);
}

/* Opens and reads all of step 2. */
static mz_status load(const synthetic *s)
{
    mz_checkpoint *checkpoint = NULL;
    mz_status status = mz_checkpoint_open(scratch_path(run_folder, "checkpoints/step-000002"), &checkpoint);
    if (!status)
        status = synthetic_check(s, checkpoint, 3);
    mz_checkpoint_close(checkpoint);
    return status;
}

static void check_verify_fails(const char *file)
{
    mz_checkpoint *checkpoint;
    char *report;
    if (mz_checkpoint_open(scratch_path(run_folder, "checkpoints/step-000002"), &checkpoint))
        return; /* found even earlier */
    CHECK(mz_checkpoint_verify(checkpoint, &report) == MZ_ERR_CHECKPOINT);
    CHECK(strstr(report, file) && strstr(report, "DAMAGED"));
    mz_free(report);
    mz_checkpoint_close(checkpoint);
}

static void check_older(const synthetic *s)
{
    mz_checkpoint *checkpoint;
    CHECK(!mz_checkpoint_open(scratch_path(run_folder, "checkpoints/step-000001"), &checkpoint));
    CHECK(!synthetic_check(s, checkpoint, 2));
    mz_checkpoint_close(checkpoint);
}

/* What loading says must name the file; `expected` is another word of it, or NULL. */
static void check_refused(const synthetic *s, const char *file, const char *expected)
{
    mz_status status = load(s);
    CHECK(status == MZ_ERR_CHECKPOINT || status == MZ_ERR_IO);
    CHECK(strstr(mz_last_error(), file));
    CHECK(!expected || strstr(mz_last_error(), expected));
}

static void flip_bytes(const synthetic *s, const char *file)
{
    const char *path = damaged_path(file);
    char *data, copy[4096];
    size_t bytes;
    int n_in_data_sets = 0;
    snprintf(copy, sizeof copy, "%s", path);
    CHECK(!mz_file_read(copy, &data, &bytes));
    for (uint64_t i = 0; i < FLIPS_PER_FILE; i++) {
        const size_t at = i < 40 ? (i < 20 ? i : bytes - (i - 19)) : random_below(i, bytes % 1000, bytes);
        data[at] ^= (char)(1 << random_below(i, 3, 8));
        scratch_write(copy, data, bytes);
        check_refused(s, file, NULL);
        n_in_data_sets += strstr(mz_last_error(), "data set /") != NULL;
        if (i % 10 == 0)
            check_verify_fails(file);
        data[at] ^= (char)(1 << random_below(i, 3, 8));
    }
    scratch_write(copy, data, bytes);
    CHECK(strstr(file, "rank") ? n_in_data_sets > 10 : n_in_data_sets == 0);
    CHECK(!load(s));
    mz_free(data);
}

static void cut_short(const synthetic *s, const char *file)
{
    char path[4096], *data;
    size_t bytes;
    snprintf(path, sizeof path, "%s", damaged_path(file));
    CHECK(!mz_file_read(path, &data, &bytes));
    for (uint64_t i = 0; i < CUTS_PER_FILE; i++) {
        const size_t length = i < 2 ? i : i == 2 ? bytes - 1 : random_below(i, 5, bytes);
        scratch_write(path, data, length);
        check_refused(s, file, "newest other checkpoint that is whole is");
        CHECK(strstr(mz_last_error(), "step-000001"));
    }
    char *longer = malloc(bytes + 1);
    memcpy(longer, data, bytes);
    longer[bytes] = '\n';
    scratch_write(path, longer, bytes + 1);
    check_refused(s, file, "step-000001");
    free(longer);
    CHECK(!unlink(path));
    check_refused(s, file, "step-000001");
    check_older(s);
    char *folder;
    CHECK(!mz_checkpoint_find_latest(run_folder, &folder));
    CHECK(strstr(folder, "step-000001"));
    mz_free(folder);
    scratch_write(path, data, bytes);
    CHECK(!load(s));
    mz_free(data);
}

/* `latest` is a help, not a need: whatever it says, the newest whole checkpoint is found. */
static void damage_latest(void)
{
    static const char *const texts[] = {"",
                                        "step-000009\n",
                                        "step-000009.tmp\n",
                                        "../../etc\n",
                                        "step-1\n",
                                        "step-99999999999999999999\n",
                                        "\xff\xfe",
                                        "step-000002.old\n"};
    char *folder;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        scratch_write(scratch_path(run_folder, "checkpoints/latest"), texts[i], strlen(texts[i]));
        CHECK(!mz_checkpoint_find_latest(run_folder, &folder));
        CHECK(strstr(folder, "step-000002"));
        mz_free(folder);
    }
    CHECK(!unlink(scratch_path(run_folder, "checkpoints/latest")));
    CHECK(!mz_checkpoint_find_latest(run_folder, &folder));
    mz_free(folder);
    mz_checkpoint *checkpoint;
    CHECK(!mz_checkpoint_open(run_folder, &checkpoint));
    CHECK(mz_checkpoint_step(checkpoint) == 2);
    mz_checkpoint_close(checkpoint);
    CHECK(mz_checkpoint_find_latest(scratch_path(run_folder, "absent"), &folder) == MZ_ERR_CHECKPOINT);
    CHECK(mz_checkpoint_open(scratch_path(run_folder, "absent"), &checkpoint) == MZ_ERR_CHECKPOINT);
}

static void do_damage(const synthetic *s)
{
    static const char *const files[] = {"rank-00000.h5", "rank-00001.h5", "manifest.json"};
    for (size_t i = 0; i < 3; i++) {
        flip_bytes(s, files[i]);
        cut_short(s, files[i]);
    }
    damage_latest();
}

int main(void)
{
    char *mine = NULL;
    synthetic s;
    mz_device *device;
    mz_writer *writer;
    CHECK(!mz_world_create(NULL, &world));
    CHECK(!mz_device_open("cpu", 0, 1, &device));
    if (world->rank == 0)
        snprintf(run_folder, sizeof run_folder, "%s", mine = scratch_create("damage"));
    MPI_Bcast(run_folder, sizeof run_folder, MPI_CHAR, 0, world->comm);
    synthetic_create(&s, 5, world->rank, world->size, 6000);
    CHECK(!mz_writer_create(world, device, s.shards, s.n_shards, 0, &writer));
    for (int64_t step = 1; step <= 2; step++) {
        const mz_save_request request = {run_folder, step, 0, "{}", false, false, NULL};
        synthetic_fill(&s, step);
        CHECK(!mz_writer_save(writer, &request));
    }
    mz_writer_destroy(writer);
    if (mine) {
        do_damage(&s);
        scratch_remove(mine);
    }
    MPI_Barrier(world->comm);
    synthetic_destroy(&s);
    mz_device_close(device);
    mz_world_destroy(world);
    return 0;
}
