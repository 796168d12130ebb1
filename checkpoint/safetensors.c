#include "checkpoint/safetensors.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "checkpoint/paths.h"
#include "checkpoint/safetensors_header.h"
#include "core/error.h"
#include "core/file.h"
#include "core/half.h"
#include "core/memory.h"

typedef struct weights_file {
    char *path;
    mz_file_map map;
    mz_weights_tensor *tensors; /* owns the names */
    int n_tensors;
} weights_file;

struct mz_weights {
    weights_file *files;
    int n_files;
    mz_weights_tensor *tensors; /* of all files, by name; copies that borrow the names */
    int n_tensors;
};

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const mz_weights_tensor *)a)->name, ((const mz_weights_tensor *)b)->name);
}

static mz_status open_file(weights_file *file, char *path)
{
    if (!path)
        return MZ_ERR_MEMORY;
    file->path = path;
    mz_status status = mz_file_map_open(path, &file->map);
    if (!status)
        status = mz_safetensors_parse(path, file->map.data, file->map.bytes, &file->tensors, &file->n_tensors);
    return status;
}

static void close_file(weights_file *file)
{
    mz_safetensors_free(file->tensors, file->n_tensors);
    mz_file_map_close(&file->map);
    mz_free(file->path);
}

/* Index of the file called `name` among those opened so far, opening it when it is new. */
static mz_status file_of(mz_weights *weights, const char *folder, const char *index_path, const char *name,
                         int *index)
{
    if (!*name || strchr(name, '/'))
        return mz_fail(MZ_ERR_MODEL, "%s: \"weight_map\" names the file \"%.200s\"; expected a name without folder",
                       index_path, name);
    for (int i = 0; i < weights->n_files; i++) {
        const char *base = strrchr(weights->files[i].path, '/');
        if (!strcmp(base + 1, name)) {
            *index = i;
            return MZ_OK;
        }
    }
    weights_file *files = mz_realloc(weights->files, (size_t)(weights->n_files + 1) * sizeof *files);
    if (!files)
        return MZ_ERR_MEMORY;
    weights->files = files;
    memset(&files[weights->n_files], 0, sizeof *files);
    *index = weights->n_files++;
    return open_file(&files[*index], mz_path_join(folder, name));
}

static mz_status check_in_file(const mz_weights *weights, int file, const char *index_path, const char *tensor)
{
    const weights_file *in = &weights->files[file];
    for (int i = 0; i < in->n_tensors; i++)
        if (!strcmp(in->tensors[i].name, tensor))
            return MZ_OK;
    return mz_fail(MZ_ERR_MODEL, "%s: tensor \"%.200s\" should be in %s, which does not have it", index_path,
                   tensor, in->path);
}

static mz_status open_indexed(mz_weights *weights, const char *folder, const char *index_path)
{
    char *text = NULL;
    size_t bytes = 0;
    json_t *root = NULL;
    mz_status status = mz_file_read(index_path, &text, &bytes);
    if (status)
        return status;
    json_error_t error = {.line = 0};
    root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &error);
    json_t *map = json_object_get(root, "weight_map");
    if (!root)
        status = mz_fail(MZ_ERR_MODEL, "%s:%d: not JSON: %s", index_path, error.line, error.text);
    else if (!json_object_size(map))
        status =
            mz_fail(MZ_ERR_MODEL, "%s: expected an object \"weight_map\" of tensors and file names", index_path);
    const char *tensor;
    json_t *name;
    json_object_foreach(map, tensor, name)
    {
        int file = 0;
        if (status)
            break;
        if (!json_is_string(name))
            status = mz_fail(MZ_ERR_MODEL, "%s: tensor \"%.200s\": expected a file name", index_path, tensor);
        else if (!(status = file_of(weights, folder, index_path, json_string_value(name), &file)))
            status = check_in_file(weights, file, index_path, tensor);
    }
    json_decref(root);
    mz_free(text);
    return status;
}

/* One list of all files' tensors, sorted by name. */
static mz_status collect(mz_weights *weights)
{
    int n = 0;
    for (int i = 0; i < weights->n_files; i++)
        n += weights->files[i].n_tensors;
    weights->tensors = mz_calloc((size_t)n, sizeof *weights->tensors);
    if (!weights->tensors)
        return MZ_ERR_MEMORY;
    for (int i = 0; i < weights->n_files; i++) {
        const weights_file *file = &weights->files[i];
        memcpy(&weights->tensors[weights->n_tensors], file->tensors,
               (size_t)file->n_tensors * sizeof *file->tensors);
        weights->n_tensors += file->n_tensors;
    }
    qsort(weights->tensors, (size_t)n, sizeof *weights->tensors, compare_names);
    for (int i = 1; i < n; i++)
        if (!strcmp(weights->tensors[i - 1].name, weights->tensors[i].name))
            return mz_fail(MZ_ERR_MODEL, "%s: tensor \"%.200s\" is in two files of this folder",
                           weights->files[0].path, weights->tensors[i].name);
    return MZ_OK;
}

static bool has_pickle(const char *folder)
{
    return mz_exists_in(folder, "pytorch_model.bin") || mz_exists_in(folder, "pytorch_model.bin.index.json");
}

