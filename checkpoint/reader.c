#include "checkpoint/reader.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "checkpoint/steps.h"
#include "core/error.h"
#include "core/file.h"
#include "core/half.h"
#include "core/memory.h"

/* Whole blocks are read to their place in pieces of this many elements. */
static const int64_t piece_elements = 4 << 20;

static mz_status check_size(const char *folder, const mz_manifest_file *file)
{
    struct stat info;
    char *path = mz_path_join(folder, file->name);
    mz_status status = path ? MZ_OK : MZ_ERR_MEMORY;
    if (path && stat(path, &info))
        status = mz_fail_errno(MZ_ERR_CHECKPOINT, "%s: missing from the checkpoint", path);
    else if (path && info.st_size != file->bytes)
        status = mz_fail(MZ_ERR_CHECKPOINT, "%s: %lld bytes, the manifest says %lld; the file is damaged", path,
                         (long long)info.st_size, (long long)file->bytes);
    mz_free(path);
    return status;
}

static mz_status read_manifest(mz_checkpoint *checkpoint)
{
    char *text = NULL, *path = mz_path_join(checkpoint->folder, MZ_MANIFEST_NAME);
    size_t bytes = 0;
    mz_status status = MZ_ERR_MEMORY;
    if (!path)
        return status;
    if (!mz_path_exists(path))
        status = mz_fail(MZ_ERR_CHECKPOINT, "%s: no %s, so this is no checkpoint (or a save that never ended)",
                         checkpoint->folder, MZ_MANIFEST_NAME);
    else if (!(status = mz_file_read(path, &text, &bytes)))
        status = mz_manifest_parse(path, text, bytes, &checkpoint->manifest);
    mz_free(text);
    mz_free(path);
    return status;
}

mz_status mz_checkpoint_open_step(const char *folder, mz_checkpoint **checkpoint)
{
    mz_checkpoint *c = mz_calloc(1, sizeof *c);
    if (!c)
        return MZ_ERR_MEMORY;
    c->open_file = c->fd = -1;
    c->folder = mz_strdup(folder);
    mz_status status = c->folder ? read_manifest(c) : MZ_ERR_MEMORY;
    for (int i = 0; i < c->manifest.n_files && !status; i++)
        status = check_size(folder, &c->manifest.files[i]);
    for (int64_t i = 0; i < c->manifest.n_runs; i++) {
        const int64_t block = mz_run_block(c->manifest.runs[i].count);
        if (block > c->block_elements)
            c->block_elements = block;
    }
    if (!status && !(c->block = mz_alloc_aligned((size_t)c->block_elements * sizeof *c->block)))
        status = MZ_ERR_MEMORY;
    if (!status && !(c->frame_checked = mz_calloc((size_t)c->manifest.n_files, sizeof *c->frame_checked)))
        status = MZ_ERR_MEMORY;
    if (status) {
        mz_checkpoint_close(c);
        return status;
    }
    *checkpoint = c;
    return MZ_OK;
}

/* Adds to the message which older checkpoint could be used instead. */
static mz_status name_older(const char *step_folder, mz_status status)
{
    char *message = mz_strdup(mz_last_error()), *parent = mz_strdup(step_folder), *older = NULL;
    char *slash = parent ? strrchr(parent, '/') : NULL;
    if (message && slash) {
        *slash = '\0';
        if (!mz_steps_find_whole(parent, slash + 1, &older))
            mz_fail(status, "%s; the newest other checkpoint that is whole is %s", message, older);
        else
            mz_fail(status, "%s; no other checkpoint here is whole", message);
    }
    mz_free(older);
    mz_free(parent);
    mz_free(message);
    return status;
}

mz_status mz_checkpoint_open(const char *folder, mz_checkpoint **checkpoint)
{
    char *step_folder;
    mz_status status = mz_steps_resolve(folder, &step_folder);
    if (status)
        return status;
    status = mz_checkpoint_open_step(step_folder, checkpoint);
    if (status == MZ_ERR_CHECKPOINT)
        status = name_older(step_folder, status);
    mz_free(step_folder);
    return status;
}

void mz_checkpoint_close(mz_checkpoint *checkpoint)
{
    if (!checkpoint)
        return;
    if (checkpoint->fd >= 0)
        close(checkpoint->fd);
    mz_manifest_free(&checkpoint->manifest);
    mz_free(checkpoint->block);
    mz_free(checkpoint->frame_checked);
    mz_free(checkpoint->folder);
    mz_free(checkpoint);
}

mz_status mz_checkpoint_find_latest(const char *run_folder, char **folder)
{
    char *checkpoints = mz_path_join(run_folder, MZ_CHECKPOINTS_FOLDER);
    mz_status status = checkpoints ? mz_steps_find_whole(checkpoints, NULL, folder) : MZ_ERR_MEMORY;
    mz_free(checkpoints);
    return status;
}

