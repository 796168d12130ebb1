#include "checkpoint/shard_file.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "checkpoint/gather.h"
#include "checkpoint/hdf5_frame.h"
#include "checkpoint/manifest.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/file.h"
#include "core/memory.h"

static mz_status list_runs(const mz_shard_file *file, mz_frame_run **runs, int64_t *n_runs, uint32_t **crcs)
{
    const mz_shard *shards = file->source->shards;
    int64_t n = 0, n_crcs = 0;
    for (int64_t i = 0; i < file->source->n_shards; i++)
        n_crcs += mz_run_n_blocks(shards[i].count);
    mz_frame_run *list = mz_calloc((size_t)file->source->n_shards, sizeof *list);
    uint32_t *crc = mz_calloc((size_t)n_crcs, sizeof *crc);
    *runs = list;
    *crcs = crc;
    if (!list || !crc)
        return MZ_ERR_MEMORY;
    if (file->crcs)
        memcpy(crc, file->crcs, (size_t)n_crcs * sizeof *crc);
    for (int64_t i = 0; i < file->source->n_shards; crc += mz_run_n_blocks(shards[i].count), i++)
        if (shards[i].count)
            list[n++] = (mz_frame_run){.shard = &shards[i], .index = i, .crcs = crc};
    *n_runs = n;
    return MZ_OK;
}

static void take_crcs(mz_shard_source *source, const mz_frame_run *run)
{
    const int64_t block = mz_run_block(run->shard->count);
    uint32_t *crc = run->crcs;
    for (int64_t done = 0; done < run->shard->count; done += block) {
        const int64_t count = run->shard->count - done < block ? run->shard->count - done : block;
        mz_shard_source_hold(source);
        *crc++ = mz_crc32c(0, mz_shard_source_values(source, run->index) + mz_shard_bytes(run->shard, done),
                           mz_shard_bytes(run->shard, count));
        mz_shard_source_release(source);
    }
}

/* ---- the file's bytes ---- */

typedef struct output {
    mz_gather *gather;
    mz_shard_source *source;
    bool held;                   /* the source: it has to stay as it is until what was taken is written */
    double start, rate, written; /* bytes */
    double pending, turn;        /* bytes taken, and after how many a rate is looked at */
} output;

static void sleep_until(double when)
{
    const double left = when - mz_clock_seconds();
    if (left > 0) {
        struct timespec pause = {(time_t)left, (long)((left - (double)(time_t)left) * 1e9)};
        nanosleep(&pause, NULL);
    }
}

static void let_go(output *out)
{
    if (out->held)
        mz_shard_source_release(out->source);
    out->held = false;
}

/* Writes what has been taken. */
static mz_status write_turn(output *out)
{
    mz_status status = mz_gather_write(out->gather);
    let_go(out);
    out->written += out->pending;
    out->pending = 0;
    if (out->rate > 0 && !status)
        sleep_until(out->start + out->written / out->rate);
    return status;
}

/* Takes some of these bytes and returns how many. */
static size_t take(output *out, const char *data, size_t bytes)
{
    const size_t most = out->rate > 0 && (double)bytes > out->turn ? (size_t)out->turn : bytes;
    const size_t n = mz_gather_take(out->gather, data, most);
    out->pending += (double)n;
    return n;
}

/* To be called after each take of n bytes. */
static mz_status write_if_due(output *out, size_t n)
{
    const bool due = n == 0 || mz_gather_full(out->gather) || (out->rate > 0 && out->pending >= out->turn);
    return due ? write_turn(out) : MZ_OK;
}

static mz_status put_run(output *out, const mz_frame_run *run)
{
    const size_t bytes = mz_shard_bytes(run->shard, run->shard->count);
    mz_status status = MZ_OK;
    for (size_t done = 0; done < bytes && !status;) {
        if (!out->held)
            mz_shard_source_hold(out->source);
        out->held = true;
        const char *values = (const char *)mz_shard_source_values(out->source, run->index);
        const size_t n = take(out, values + done, bytes - done);
        done += n;
        out->source->taken[run->index] = (int64_t)(done / mz_dtype_size(run->shard->dtype));
        status = write_if_due(out, n);
    }
    return status;
}

/* Bytes begin .. end of what HDF5 made around the runs, and into its CRC. */
static mz_status put_frame(output *out, const mz_sparse *memory, int64_t begin, int64_t end, uint32_t *crc)
{
    mz_status status = MZ_OK;
    while (begin < end && !status) {
        size_t n = (size_t)(end - begin);
        const char *piece = mz_sparse_at(memory, begin, &n);
        n = take(out, piece, n);
        *crc = mz_crc32c(*crc, piece, n);
        begin += (int64_t)n;
        status = write_if_due(out, n);
    }
    return status;
}

static int compare_position(const void *a, const void *b)
{
    const mz_frame_run *x = a, *y = b;
    return (x->position > y->position) - (x->position < y->position);
}

