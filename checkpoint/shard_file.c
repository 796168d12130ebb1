#include "checkpoint/shard_file.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "checkpoint/hdf5_frame.h"
#include "checkpoint/manifest.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/file.h"
#include "core/memory.h"

/* One write call; also how often the rate is looked at. */
static const size_t piece_bytes = (size_t)8 << 20;

static mz_status take_crcs(const mz_shard_file *file, mz_frame_run **runs, int64_t *n_runs, uint32_t **crcs)
{
    int64_t n = 0, n_crcs = 0;
    for (int64_t i = 0; i < file->n_shards; i++)
        n_crcs += mz_run_n_blocks(file->shards[i].count);
    mz_frame_run *list = mz_calloc((size_t)file->n_shards, sizeof *list);
    uint32_t *crc = mz_calloc((size_t)n_crcs, sizeof *crc);
    *runs = list;
    *crcs = crc;
    if (!list || !crc)
        return MZ_ERR_MEMORY;
    const float *values = file->values;
    for (int64_t i = 0; i < file->n_shards; values += mz_snapshot_room(file->shards[i].count), i++) {
        const mz_shard *shard = &file->shards[i];
        if (!shard->count)
            continue;
        list[n++] = (mz_frame_run){.shard = shard, .values = values, .crcs = crc};
        const int64_t block = mz_run_block(shard->count);
        for (int64_t done = 0; done < shard->count; done += block) {
            const int64_t count = shard->count - done < block ? shard->count - done : block;
            *crc++ = mz_crc32c(0, values + done, (size_t)count * sizeof(float));
        }
    }
    *n_runs = n;
    return MZ_OK;
}

/* ---- the data ---- */

static void sleep_until(double when)
{
    const double left = when - mz_clock_seconds();
    if (left > 0) {
        struct timespec pause = {(time_t)left, (long)((left - (double)(time_t)left) * 1e9)};
        nanosleep(&pause, NULL);
    }
}

/* 0, or the error's number. */
static int put_bytes(int fd, const char *data, size_t bytes, int64_t at)
{
    while (bytes) {
        const ssize_t done = pwrite(fd, data, bytes, (off_t)at);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return errno;
        data += done;
        at += done;
        bytes -= (size_t)done;
    }
    return 0;
}

static mz_status write_failed(const char *path, int error)
{
    errno = error;
    return mz_fail_errno(MZ_ERR_IO, "%s: cannot write", path);
}

static mz_status write_at(const char *path, int fd, const char *data, size_t bytes, int64_t at)
{
    const int error = put_bytes(fd, data, bytes, at);
    return error ? write_failed(path, error) : MZ_OK;
}

/* The file while it is written. direct: past the system's cache, which saves a copy and leaves the cache to
 * training; -1 where the file system cannot. */
typedef struct output {
    const char *path;
    int fd, direct;
    double start, rate, written;
} output;

enum { PAGE = 4096 };

/* Writes whole pages directly as long as that works. *bytes: how many; 0 where it cannot be done at all. */
static mz_status write_direct(output *out, const char *data, size_t *bytes, int64_t at)
{
    const bool aligned = (uintptr_t)data % PAGE == 0 && at % PAGE == 0;
    const size_t whole = out->direct >= 0 && aligned ? *bytes / PAGE * PAGE : 0;
    const int error = whole ? put_bytes(out->direct, data, whole, at) : 0;
    *bytes = error ? 0 : whole;
    if (error == EINVAL) { /* larger pages, or a write that ended early: from now on through the cache */
        close(out->direct);
        out->direct = -1;
        return MZ_OK;
    }
    return error ? write_failed(out->path, error) : MZ_OK;
}

static mz_status write_piece(output *out, const char *data, size_t bytes, int64_t at)
{
    size_t done = bytes;
    mz_status status = write_direct(out, data, &done, at);
    if (!status && done < bytes)
        status = write_at(out->path, out->fd, data + done, bytes - done, at + (int64_t)done);
    out->written += (double)bytes;
    if (out->rate > 0)
        sleep_until(out->start + out->written / out->rate);
    return status;
}

static mz_status write_data(output *out, const mz_frame_run *runs, int64_t n_runs)
{
    mz_status status = MZ_OK;
    for (int64_t i = 0; i < n_runs && !status; i++) {
        const char *data = (const char *)runs[i].values;
        const size_t bytes = (size_t)runs[i].shard->count * sizeof(float);
        for (size_t done = 0; done < bytes && !status; done += piece_bytes) {
            const size_t n = bytes - done < piece_bytes ? bytes - done : piece_bytes;
            status = write_piece(out, data + done, n, runs[i].position + (int64_t)done);
        }
    }
    return status;
}

