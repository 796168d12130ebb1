/* Shards that change while they are still being written: the checkpoint holds what they were when it was asked for,
 * bit for bit and with the CRCs of a synchronous save, whenever the change comes; with CRCs of the caller's and
 * without.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "checkpoint/checkpoint.h"
#include "checkpoint/manifest.h"
#include "core/clock.h"
#include "core/file.h"
#include "core/half.h"
#include "core/memory.h"
#include "tests/checkpoint/scratch.h"
#include "tests/checkpoint/synthetic.h"

/* At a page and not, of whole pages and not, and one that takes several writes. */
static const int64_t counts[] = {1, 1024, 700, 300000, 65541, 5, 2500000, 70000, 3};
enum { N = sizeof counts / sizeof *counts };

static mz_device *device;
static mz_shard shards[N];
static char names[N][16];

static float *make_shards(void)
{
    float *memory = mz_alloc_aligned((size_t)16 << 20), *next = memory;
    CHECK(memory);
    for (int i = 0; i < N; i++) {
        snprintf(names[i], sizeof names[i], "tensor %d", i);
        next = i % 3 == 1 ? memory + (next - memory + 1023) / 1024 * 1024 : next + 1;
        shards[i] = (mz_shard){.name = names[i],
                               .kind = (mz_shard_kind)(i % MZ_N_SHARD_KINDS),
                               .n_dims = 1,
                               .shape = {counts[i]},
                               .count = counts[i],
                               .dtype = i % 4 == 2 ? MZ_BF16 : MZ_F32,
                               .data = next};
        next += counts[i];
    }
    CHECK((size_t)(next - memory) * sizeof *memory < (size_t)16 << 20);
    return memory;
}

static void fill(uint32_t step)
{
    for (int i = 0; i < N; i++)
        for (int64_t e = 0; e < counts[i]; e++)
            mz_store_f32(shards[i].data, shards[i].dtype, e,
                         (float)((uint32_t)e * 2654435761u >> 8) + (float)(step * 10 + (uint32_t)i));
}

static uint32_t *take_crcs(void)
{
    int64_t n = 0;
    for (int i = 0; i < N; i++)
        n += mz_run_n_blocks(counts[i]);
    uint32_t *crcs = calloc((size_t)n, sizeof *crcs), *next = crcs;
    CHECK(crcs);
    for (int i = 0; i < N; i++) {
        const int64_t block = mz_run_block(counts[i]);
        for (int64_t done = 0; done < counts[i]; done += block) {
            const int64_t left = counts[i] - done < block ? counts[i] - done : block;
            *next++ = mz_crc32c(0, (char *)shards[i].data + mz_shard_bytes(&shards[i], done),
                                mz_shard_bytes(&shards[i], left));
        }
    }
    return crcs;
}

/* What the manifest says of the runs: where they lie, and their CRCs. (HDF5 notes times beside them.) */
static char *read_runs(const char *folder)
{
    char *text, *runs, *end;
    size_t bytes;
    CHECK(!mz_file_read(scratch_path(folder, "checkpoints/step-000001/" MZ_MANIFEST_NAME), &text, &bytes));
    CHECK((runs = strstr(text, "\"runs\"")) && (end = strrchr(text, ']')));
    *end = '\0';
    char *copy = mz_strdup(runs);
    CHECK(copy);
    mz_free(text);
    return copy;
}

/* Both hold the values that the shards have now. */
static void check_same(const char *expected, const char *found)
{
    char *a = read_runs(expected), *b = read_runs(found), *report;
    mz_checkpoint *checkpoint;
    CHECK(!strcmp(a, b));
    mz_free(a);
    mz_free(b);
    CHECK(!mz_checkpoint_open(found, &checkpoint));
    CHECK(!mz_checkpoint_verify(checkpoint, &report));
    mz_free(report);
    for (int i = 0; i < N; i++) {
        float *values = malloc((size_t)counts[i] * sizeof *values);
        CHECK(values && !mz_checkpoint_read(checkpoint, names[i], shards[i].kind, 0, counts[i], values));
        for (int64_t e = 0; e < counts[i]; e++)
            CHECK(values[e] == mz_load_f32(shards[i].data, shards[i].dtype, e));
        free(values);
    }
    mz_checkpoint_close(checkpoint);
}

/* The change comes `wait` seconds after the save began; writing takes `seconds`. 0: as fast as the disk is. */
static void check_change(const char *expected, double seconds, double wait, const uint32_t *crcs)
{
    mz_writer *writer;
    double blocked, total, bytes = 0;
    int64_t written;
    char *folder = scratch_create("settle");
    for (int i = 0; i < N; i++)
        bytes += (double)mz_shard_bytes(&shards[i], counts[i]);
    fill(1);
    CHECK(!mz_writer_create(&synthetic_world, device, shards, N, seconds > 0 ? bytes / seconds : 0, &writer));
    const mz_save_request request = {folder, 1, 0, "{}", true, true, crcs};
    CHECK(!mz_writer_save(writer, &request));
    const struct timespec pause = {0, (long)(wait * 1e9)};
    nanosleep(&pause, NULL);
    CHECK(!mz_writer_settle(writer));
    fill(2);
    CHECK(!mz_writer_settle(writer));
    CHECK(!mz_writer_wait(writer));
    mz_writer_times(writer, &blocked, &total, &written);
    mz_writer_destroy(writer);
    CHECK(total > 0.8 * seconds); /* the writer was still at work, as it should */
    fill(1);
    check_same(expected, folder);
    scratch_remove(folder);
}

int main(void)
{
    static const double waits[] = {0, 0.02, 0.1, 0.2};
    char *expected = scratch_create("expected");
    mz_writer *writer;
    CHECK(!mz_device_open("cpu", 0, 2, &device));
    float *memory = make_shards();
    fill(1);
    uint32_t *crcs = take_crcs();
    const mz_save_request request = {expected, 1, 0, "{}", false, false, NULL};
    CHECK(!mz_writer_create(&synthetic_world, device, shards, N, 0, &writer));
    CHECK(!mz_writer_save(writer, &request));
    mz_writer_destroy(writer);
    for (size_t i = 0; i < sizeof waits / sizeof *waits; i++) {
        check_change(expected, 0.3, waits[i], NULL);
        check_change(expected, 0.3, waits[i], crcs);
        check_change(expected, 0, waits[i], i % 2 ? NULL : crcs);
    }
    free(crcs);
    mz_free(memory);
    scratch_remove(expected);
    mz_device_close(device);
    return 0;
}
