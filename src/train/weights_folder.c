/* Writing a weights folder. */
#include "train/weights_folder.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/file.h"
#include "core/memory.h"

/* Host buffer through which device shards pass. */
#define PIECE_ELEMENTS ((int64_t)4 << 20)

static const char *const tokenizer_files[] = {
    "tokenizer.json",    "tokenizer_config.json",  "vocab.json", "merges.txt", "special_tokens_map.json",
    "added_tokens.json", "generation_config.json", "spm.model"};

static mz_status list_entries(const mz_model *model, mz_weights_entry **entries, int *n)
{
    int total = 0;
    for (int u = 0; u < mz_model_n_units(model); u++)
        total += mz_model_unit(model, u)->n_params;
    mz_weights_entry *list = mz_calloc((size_t)total, sizeof *list);
    if (!list)
        return MZ_ERR_MEMORY;
    int at = 0;
    for (int u = 0; u < mz_model_n_units(model); u++) {
        const mz_unit_spec *unit = mz_model_unit(model, u);
        for (int p = 0; p < unit->n_params; p++, at++) {
            list[at].name = unit->params[p].name;
            list[at].n_dims = unit->params[p].n_dims;
            memcpy(list[at].shape, unit->params[p].shape, sizeof list[at].shape);
        }
    }
    *entries = list;
    *n = total;
    return MZ_OK;
}

static int find_entry(const mz_weights_entry *entries, int n, const char *name, int hint)
{
    for (int i = 0; i < n; i++) {
        int at = (hint + i) % n;
        if (strcmp(entries[at].name, name) == 0)
            return at;
    }
    return -1;
}

static mz_status put_shard(mz_weights_writer *writer, mz_device *device, mz_stream *stream, float *host, int entry,
                           const mz_shard *shard)
{
    mz_status st = MZ_OK;
    for (int64_t done = 0; done < shard->count && st == MZ_OK; done += PIECE_ELEMENTS) {
        int64_t n = shard->count - done < PIECE_ELEMENTS ? shard->count - done : PIECE_ELEMENTS;
        st = device->ops->copy(stream, host, shard->data + done, (size_t)n * sizeof *host);
        if (st == MZ_OK)
            st = device->ops->stream_sync(stream);
        if (st == MZ_OK)
            st = mz_weights_writer_put(writer, entry, shard->offset + done, n, host);
    }
    return st;
}

static mz_status put_shards(mz_weights_writer *writer, mz_device *device, const mz_weights_entry *entries, int n,
                            const mz_shard *shards, int64_t n_shards)
{
    mz_stream *stream = NULL;
    float *host = NULL;
    mz_status st = device->ops->stream_create(device, MZ_STREAM_COMPUTE, &stream);
    if (st == MZ_OK)
        st = device->ops->alloc_pinned(device, (size_t)PIECE_ELEMENTS * sizeof *host, (void **)&host);
    int entry = 0;
    for (int64_t i = 0; i < n_shards && st == MZ_OK; i++) {
        if (shards[i].kind != MZ_SHARD_PARAM)
            continue;
        entry = find_entry(entries, n, shards[i].name, entry);
        st = entry >= 0 ? put_shard(writer, device, stream, host, entry, &shards[i])
                        : mz_fail(MZ_ERR_INTERNAL, "shard of an unknown tensor %s", shards[i].name);
    }
    if (host)
        device->ops->free_pinned(device, host);
    if (stream)
        device->ops->stream_destroy(stream);
    return st == MZ_OK ? mz_weights_writer_sync(writer) : st;
}

/* The model's config.json with the storage type of these weights in it. */
static mz_status write_config(const mz_model *model, const mz_weights_folder *target)
{
    static const char *const names[] = {[MZ_F32] = "float32", [MZ_F16] = "float16", [MZ_BF16] = "bfloat16"};
    const char *text = mz_model_get_info(model)->config_json;
    if (!text)
        return MZ_OK; /* a model of one's own has none */
    json_t *root = json_loads(text, 0, NULL);
    char *path = mz_path_join(target->folder, "config.json");
    char *out = NULL;
    mz_status st = root && path ? MZ_OK : mz_fail(MZ_ERR_MEMORY, "no memory for config.json");
    if (st == MZ_OK) {
        json_object_del(root, "dtype");
        json_object_set_new(root, "torch_dtype", json_string(names[target->dtype]));
        out = json_dumps(root, JSON_INDENT(2) | JSON_SORT_KEYS);
        st = out ? mz_file_write_atomic(path, out, strlen(out))
                 : mz_fail(MZ_ERR_MEMORY, "no memory for config.json");
    }
    free(out);
    mz_free(path);
    json_decref(root);
    return st;
}

static mz_status copy_tokenizer(const mz_weights_folder *target)
{
    mz_status st = MZ_OK;
    if (!target->tokenizer_folder)
        return MZ_OK;
    for (size_t i = 0; i < sizeof tokenizer_files / sizeof *tokenizer_files && st == MZ_OK; i++) {
        char *from = mz_path_join(target->tokenizer_folder, tokenizer_files[i]);
        char *to = mz_path_join(target->folder, tokenizer_files[i]);
        char *data = NULL;
        size_t bytes = 0;
        if (!from || !to)
            st = MZ_ERR_MEMORY;
        else if (mz_path_exists(from) && strcmp(from, to) != 0) {
            st = mz_file_read(from, &data, &bytes);
            if (st == MZ_OK)
                st = mz_file_write_atomic(to, data, bytes);
        }
        mz_free(data);
        mz_free(from);
        mz_free(to);
    }
    return st;
}

mz_status mz_weights_folder_write(mz_world *world, mz_device *device, const mz_model *model, const mz_shard *shards,
                                  int64_t n_shards, const mz_weights_folder *target)
{
    mz_weights_entry *entries = NULL;
    mz_weights_writer *writer = NULL;
    int n = 0;
    bool root = world->rank == 0;

    mz_status st = list_entries(model, &entries, &n);
    if (st == MZ_OK && root)
        st = mz_make_directories(target->folder);
    if (st == MZ_OK && root)
        st = mz_weights_writer_open(target->folder, entries, n, target->dtype, target->max_file_bytes, true,
                                    &writer);
    st = mz_agree(world, st, "creating the weights folder");
    if (st != MZ_OK)
        goto out;
    if (!root)
        st = mz_weights_writer_open(target->folder, entries, n, target->dtype, target->max_file_bytes, false,
                                    &writer);
    if (st == MZ_OK)
        st = put_shards(writer, device, entries, n, shards, n_shards);
    st = mz_agree(world, st, "writing the weights");
    if (st != MZ_OK)
        goto out;
    if (root) {
        st = mz_weights_writer_finish(writer);
        if (st == MZ_OK)
            st = write_config(model, target);
        if (st == MZ_OK)
            st = copy_tokenizer(target);
    }
    st = mz_agree(world, st, "finishing the weights folder");
out:
    mz_weights_writer_close(writer);
    mz_free(entries);
    return st;
}
