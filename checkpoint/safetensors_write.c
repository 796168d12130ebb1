#include "checkpoint/safetensors.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "checkpoint/safetensors_header.h"
#include "core/error.h"
#include "core/file.h"
#include "core/half.h"
#include "core/memory.h"

enum { PIECE_ELEMENTS = 262144 };
static const int64_t default_max_file_bytes = 5000000000;
static const char single_name[] = "model.safetensors", index_name[] = "model.safetensors.index.json";

typedef struct placed {
    char *name;
    int n_dims, file;
    int64_t shape[MZ_MAX_DIMS], numel;
    int64_t begin; /* byte of its file's data */
} placed;

typedef struct out_file {
    char *name, *path, *tmp; /* tmp: where it is written */
    int64_t header_bytes, data_bytes;
    int fd;
    bool made; /* by this writer: to be removed when it does not finish */
} out_file;

struct mz_weights_writer {
    char *folder;
    mz_dtype dtype;
    placed *tensors;
    int n_tensors;
    out_file *files;
    int n_files;
    int64_t total_bytes;
    void *piece; /* PIECE_ELEMENTS converted */
};

/* ---- the plan: a function of entries, dtype and max_file_bytes alone ---- */

static mz_status place_one(mz_weights_writer *writer, const mz_weights_entry *entry, int64_t max_file_bytes,
                           int64_t *used)
{
    placed *tensor = &writer->tensors[writer->n_tensors];
    *tensor = (placed){.n_dims = entry->n_dims, .numel = 1};
    for (int i = 0; i < entry->n_dims; i++) {
        tensor->shape[i] = entry->shape[i];
        if (entry->shape[i] < 0 || __builtin_mul_overflow(tensor->numel, entry->shape[i], &tensor->numel))
            return mz_fail(MZ_ERR_ARGUMENT, "tensor \"%s\" has a shape that cannot be", entry->name);
    }
    int64_t bytes;
    if (__builtin_mul_overflow(tensor->numel, (int64_t)mz_dtype_size(writer->dtype), &bytes))
        return mz_fail(MZ_ERR_ARGUMENT, "tensor \"%s\" is larger than 2^63 bytes", entry->name);
    if (writer->n_files == 0 || (*used > 0 && bytes > max_file_bytes - *used)) {
        writer->n_files++;
        *used = 0;
    }
    tensor->file = writer->n_files - 1;
    tensor->begin = *used;
    *used += bytes;
    writer->total_bytes += bytes;
    writer->n_tensors++;
    tensor->name = mz_strdup(entry->name);
    return tensor->name ? MZ_OK : MZ_ERR_MEMORY;
}

static mz_status name_files(mz_weights_writer *writer)
{
    writer->files = mz_calloc((size_t)writer->n_files, sizeof *writer->files);
    if (!writer->files)
        return MZ_ERR_MEMORY;
    for (int i = 0; i < writer->n_files; i++)
        writer->files[i].fd = -1;
    for (int i = 0; i < writer->n_files; i++) {
        out_file *file = &writer->files[i];
        file->name = writer->n_files == 1 ? mz_strdup(single_name)
                                          : mz_strprintf("model-%05d-of-%05d.safetensors", i + 1, writer->n_files);
        file->path = file->name ? mz_path_join(writer->folder, file->name) : NULL;
        file->tmp = file->path ? mz_strprintf("%s.tmp", file->path) : NULL;
        if (!file->tmp)
            return MZ_ERR_MEMORY;
    }
    for (int i = 0; i < writer->n_tensors; i++) {
        const placed *tensor = &writer->tensors[i];
        writer->files[tensor->file].data_bytes =
            tensor->begin + tensor->numel * (int64_t)mz_dtype_size(writer->dtype);
    }
    return MZ_OK;
}

static json_t *header_entry(const mz_weights_writer *writer, const placed *tensor)
{
    json_t *shape = json_array();
    for (int i = 0; i < tensor->n_dims; i++)
        json_array_append_new(shape, json_integer(tensor->shape[i]));
    json_int_t begin = tensor->begin, end = begin + tensor->numel * (json_int_t)mz_dtype_size(writer->dtype);
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", mz_safetensors_dtype_name(writer->dtype), "shape", shape,
                     "data_offsets", begin, end);
}

/* The header of one file: length, JSON, and blanks so that the data begin at a multiple of 8. Owned by the caller.
 */
static mz_status make_header(const mz_weights_writer *writer, int file, char **header, int64_t *bytes)
{
    json_t *root = json_pack("{s:{s:s}}", "__metadata__", "format", "pt");
    int failed = !root;
    for (int i = 0; i < writer->n_tensors && !failed; i++)
        if (writer->tensors[i].file == file)
            failed = json_object_set_new(root, writer->tensors[i].name, header_entry(writer, &writer->tensors[i]));
    char *text = failed ? NULL : json_dumps(root, JSON_COMPACT);
    json_decref(root);
    if (!text)
        return mz_fail(MZ_ERR_MEMORY, "%s: no memory for the header (or a tensor name that is not UTF-8)",
                       writer->files[file].path);
    const size_t length = strlen(text), padded = (length + 7) / 8 * 8;
    char *out = mz_alloc(8 + padded);
    if (out) {
        for (int i = 0; i < 8; i++)
            out[i] = (char)(padded >> (8 * i) & 0xff);
        memcpy(out + 8, text, length);
        memset(out + 8 + length, ' ', padded - length);
        *header = out;
        *bytes = (int64_t)(8 + padded);
    }
    free(text);
    return out ? MZ_OK : MZ_ERR_MEMORY;
}