static mz_status open_single(mz_weights *weights, char *path)
{
    weights->files = mz_calloc(1, sizeof *weights->files);
    if (!weights->files) {
        mz_free(path);
        return MZ_ERR_MEMORY;
    }
    weights->n_files = 1;
    return open_file(&weights->files[0], path);
}

static mz_status open_folder(mz_weights *weights, const char *folder)
{
    if (mz_exists_in(folder, "model.safetensors"))
        return open_single(weights, mz_path_join(folder, "model.safetensors"));
    if (mz_exists_in(folder, "model.safetensors.index.json")) {
        char *index_path = mz_path_join(folder, "model.safetensors.index.json");
        if (!index_path)
            return MZ_ERR_MEMORY;
        mz_status status = open_indexed(weights, folder, index_path);
        mz_free(index_path);
        return status;
    }
    if (has_pickle(folder))
        return mz_fail(
            MZ_ERR_MODEL,
            "%s: only pytorch_model.bin is here, and pickled files are not read; convert it: python -c "
            "\"from transformers import AutoModelForCausalLM as A; A.from_pretrained('%s').save_pretrained("
            "'%s', safe_serialization=True)\"",
            folder, folder, folder);
    return mz_fail(MZ_ERR_MODEL, "%s: expected model.safetensors or model.safetensors.index.json, found neither",
                   folder);
}

mz_status mz_weights_open(const char *folder, mz_weights **weights)
{
    struct stat facts;
    if (stat(folder, &facts))
        return mz_fail_errno(MZ_ERR_IO, "cannot open the weights %s", folder);
    mz_weights *w = mz_calloc(1, sizeof *w);
    if (!w)
        return MZ_ERR_MEMORY;
    mz_status status = S_ISDIR(facts.st_mode) ? open_folder(w, folder) : open_single(w, mz_strdup(folder));
    if (!status)
        status = collect(w);
    if (status) {
        mz_weights_close(w);
        return status;
    }
    *weights = w;
    return MZ_OK;
}

void mz_weights_close(mz_weights *weights)
{
    if (!weights)
        return;
    for (int i = 0; i < weights->n_files; i++)
        close_file(&weights->files[i]);
    mz_free(weights->files);
    mz_free(weights->tensors);
    mz_free(weights);
}

int mz_weights_n_tensors(const mz_weights *weights)
{
    return weights->n_tensors;
}

const mz_weights_tensor *mz_weights_at(const mz_weights *weights, int i)
{
    return i >= 0 && i < weights->n_tensors ? &weights->tensors[i] : NULL;
}

const mz_weights_tensor *mz_weights_find(const mz_weights *weights, const char *name)
{
    const mz_weights_tensor key = {.name = name};
    return bsearch(&key, weights->tensors, (size_t)weights->n_tensors, sizeof key, compare_names);
}

static const char *path_of(const mz_weights *weights, const mz_weights_tensor *tensor)
{
    for (int i = 0; i < weights->n_files; i++) {
        const mz_file_map *map = &weights->files[i].map;
        if ((const uint8_t *)tensor->data >= map->data && (const uint8_t *)tensor->data <= map->data + map->bytes)
            return weights->files[i].path;
    }
    return "weights";
}

/* Files may place a tensor at any byte; loads want whole elements. */
static void convert_unaligned(float *dst, const uint8_t *src, mz_dtype dtype, int64_t count)
{
    _Alignas(64) uint8_t piece[16384];
    const int64_t room = (int64_t)(sizeof piece / mz_dtype_size(dtype));
    for (int64_t done = 0; done < count; done += room) {
        int64_t n = count - done < room ? count - done : room;
        memcpy(piece, src + (size_t)done * mz_dtype_size(dtype), (size_t)n * mz_dtype_size(dtype));
        mz_convert(dst + done, MZ_F32, piece, dtype, n);
    }
}

mz_status mz_weights_read(const mz_weights *weights, const mz_weights_tensor *tensor, int64_t offset, int64_t count,
                          float *dst)
{
    if (tensor->dtype != MZ_F32 && tensor->dtype != MZ_F16 && tensor->dtype != MZ_BF16 && tensor->dtype != MZ_F64)
        return mz_fail(MZ_ERR_MODEL, "%s: tensor \"%.200s\" has dtype %s; expected F32, F16, BF16 or F64",
                       path_of(weights, tensor), tensor->name, tensor->dtype_name);
    if (offset < 0 || count < 0 || offset > tensor->numel || count > tensor->numel - offset)
        return mz_fail(MZ_ERR_ARGUMENT, "%s: tensor \"%.200s\": elements %lld to %lld asked for, it has %lld",
                       path_of(weights, tensor), tensor->name, (long long)offset, (long long)(offset + count),
                       (long long)tensor->numel);
    if (!count)
        return MZ_OK;
    const size_t size = mz_dtype_size(tensor->dtype);
    const uint8_t *src = (const uint8_t *)tensor->data + (size_t)offset * size;
    if ((uintptr_t)src % size)
        convert_unaligned(dst, src, tensor->dtype, count);
    else
        mz_convert(dst, MZ_F32, src, tensor->dtype, count);
    return MZ_OK;
}

bool mz_weights_present(const char *folder)
{
    struct stat facts;
    if (stat(folder, &facts))
        return false;
    return !S_ISDIR(facts.st_mode) || mz_exists_in(folder, "model.safetensors") ||
           mz_exists_in(folder, "model.safetensors.index.json") || has_pickle(folder);
}
