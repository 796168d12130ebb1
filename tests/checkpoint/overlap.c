/* How long a save holds training up: the asynchronous one against the synchronous, and the rates of saving, loading
 * and CRC-32C. A test with 48 MB of state; a measurement with MEGABYTES=1493 in the environment (GPT-2 124M with
 * Adam) and a folder on the disk in question as TMPDIR. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "checkpoint/checkpoint.h"
#include "core/clock.h"
#include "core/file.h"
#include "core/memory.h"
#include "tests/checkpoint/scratch.h"

enum { TENSORS = 48, REPEATS = 3 };

static mz_world *world;
static mz_device *device;
static char run_folder[4096];

/* TENSORS tensors of each kind, of which each rank has an even part. */
static mz_shard *make_shards(int64_t megabytes, int64_t *n_shards, float **memory)
{
    static char names[TENSORS][32];
    const int64_t numel = (megabytes << 20) / (int64_t)sizeof(float) / TENSORS / MZ_N_SHARD_KINDS;
    const int64_t begin = numel * world->rank / world->size, end = numel * (world->rank + 1) / world->size;
    const int64_t count = end - begin;
    mz_shard *shards = calloc(TENSORS * MZ_N_SHARD_KINDS, sizeof *shards);
    float *values = mz_alloc_aligned((size_t)count * TENSORS * MZ_N_SHARD_KINDS * sizeof *values);
    CHECK(shards && values);
    for (int i = 0; i < TENSORS * MZ_N_SHARD_KINDS; i++) {
        snprintf(names[i % TENSORS], sizeof names[0], "h.%d.mlp.c_fc.weight", i % TENSORS);
        shards[i] = (mz_shard){.name = names[i % TENSORS],
                               .kind = (mz_shard_kind)(i / TENSORS),
                               .n_dims = 1,
                               .shape = {numel},
                               .offset = begin,
                               .count = count,
                               .data = values + count * i};
        for (int64_t e = 0; e < count; e++)
            ((float *)shards[i].data)[e] = (float)(e + i);
    }
    *memory = values;
    *n_shards = TENSORS * MZ_N_SHARD_KINDS;
    return shards;
}

typedef struct seconds {
    double blocked, total;
} seconds;

/* overlap: the copy runs beside what stands for a forward and a backward pass. */
static void save(mz_writer *writer, int64_t step, bool asynchronous, bool overlap, seconds *taken)
{
    int64_t bytes;
    const mz_save_request request = {run_folder, step, 1, "{}", asynchronous, overlap, NULL};
    MPI_Barrier(world->comm);
    CHECK(!mz_writer_save(writer, &request));
    if (overlap) {
        const struct timespec passes = {1, 0};
        nanosleep(&passes, NULL);
        mz_writer_settle(writer);
    }
    CHECK(!mz_writer_wait(writer));
    mz_writer_times(writer, &taken->blocked, &taken->total, &bytes);
    MPI_Allreduce(MPI_IN_PLACE, taken, 2, MPI_DOUBLE, MPI_MAX, world->comm);
}

/* Each rank reads its own shards back. */
static double load(const mz_shard *shards, int64_t n_shards)
{
    mz_checkpoint *checkpoint;
    float *values = malloc((size_t)shards[0].count * sizeof *values);
    MPI_Barrier(world->comm);
    double start = mz_clock_seconds();
    CHECK(!mz_checkpoint_open(run_folder, &checkpoint));
    for (int64_t i = 0; i < n_shards; i++) {
        CHECK(!mz_checkpoint_read(checkpoint, shards[i].name, shards[i].kind, shards[i].offset, shards[i].count,
                                  values));
        CHECK(!memcmp(values, shards[i].data, (size_t)shards[i].count * sizeof *values));
    }
    double taken = mz_clock_seconds() - start;
    MPI_Allreduce(MPI_IN_PLACE, &taken, 1, MPI_DOUBLE, MPI_MAX, world->comm);
    mz_checkpoint_close(checkpoint);
    free(values);
    return taken;
}

static double crc_rate(const float *values, size_t bytes)
{
    const double start = mz_clock_seconds();
    volatile uint32_t crc = mz_crc32c(0, values, bytes);
    (void)crc;
    return (double)bytes / (mz_clock_seconds() - start);
}

static void take_best(seconds *best, const seconds *taken)
{
    if (taken->blocked < best->blocked)
        *best = *taken;
}

static void measure(const mz_shard *shards, int64_t n_shards, double megabytes)
{
    mz_writer *writer;
    seconds sync = {1e9, 1e9}, async = sync, overlapped = sync, taken;
    int64_t step = 0;
    double loading = 1e9;
    CHECK(!mz_writer_create(world, device, shards, n_shards, 0, &writer));
    for (int i = 0; i < REPEATS; i++) {
        save(writer, step++, false, false, &taken);
        take_best(&sync, &taken);
        save(writer, step++, true, false, &taken);
        take_best(&async, &taken);
        save(writer, step++, true, true, &taken);
        take_best(&overlapped, &taken);
        const double once = load(shards, n_shards);
        loading = once < loading ? once : loading;
    }
    mz_writer_destroy(writer);
    const double mega = 1e-6 * 1048576.0 * megabytes;
    const double crc = crc_rate(shards[0].data, (size_t)(shards[0].count * n_shards) * sizeof(float));
    if (world->rank == 0) {
        printf(
            "%d ranks, %.0f MB, best of %d: save %.3f s (%.0f MB/s), load %.3f s (%.0f MB/s), CRC-32C %.1f GB/s\n",
            world->size, mega, REPEATS, sync.blocked, mega / sync.blocked, loading, mega / loading, 1e-9 * crc);
        printf("asynchronous: blocks %.4f s = %.1f %% of the synchronous save; with the copy overlapped %.4f s = "
               "%.1f %%\n",
               async.blocked, 100 * async.blocked / sync.blocked, overlapped.blocked,
               100 * overlapped.blocked / sync.blocked);
    }
    CHECK(async.blocked < 0.5 * sync.blocked);
    CHECK(overlapped.blocked < 0.5 * sync.blocked);
}

int main(void)
{
    const char *megabytes = getenv("MEGABYTES");
    char *mine = NULL;
    int64_t n_shards;
    float *memory;
    CHECK(!mz_world_create(NULL, &world));
    CHECK(!mz_device_open("cpu", 0, 1, &device));
    if (world->rank == 0)
        snprintf(run_folder, sizeof run_folder, "%s", mine = scratch_create("overlap"));
    MPI_Bcast(run_folder, sizeof run_folder, MPI_CHAR, 0, world->comm);
    mz_shard *shards = make_shards(megabytes ? atoll(megabytes) : 48, &n_shards, &memory);
    measure(shards, n_shards, megabytes ? atof(megabytes) : 48);
    MPI_Barrier(world->comm);
    free(shards);
    mz_free(memory);
    if (mine)
        scratch_remove(mine);
    mz_device_close(device);
    mz_world_destroy(world);
    return 0;
}
