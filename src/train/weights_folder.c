/* Writing a weights folder. */
#include "train/weights_folder.h"

#include <string.h>

#include "checkpoint/model_folder.h"
#include "core/error.h"
#include "core/file.h"
#include "core/half.h"
#include "core/memory.h"

/* Host buffer through which device shards pass. */
#define PIECE_ELEMENTS ((int64_t)4 << 20)

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

/* `host` has room for PIECE_ELEMENTS in fp32, and behind them in the shard's own type. */
static mz_status put_shard(mz_weights_writer *writer, mz_device *device, mz_stream *stream, float *host, int entry,
                           const mz_shard *shard)
{
    const bool wide = shard->dtype == MZ_F32;
    void *raw = wide ? host : host + PIECE_ELEMENTS;
    mz_status st = MZ_OK;
    for (int64_t done = 0; done < shard->count && st == MZ_OK; done += PIECE_ELEMENTS) {
        int64_t n = shard->count - done < PIECE_ELEMENTS ? shard->count - done : PIECE_ELEMENTS;
        st = device->ops->copy(stream, raw, (const uint8_t *)shard->data + mz_shard_bytes(shard, done),
                               mz_shard_bytes(shard, n));
        if (st == MZ_OK)
            st = device->ops->stream_sync(stream);
        if (st == MZ_OK && !wide)
            mz_convert(host, MZ_F32, raw, shard->dtype, n);
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
        st = device->ops->alloc_pinned(device, (size_t)PIECE_ELEMENTS * (sizeof *host + sizeof(uint16_t)),
                                       (void **)&host);
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

/* What stands beside the weights. A model of one's own has no config.json. */
static mz_status write_companions(const mz_model *model, const mz_weights_folder *target)
{
    const char *config = mz_model_get_info(model)->config_json;
    mz_status st = config ? mz_model_folder_write_config(target->folder, config, target->dtype) : MZ_OK;
    if (st == MZ_OK && target->tokenizer_folder)
        st = mz_model_folder_copy_tokenizer(target->tokenizer_folder, target->folder);
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
            st = write_companions(model, target);
    }
    st = mz_agree(world, st, "finishing the weights folder");
out:
    mz_weights_writer_close(writer);
    mz_free(entries);
    return st;
}