static mz_status put_all(output *out, const mz_sparse *memory, mz_frame_run *runs, int64_t n_runs, uint32_t *crc)
{
    int64_t end = 0;
    mz_status status = MZ_OK;
    qsort(runs, (size_t)n_runs, sizeof *runs, compare_position);
    *crc = 0;
    for (int64_t i = 0; i < n_runs && !status; i++) {
        status = put_frame(out, memory, end, runs[i].position, crc);
        if (!status)
            status = put_run(out, &runs[i]);
        end = runs[i].position + (int64_t)mz_shard_bytes(runs[i].shard, runs[i].shard->count);
    }
    if (!status)
        status = put_frame(out, memory, end, memory->bytes, crc);
    if (!status)
        status = write_turn(out);
    let_go(out);
    return status ? status : mz_gather_finish(out->gather);
}

static mz_status write_file(const mz_shard_file *file, const mz_sparse *memory, mz_frame_run *runs, int64_t n_runs,
                            uint32_t *frame_crc)
{
    output out = {.source = file->source,
                  .rate = file->rate_bytes_per_second,
                  .turn = file->rate_bytes_per_second / 20,
                  .start = mz_clock_seconds()};
    out.turn = out.turn < 4096 ? 4096 : out.turn;
    mz_status status = mz_gather_create(file->path, memory->bytes, &out.gather);
    if (!status)
        status = put_all(&out, memory, runs, n_runs, frame_crc);
    mz_gather_destroy(out.gather);
    return status;
}

/* ---- its object in the manifest ---- */

static json_t *describe_run(const mz_frame_run *run, char *hex)
{
    const mz_shard *shard = run->shard;
    const int64_t n_blocks = mz_run_n_blocks(shard->count);
    for (int64_t b = 0; b < n_blocks; b++)
        for (int d = 0; d < 8; d++)
            hex[b * 8 + d] = "0123456789abcdef"[run->crcs[b] >> (28 - 4 * d) & 15];
    hex[n_blocks * 8] = '\0';
    json_t *shape = json_array();
    for (int d = 0; d < shard->n_dims; d++)
        json_array_append_new(shape, json_integer(shard->shape[d]));
    json_t *row = json_pack("[s, s, o, I, I, I, s]", mz_shard_kind_name(shard->kind), shard->name, shape,
                            (json_int_t)shard->offset, (json_int_t)shard->count, (json_int_t)run->position, hex);
    if (row && shard->dtype != MZ_F32)
        json_array_append_new(row, json_string(mz_dtype_name(shard->dtype)));
    return row;
}

static mz_status describe(const mz_shard_file *file, int64_t bytes, uint32_t frame_crc, const mz_frame_run *runs,
                          int64_t n_runs, char **description)
{
    char crc[9];
    int64_t most = 0;
    for (int64_t i = 0; i < n_runs; i++)
        if (mz_run_n_blocks(runs[i].shard->count) > most)
            most = mz_run_n_blocks(runs[i].shard->count);
    char *hex = mz_alloc((size_t)most * 8 + 1);
    if (!hex)
        return MZ_ERR_MEMORY;
    json_t *list = json_array();
    int failed = !list;
    for (int64_t i = 0; i < n_runs && !failed; i++)
        failed = json_array_append_new(list, describe_run(&runs[i], hex));
    snprintf(crc, sizeof crc, "%08x", frame_crc);
    json_t *object = failed ? NULL
                            : json_pack("{s:s, s:I, s:s, s:O}", "name", file->name, "bytes", (json_int_t)bytes,
                                        "frame_crc32c", crc, "runs", list);
    char *text = object ? json_dumps(object, 0) : NULL;
    *description = text ? mz_strdup(text) : NULL;
    free(text);
    json_decref(object);
    json_decref(list);
    mz_free(hex);
    return *description ? MZ_OK
                        : mz_fail(MZ_ERR_MEMORY,
                                  "%s: no memory for its description (or a tensor name is not UTF-8)", file->path);
}

mz_status mz_shard_file_write(const mz_shard_file *file, char **description, int64_t *bytes)
{
    mz_frame_run *runs = NULL;
    uint32_t *crcs = NULL, frame_crc = 0;
    int64_t n_runs = 0;
    mz_status status = list_runs(file, &runs, &n_runs, &crcs);
    for (int64_t i = 0; i < n_runs && !status && !file->crcs; i++)
        take_crcs(file->source, &runs[i]);
    if (!status)
        status = mz_hdf5_frame_make(file, runs, n_runs, file->frame);
    if (!status) {
        *bytes = (*file->frame)->memory.bytes;
        status = write_file(file, &(*file->frame)->memory, runs, n_runs, &frame_crc);
    }
    if (!status)
        status = describe(file, *bytes, frame_crc, runs, n_runs, description);
    mz_free(crcs);
    mz_free(runs);
    return status;
}
