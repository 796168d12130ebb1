/* Saves that cannot be done: reported once, by the name of the file, with the older checkpoints kept and later
 * saves good; and every allocation that can fail. */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "checkpoint/checkpoint.h"
#include "checkpoint/hdf5_memory.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/tools.h"
#include "core/file.h"
#include "core/memory.h"
#include "tests/checkpoint/scratch.h"
#include "tests/checkpoint/synthetic.h"

static mz_device *device;
static synthetic s;

static mz_status save(mz_writer *writer, const char *folder, int64_t step, bool asynchronous)
{
    const mz_save_request request = {folder, step, 0, "{}", asynchronous, false, NULL};
    synthetic_fill(&s, step);
    return mz_writer_save(writer, &request);
}

/* Bytes that lie on two pages of a file laid out in memory, and none behind them. */
static void test_sparse_pages(void)
{
    enum { N = 200000, FROM = 65436 };
    static char written[N], read[N];
    mz_sparse sparse = {0};
    for (int i = 0; i < N; i++)
        written[i] = (char)(i * 7919 >> 3);
    CHECK(mz_sparse_write(&sparse, 0, written, N));
    for (int n = 1; n < N - FROM; n = 3 * n + 1) {
        memset(read, 1, sizeof read);
        mz_sparse_read(&sparse, FROM, read, (size_t)n);
        CHECK(memcmp(read, written + FROM, (size_t)n) == 0);
        CHECK(read[n] == 1);
    }
    mz_sparse_free(&sparse);
}

static void check_whole(const char *run_folder, int64_t step)
{
    char *folder, name[64];
    mz_checkpoint *checkpoint;
    CHECK(!mz_checkpoint_find_latest(run_folder, &folder));
    CHECK(!mz_checkpoint_open(folder, &checkpoint));
    CHECK(mz_checkpoint_step(checkpoint) == step);
    CHECK(!synthetic_check(&s, checkpoint, 1));
    mz_checkpoint_close(checkpoint);
    mz_free(folder);
    snprintf(name, sizeof name, "checkpoints/step-%06lld.tmp", (long long)step + 1);
    CHECK(!mz_path_exists(scratch_path(run_folder, name)));
}

/* Step 1 is good; then saves fail until `heal`, in each way of calling. */
static void fail_and_heal(const char *folder, const char *reason, void (*spoil)(const char *),
                          void (*heal)(const char *))
{
    mz_writer *writer;
    CHECK(!mz_writer_create(&synthetic_world, device, s.shards, s.n_shards, 0, &writer));
    CHECK(!save(writer, folder, 1, false));
    spoil(folder);
    CHECK(save(writer, folder, 2, false) == MZ_ERR_IO);
    CHECK(strstr(mz_last_error(), "step-000002.tmp") && strstr(mz_last_error(), reason));
    CHECK(!mz_writer_wait(writer));
    CHECK(!save(writer, folder, 2, true));
    CHECK(mz_writer_wait(writer) == MZ_ERR_IO);
    CHECK(strstr(mz_last_error(), reason));
    CHECK(!mz_writer_wait(writer));
    CHECK(!save(writer, folder, 2, true));
    CHECK(save(writer, folder, 3, true) == MZ_ERR_IO); /* of step 2; step 3 is under way */
    CHECK(strstr(mz_last_error(), "step 2"));
    CHECK(mz_writer_wait(writer) == MZ_ERR_IO);
    CHECK(strstr(mz_last_error(), "step 3"));
    check_whole(folder, 1);
    heal(folder);
    CHECK(!save(writer, folder, 4, true));
    CHECK(!mz_writer_wait(writer));
    check_whole(folder, 4);
    mz_writer_destroy(writer);
}

static void set_limit(rlim_t bytes)
{
    struct rlimit limit;
    CHECK(!getrlimit(RLIMIT_FSIZE, &limit));
    limit.rlim_cur = bytes;
    CHECK(!setrlimit(RLIMIT_FSIZE, &limit));
}

static void limit_files(const char *folder)
{
    (void)folder;
    set_limit(100000);
}

static void limit_frames(const char *folder)
{
    (void)folder;
    set_limit(1000); /* not even HDF5's own structures fit */
}

static void unlimit_files(const char *folder)
{
    (void)folder;
    set_limit(RLIM_INFINITY);
}

static void fill_disk(const char *folder)
{
    static char zeros[65536];
    FILE *file = fopen(scratch_path(folder, "filler"), "wb");
    CHECK(file);
    setvbuf(file, NULL, _IONBF, 0);
    while (fwrite(zeros, 1, sizeof zeros, file) == sizeof zeros)
        ;
    fclose(file);
}

static void empty_disk(const char *folder)
{
    CHECK(!unlink(scratch_path(folder, "filler")));
}

/* A disk of 8 MB, seen by this process only. Needs the right to mount. */
static void test_full_disk(const char *folder)
{
    const char *disk = scratch_path(folder, "disk");
    CHECK(!mz_make_directories(disk));
    if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
        mount("tmpfs", disk, "tmpfs", 0, "size=8m")) {
        printf("full disk: passed over, no right to mount (%s); a limit on file sizes stands for it\n",
               strerror(errno));
        return;
    }
    fail_and_heal(disk, "No space left on device", fill_disk, empty_disk);
    CHECK(!umount2(disk, MNT_DETACH));
}

static void take_away(const char *folder)
{
    CHECK(!rename(scratch_path(folder, "checkpoints"), scratch_path(folder, "kept")));
    scratch_write(scratch_path(folder, "checkpoints"), "", 0);
}