/* ---- what HDF5 made around them ---- */

/* Copies bytes begin .. end of the frame to their place, and into its CRC. */
static mz_status copy_frame(const char *path, int fd, const mz_sparse *memory, int64_t begin, int64_t end,
                            uint32_t *crc)
{
    mz_status status = MZ_OK;
    while (begin < end && !status) {
        size_t n = (size_t)(end - begin);
        const char *piece = mz_sparse_at(memory, begin, &n);
        *crc = mz_crc32c(*crc, piece, n);
        status = write_at(path, fd, piece, n, begin);
        begin += (int64_t)n;
    }
    return status;
}

static int compare_position(const void *a, const void *b)
{
    const mz_frame_run *x = a, *y = b;
    return (x->position > y->position) - (x->position < y->position);
}

static mz_status write_frame(const char *path, int fd, const mz_sparse *memory, mz_frame_run *runs, int64_t n_runs,
                             uint32_t *crc)
{
    int64_t end = 0;
    mz_status status = MZ_OK;
    qsort(runs, (size_t)n_runs, sizeof *runs, compare_position);
    *crc = 0;
    for (int64_t i = 0; i < n_runs && !status; i++) {
        status = copy_frame(path, fd, memory, end, runs[i].position, crc);
        end = runs[i].position + runs[i].shard->count * (int64_t)sizeof(float);
    }
    return status ? status : copy_frame(path, fd, memory, end, memory->bytes, crc);
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
    return json_pack("[s, s, o, I, I, I, s]", mz_shard_kind_name(shard->kind), shard->name, shape,
                     (json_int_t)shard->offset, (json_int_t)shard->count, (json_int_t)run->position, hex);
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

/* Takes the room now, so that a full disk is found before gigabytes are written. */
static mz_status reserve(const char *path, int fd, int64_t bytes)
{
    if (!fallocate(fd, 0, 0, (off_t)bytes))
        return MZ_OK;
    if ((errno == EOPNOTSUPP || errno == ENOSYS) && !ftruncate(fd, (off_t)bytes))
        return MZ_OK;
    return mz_fail_errno(MZ_ERR_IO, "%s: cannot make room for %lld bytes", path, (long long)bytes);
}

static mz_status write_file(const mz_shard_file *file, const mz_sparse *memory, mz_frame_run *runs, int64_t n_runs,
                            uint32_t *frame_crc)
{
    output out = {
        .path = file->path, .rate = file->rate_bytes_per_second, .start = mz_clock_seconds(), .direct = -1};
    out.fd = open(file->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (out.fd < 0)
        return mz_fail_errno(MZ_ERR_IO, "%s: cannot create", file->path);
    out.direct = open(file->path, O_WRONLY | O_DIRECT | O_CLOEXEC);
    mz_status status = reserve(file->path, out.fd, memory->bytes);
    if (!status)
        status = write_data(&out, runs, n_runs);
    if (!status)
        status = write_frame(file->path, out.fd, memory, runs, n_runs, frame_crc);
    if (!status && fsync(out.fd))
        status = mz_fail_errno(MZ_ERR_IO, "%s: cannot write to disk", file->path);
    if (out.direct >= 0)
        close(out.direct);
    if (close(out.fd) && !status)
        status = mz_fail_errno(MZ_ERR_IO, "%s: cannot close", file->path);
    return status;
}

mz_status mz_shard_file_write(const mz_shard_file *file, char **description, int64_t *bytes)
{
    mz_frame_run *runs = NULL;
    uint32_t *crcs = NULL, frame_crc = 0;
    int64_t n_runs = 0;
    mz_sparse memory = {0};
    mz_status status = take_crcs(file, &runs, &n_runs, &crcs);
    if (!status)
        status = mz_hdf5_frame_make(file, runs, n_runs, &memory);
    if (!status) {
        *bytes = memory.bytes;
        status = write_file(file, &memory, runs, n_runs, &frame_crc);
    }
    if (!status)
        status = describe(file, *bytes, frame_crc, runs, n_runs, description);
    mz_sparse_free(&memory);
    mz_free(crcs);
    mz_free(runs);
    return status;
}