static mz_status check_names(const mz_weights_entry *entries, int n)
{
    json_t *seen = json_object();
    mz_status status = seen ? MZ_OK : MZ_ERR_MEMORY;
    for (int i = 0; i < n && !status; i++) {
        if (json_object_get(seen, entries[i].name))
            status = mz_fail(MZ_ERR_ARGUMENT, "tensor \"%s\" is listed twice", entries[i].name);
        else if (json_object_set_new(seen, entries[i].name, json_true()))
            status = mz_fail(MZ_ERR_ARGUMENT, "tensor %d has a name that is not UTF-8", i);
    }
    json_decref(seen);
    return status;
}

static mz_status make_plan(mz_weights_writer *writer, const mz_weights_entry *entries, int n,
                           int64_t max_file_bytes)
{
    mz_status status = check_names(entries, n);
    writer->tensors = mz_calloc((size_t)n, sizeof *writer->tensors);
    if (!status && !writer->tensors)
        status = MZ_ERR_MEMORY;
    int64_t used = 0;
    for (int i = 0; i < n && !status; i++)
        status =
            place_one(writer, &entries[i], max_file_bytes > 0 ? max_file_bytes : default_max_file_bytes, &used);
    if (!status && !writer->n_files)
        writer->n_files = 1;
    return status ? status : name_files(writer);
}

/* ---- files ---- */

static mz_status write_at(const out_file *file, const void *data, size_t bytes, int64_t at)
{
    const char *p = data;
    while (bytes) {
        ssize_t done = pwrite(file->fd, p, bytes, (off_t)at);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return mz_fail_errno(MZ_ERR_IO, "cannot write %s", file->tmp);
        p += done;
        at += done;
        bytes -= (size_t)done;
    }
    return MZ_OK;
}

/* Takes the room on the disk now, so that a full one is found before anybody has written for minutes. */
static mz_status reserve(const out_file *file, int64_t bytes)
{
    if (bytes == 0 || !fallocate(file->fd, 0, 0, (off_t)bytes))
        return MZ_OK;
    if ((errno == EOPNOTSUPP || errno == ENOSYS) && !ftruncate(file->fd, (off_t)bytes))
        return MZ_OK;
    return mz_fail_errno(MZ_ERR_IO, "cannot make room for %lld bytes in %s", (long long)bytes, file->tmp);
}

static mz_status open_file(out_file *file, bool create, const char *header)
{
    file->fd = open(file->tmp, create ? O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC : O_RDWR | O_CLOEXEC, 0666);
    if (file->fd < 0)
        return mz_fail_errno(MZ_ERR_IO, "cannot %s %s", create ? "create" : "open", file->tmp);
    if (!create)
        return MZ_OK;
    file->made = true;
    mz_status status = reserve(file, file->header_bytes + file->data_bytes);
    return status ? status : write_at(file, header, (size_t)file->header_bytes, 0);
}

static mz_status open_files(mz_weights_writer *writer, bool create)
{
    mz_status status = create ? mz_make_directories(writer->folder) : MZ_OK;
    for (int i = 0; i < writer->n_files && !status; i++) {
        char *header = NULL;
        status = make_header(writer, i, &header, &writer->files[i].header_bytes);
        if (!status)
            status = open_file(&writer->files[i], create, header);
        mz_free(header);
    }
    return status;
}

mz_status mz_weights_writer_open(const char *folder, const mz_weights_entry *entries, int n, mz_dtype dtype,
                                 int64_t max_file_bytes, bool create, mz_weights_writer **writer)
{
    if (dtype != MZ_F32 && dtype != MZ_F16 && dtype != MZ_BF16)
        return mz_fail(MZ_ERR_ARGUMENT, "weights are written as f32, f16 or bf16, not as %s", mz_dtype_name(dtype));
    mz_weights_writer *w = mz_calloc(1, sizeof *w);
    if (!w)
        return MZ_ERR_MEMORY;
    w->dtype = dtype;
    w->folder = mz_strdup(folder);
    w->piece = mz_alloc_aligned(PIECE_ELEMENTS * mz_dtype_size(dtype));
    mz_status status = w->folder && w->piece ? make_plan(w, entries, n, max_file_bytes) : MZ_ERR_MEMORY;
    if (!status)
        status = open_files(w, create);
    if (status) {
        mz_weights_writer_close(w);
        return status;
    }
    *writer = w;
    return MZ_OK;
}