static void give_back(const char *folder)
{
    CHECK(!unlink(scratch_path(folder, "checkpoints")));
    CHECK(!rename(scratch_path(folder, "kept"), scratch_path(folder, "checkpoints")));
}

static void forbid(const char *folder)
{
    CHECK(!chmod(scratch_path(folder, "checkpoints"), 0500));
}

static void allow(const char *folder)
{
    CHECK(!chmod(scratch_path(folder, "checkpoints"), 0700));
}

static void test_no_folder(const char *folder)
{
    mz_writer *writer;
    CHECK(!mz_writer_create(&synthetic_world, device, s.shards, s.n_shards, 0, &writer));
    CHECK(!save(writer, folder, 1, false));
    take_away(folder);
    CHECK(save(writer, folder, 2, false) == MZ_ERR_IO);
    CHECK(strstr(mz_last_error(), "checkpoints"));
    give_back(folder);
    CHECK(!save(writer, folder, 2, false));
    check_whole(folder, 2);
    mz_writer_destroy(writer);
}

static void test_bad_requests(const char *folder)
{
    mz_writer *writer;
    static const char *const states[] = {"", "[]", "{", "{\"a\": 1, \"a\": 2}", "{\"a\": \xff}"};
    CHECK(!mz_writer_create(&synthetic_world, device, s.shards, s.n_shards, 0, &writer));
    for (size_t i = 0; i < sizeof states / sizeof states[0]; i++) {
        const mz_save_request request = {folder, 1, 0, states[i], false, false, NULL};
        CHECK(mz_writer_save(writer, &request) == MZ_ERR_ARGUMENT);
    }
    CHECK(save(writer, NULL, 1, false) == MZ_ERR_ARGUMENT);
    CHECK(save(writer, folder, -1, false) == MZ_ERR_ARGUMENT);
    CHECK(!mz_path_exists(scratch_path(folder, "checkpoints")));
    mz_writer_destroy(writer);
}

/* ---- allocations ---- */

static mz_status create_and_save(const char *folder)
{
    mz_writer *writer = NULL;
    mz_status status = mz_writer_create(&synthetic_world, device, s.shards, s.n_shards, 0, &writer);
    if (!status)
        status = save(writer, folder, 1, false);
    mz_writer_destroy(writer);
    return status;
}

static mz_status open_and_verify(const char *folder)
{
    mz_checkpoint *checkpoint = NULL;
    char *report = NULL;
    mz_status status = mz_checkpoint_open(folder, &checkpoint);
    if (!status)
        status = mz_checkpoint_verify(checkpoint, &report);
    mz_free(report);
    mz_checkpoint_close(checkpoint);
    return status;
}

static mz_status consolidate(const char *folder)
{
    const mz_consolidate_options options = {
        .checkpoint = folder, .output = scratch_path(folder, "weights"), .dtype = MZ_BF16, .max_file_bytes = 1};
    mz_consolidate_facts facts;
    return mz_consolidate(NULL, &options, &facts);
}

static mz_status open_weights(const char *folder)
{
    mz_weights *weights = NULL;
    mz_status status = mz_weights_open(scratch_path(folder, "weights"), &weights);
    mz_weights_close(weights);
    return status;
}

static mz_status inspect(const char *folder)
{
    json_t *facts = NULL;
    mz_status status = mz_inspect(folder, false, &facts);
    json_decref(facts);
    return status;
}

/* Fails the 1st, 2nd, 3rd ... allocation until the whole thing works. */
static void sweep(const char *name, mz_status (*what)(const char *), const char *folder)
{
    mz_status status = MZ_ERR_MEMORY;
    long n = 1;
    for (; status; n++) {
        mz_memory_fail_at(n);
        status = what(folder);
        mz_memory_fail_at(0);
        if (status)
            CHECK(status == MZ_ERR_MEMORY);
        CHECK(n < 5000);
    }
    printf("%s: %ld allocations failed in turn\n", name, n - 2);
}

int main(void)
{
    char *folder = scratch_create("failures");
    static const char *const parts[] = {"limit", "frame", "none", "forbidden", "requests", "memory"};
    const char *at[6];
    test_sparse_pages();
    CHECK(signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
    CHECK(!mz_device_open("cpu", 0, 1, &device));
    synthetic_create(&s, 8, 0, 1, 20000);
    for (int i = 0; i < 6; i++) {
        at[i] = mz_path_join(folder, parts[i]);
        CHECK(at[i] && !mz_make_directories(at[i]));
    }
    fail_and_heal(at[0], "File too large", limit_files, unlimit_files);
    fail_and_heal(at[1], "File too large", limit_frames, unlimit_files);
    test_full_disk(folder);
    test_no_folder(at[2]);
    if (geteuid())
        fail_and_heal(at[3], "Permission denied", forbid, allow);
    test_bad_requests(at[4]);
    synthetic_destroy(&s);
    synthetic_create(&s, 8, 0, 1, 500);
    sweep("create a writer and save", create_and_save, at[5]);
    sweep("open and verify", open_and_verify, at[5]);
    sweep("consolidate", consolidate, at[5]);
    sweep("open weights", open_weights, at[5]);
    sweep("inspect", inspect, at[5]);
    synthetic_destroy(&s);
    for (int i = 0; i < 6; i++)
        mz_free((char *)at[i]);
    mz_device_close(device);
    scratch_remove(folder);
    return 0;
}