const char *mz_checkpoint_folder(const mz_checkpoint *checkpoint)
{
    return checkpoint->folder;
}

int64_t mz_checkpoint_step(const mz_checkpoint *checkpoint)
{
    return checkpoint->manifest.step;
}

const char *mz_checkpoint_state(const mz_checkpoint *checkpoint)
{
    return checkpoint->manifest.state;
}

int mz_checkpoint_n_tensors(const mz_checkpoint *checkpoint)
{
    return checkpoint->manifest.n_tensors;
}

const mz_checkpoint_tensor *mz_checkpoint_tensor_at(const mz_checkpoint *checkpoint, int i)
{
    return i >= 0 && i < checkpoint->manifest.n_tensors ? &checkpoint->manifest.tensors[i] : NULL;
}

/* ---- data ---- */

static const char *file_name(const mz_checkpoint *checkpoint, int file)
{
    return checkpoint->manifest.files[file].name;
}

mz_status mz_checkpoint_pread(mz_checkpoint *checkpoint, void *dst, size_t bytes, int64_t at)
{
    for (char *p = dst; bytes;) {
        const ssize_t got = pread(checkpoint->fd, p, bytes, (off_t)at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return mz_fail_errno(MZ_ERR_IO, "%s/%s: cannot read", checkpoint->folder,
                                 file_name(checkpoint, checkpoint->open_file));
        if (got == 0)
            return mz_fail(MZ_ERR_CHECKPOINT, "%s/%s: ends at byte %lld; it was cut short while it was read",
                           checkpoint->folder, file_name(checkpoint, checkpoint->open_file), (long long)at);
        p += got;
        at += got;
        bytes -= (size_t)got;
    }
    return MZ_OK;
}

static mz_status add_to_crc(mz_checkpoint *checkpoint, int64_t begin, int64_t end, uint32_t *crc)
{
    char piece[16384];
    mz_status status = MZ_OK;
    while (begin < end && !status) {
        const size_t n = end - begin < (int64_t)sizeof piece ? (size_t)(end - begin) : sizeof piece;
        status = mz_checkpoint_pread(checkpoint, piece, n, begin);
        if (!status)
            *crc = mz_crc32c(*crc, piece, n);
        begin += (int64_t)n;
    }
    return status;
}

/* HDF5's own structures in the open file. */
static mz_status check_frame(mz_checkpoint *checkpoint, int file)
{
    const mz_manifest_file *facts = &checkpoint->manifest.files[file];
    const mz_manifest_run *runs = checkpoint->manifest.by_file + facts->first_run;
    uint32_t crc = 0;
    int64_t end = 0;
    mz_status status = MZ_OK;
    for (int64_t i = 0; i < facts->n_runs && !status; i++) {
        status = add_to_crc(checkpoint, end, runs[i].position, &crc);
        end = runs[i].position + mz_run_bytes(&runs[i], runs[i].count);
    }
    if (!status)
        status = add_to_crc(checkpoint, end, facts->bytes, &crc);
    if (!status && crc != facts->frame_crc)
        status =
            mz_fail(MZ_ERR_CHECKPOINT,
                    "%s/%s: the CRC-32C of its HDF5 structures (all that is not data) is %08x, the manifest says "
                    "%08x; the file is damaged, use an older checkpoint",
                    checkpoint->folder, facts->name, crc, facts->frame_crc);
    checkpoint->frame_checked[file] = !status;
    return status;
}

mz_status mz_checkpoint_select(mz_checkpoint *checkpoint, int file)
{
    if (checkpoint->open_file == file)
        return checkpoint->frame_checked[file] ? MZ_OK : check_frame(checkpoint, file);
    if (checkpoint->fd >= 0)
        close(checkpoint->fd);
    checkpoint->open_file = -1;
    char *path = mz_path_join(checkpoint->folder, file_name(checkpoint, file));
    if (!path)
        return MZ_ERR_MEMORY;
    mz_status status = MZ_OK;
    checkpoint->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (checkpoint->fd < 0)
        status = mz_fail_errno(MZ_ERR_IO, "%s: cannot open", path);
    else
        checkpoint->open_file = file;
    if (!status)
        posix_fadvise(checkpoint->fd, 0, 0, POSIX_FADV_SEQUENTIAL); /* reads further ahead */
    mz_free(path);
    return status || checkpoint->frame_checked[file] ? status : check_frame(checkpoint, file);
}

/* Elements [first, first + count) of the run are at `data`; first is a block's begin, and they end at one's end. */
static mz_status check_blocks(const mz_checkpoint *checkpoint, const mz_manifest_run *run, int64_t first,
                              int64_t count, const uint8_t *data)
{
    const int64_t block = mz_run_block(run->count);
    for (int64_t done = 0; done < count; done += block) {
        const int64_t n = count - done < block ? count - done : block;
        const uint32_t found = mz_crc32c(0, data + mz_run_bytes(run, done), (size_t)mz_run_bytes(run, n));
        const uint32_t expected = run->crcs[(first + done) / block];
        if (found != expected)
            return mz_fail(
                MZ_ERR_CHECKPOINT,
                "%s/%s: data set /%s/%s/%lld: the CRC-32C of its elements %lld to %lld is %08x, the manifest "
                "says %08x; the file is damaged, use an older checkpoint",
                checkpoint->folder, file_name(checkpoint, run->file), mz_shard_kind_name(run->kind),
                checkpoint->manifest.tensors[run->tensor].name, (long long)run->offset, (long long)(first + done),
                (long long)(first + done + n), found, expected);
    }
    return MZ_OK;
}

/* From the upper half of dst, where they were read to, to all of it: a piece is never written over what is unread.
 */
static void widen(uint16_t *values, int64_t count, float *dst)
{
    enum { PIECE = 1024 };
    uint16_t piece[PIECE];
    for (int64_t done = 0; done < count; done += PIECE) {
        const int64_t n = count - done < PIECE ? count - done : PIECE;
        memcpy(piece, values + done, (size_t)n * sizeof *piece);
        mz_convert(dst + done, MZ_F32, piece, MZ_BF16, n);
    }
}

static mz_status read_blocks(mz_checkpoint *checkpoint, const mz_manifest_run *run, int64_t first, int64_t count,
                             float *dst)
{
    uint8_t *raw = (uint8_t *)(dst + count) - mz_run_bytes(run, count);
    mz_status status = mz_checkpoint_pread(checkpoint, raw, (size_t)mz_run_bytes(run, count),
                                           run->position + mz_run_bytes(run, first));
    if (!status)
        status = check_blocks(checkpoint, run, first, count, raw);
    if (!status && run->dtype == MZ_BF16)
        widen((uint16_t *)(void *)raw, count, dst);
    return status;
}

mz_status mz_checkpoint_read_run(mz_checkpoint *checkpoint, const mz_manifest_run *run, int64_t first,
                                 int64_t count, float *dst)
{
    const int64_t block = mz_run_block(run->count), end = first + count;
    mz_status status = mz_checkpoint_select(checkpoint, run->file);
    while (first < end && !status) {
        const int64_t begin = first / block * block; /* of the block that holds `first` */
        const int64_t block_end = run->count - begin < block ? run->count : begin + block;
        int64_t n;
        if (begin == first && block_end <= end) { /* whole blocks, as many as lie here */
            n = end == run->count ? end - first : (end - first) / block * block;
            if (n > piece_elements)
                n = block > piece_elements ? block : piece_elements / block * block;
            status = read_blocks(checkpoint, run, first, n, dst);
        } else {
            n = (block_end < end ? block_end : end) - first;
            status = read_blocks(checkpoint, run, begin, block_end - begin, checkpoint->block);
            if (!status)
                memcpy(dst, checkpoint->block + (first - begin), (size_t)n * sizeof *dst);
        }
        first += n;
        dst += n;
    }
    return status;
}

/* The run among [begin, end) that holds element `offset`; runs cover the tensor. */
static int64_t find_run(const mz_manifest *manifest, int64_t begin, int64_t end, int64_t offset)
{
    while (end - begin > 1) {
        const int64_t middle = begin + (end - begin) / 2;
        if (manifest->runs[middle].offset <= offset)
            begin = middle;
        else
            end = middle;
    }
    return begin;
}

mz_status mz_checkpoint_read(mz_checkpoint *checkpoint, const char *name, mz_shard_kind kind, int64_t offset,
                             int64_t count, float *dst)
{
    const mz_manifest *manifest = &checkpoint->manifest;
    const int tensor = mz_manifest_find(manifest, name);
    if (tensor < 0 || !manifest->tensors[tensor].kinds[kind])
        return mz_fail(MZ_ERR_CHECKPOINT, "%s: has no %s of tensor \"%s\"", checkpoint->folder,
                       mz_shard_kind_name(kind), name);
    const int64_t numel = manifest->tensors[tensor].numel;
    if (offset < 0 || count < 0 || offset > numel || count > numel - offset)
        return mz_fail(MZ_ERR_ARGUMENT, "%s: tensor \"%s\": elements %lld to %lld asked for, it has %lld",
                       checkpoint->folder, name, (long long)offset, (long long)(offset + count), (long long)numel);
    int64_t begin, end;
    mz_manifest_runs(manifest, tensor, kind, &begin, &end);
    mz_status status = MZ_OK;
    for (int64_t r = find_run(manifest, begin, end, offset); count && !status; r++) {
        const mz_manifest_run *run = &manifest->runs[r];
        const int64_t first = offset - run->offset, left = run->count - first, n = count < left ? count : left;
        status = mz_checkpoint_read_run(checkpoint, run, first, n, dst);
        offset += n;
        count -= n;
        dst += n;
    }
    return status == MZ_ERR_CHECKPOINT ? name_older(checkpoint->folder, status) : status;
}