mz_status mz_weights_writer_put(mz_weights_writer *writer, int entry, int64_t offset, int64_t count,
                                const float *src)
{
    if (entry < 0 || entry >= writer->n_tensors)
        return mz_fail(MZ_ERR_ARGUMENT, "weights writer: entry %d of %d", entry, writer->n_tensors);
    const placed *tensor = &writer->tensors[entry];
    if (offset < 0 || count < 0 || offset > tensor->numel || count > tensor->numel - offset)
        return mz_fail(MZ_ERR_ARGUMENT, "tensor \"%s\": elements %lld to %lld given, it has %lld", tensor->name,
                       (long long)offset, (long long)(offset + count), (long long)tensor->numel);
    const out_file *file = &writer->files[tensor->file];
    const int64_t size = (int64_t)mz_dtype_size(writer->dtype);
    mz_status status = MZ_OK;
    for (int64_t done = 0; done < count && !status; done += PIECE_ELEMENTS) {
        const int64_t n = count - done < PIECE_ELEMENTS ? count - done : PIECE_ELEMENTS;
        const void *data = src + done;
        if (writer->dtype != MZ_F32) {
            mz_convert(writer->piece, writer->dtype, src + done, MZ_F32, n);
            data = writer->piece;
        }
        status =
            write_at(file, data, (size_t)(n * size), file->header_bytes + tensor->begin + (offset + done) * size);
    }
    return status;
}

mz_status mz_weights_writer_sync(mz_weights_writer *writer)
{
    for (int i = 0; i < writer->n_files; i++)
        if (fsync(writer->files[i].fd))
            return mz_fail_errno(MZ_ERR_IO, "cannot write %s to disk", writer->files[i].tmp);
    return MZ_OK;
}

/* ---- the last step ---- */

static mz_status write_index(const mz_weights_writer *writer)
{
    json_t *map = json_object();
    for (int i = 0; i < writer->n_tensors; i++)
        json_object_set_new(map, writer->tensors[i].name, json_string(writer->files[writer->tensors[i].file].name));
    json_t *root =
        json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)writer->total_bytes, "weight_map", map);
    char *text = root ? json_dumps(root, JSON_INDENT(2) | JSON_SORT_KEYS) : NULL;
    char *path = mz_path_join(writer->folder, index_name);
    mz_status status = text && path ? mz_file_write_atomic(path, text, strlen(text))
                                    : mz_fail(MZ_ERR_MEMORY, "%s: no memory for the index", writer->folder);
    mz_free(path);
    free(text);
    json_decref(root);
    return status;
}

static bool is_ours(const mz_weights_writer *writer, const char *name)
{
    for (int i = 0; i < writer->n_files; i++)
        if (!strcmp(writer->files[i].name, name))
            return true;
    return writer->n_files > 1 && !strcmp(name, index_name);
}

/* Weight files as an earlier save or a crashed one left them: model.safetensors, model-00002-of-00003.safetensors,
 * the index, and their temporary names. */
static bool is_weight_file(const char *name)
{
    int part, parts, end = 0;
    if (!strncmp(name, index_name, sizeof index_name - 1))
        end = sizeof index_name - 1;
    else if (!strncmp(name, single_name, sizeof single_name - 1))
        end = sizeof single_name - 1;
    else
        sscanf(name, "model-%5d-of-%5d.safetensors%n", &part, &parts, &end);
    return end > 0 && (!name[end] || !strcmp(name + end, ".tmp"));
}

static mz_status remove_stale(const mz_weights_writer *writer)
{
    DIR *folder = opendir(writer->folder);
    if (!folder)
        return mz_fail_errno(MZ_ERR_IO, "cannot list %s", writer->folder);
    mz_status status = MZ_OK;
    for (struct dirent *entry = readdir(folder); entry; entry = readdir(folder))
        if (is_weight_file(entry->d_name) && !is_ours(writer, entry->d_name) &&
            unlinkat(dirfd(folder), entry->d_name, 0))
            status = mz_fail_errno(MZ_ERR_IO, "cannot remove the stale %s/%s", writer->folder, entry->d_name);
    closedir(folder);
    return status;
}

mz_status mz_weights_writer_finish(mz_weights_writer *writer)
{
    mz_status status = mz_weights_writer_sync(writer);
    for (int i = 0; i < writer->n_files && !status; i++) {
        out_file *file = &writer->files[i];
        status = mz_file_rename(file->tmp, file->path);
        if (!status)
            file->made = false;
    }
    if (!status && writer->n_files > 1)
        status = write_index(writer);
    return status ? status : remove_stale(writer);
}

void mz_weights_writer_close(mz_weights_writer *writer)
{
    if (!writer)
        return;
    for (int i = 0; writer->files && i < writer->n_files; i++) {
        out_file *file = &writer->files[i];
        if (file->fd >= 0)
            close(file->fd);
        if (file->made)
            unlink(file->tmp);
        mz_free(file->name);
        mz_free(file->path);
        mz_free(file->tmp);
    }
    for (int i = 0; writer->tensors && i < writer->n_tensors; i++)
        mz_free(writer->tensors[i].name);
    mz_free(writer->files);
    mz_free(writer->tensors);
    mz_free(writer->piece);
    mz_free(writer->folder);
    mz_free(writer);
}
