#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint/checkpoint.h"
#include "checkpoint/model_folder.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/tools.h"
#include "core/error.h"
#include "core/memory.h"

static const size_t default_buffer_bytes = (size_t)64 << 20;
static const float largest_f16 = 65520.0f; /* from here on values round to infinity */

typedef struct consolidation {
    const mz_consolidate_options *options;
    mz_world *world; /* NULL: alone */
    int rank, size;
    mz_checkpoint *checkpoint;
    mz_weights_entry *entries;
    int n;
    int64_t total; /* elements */
    mz_weights_writer *writer;
    float *buffer;
    int64_t room; /* elements of it */
} consolidation;

static mz_status agree(const consolidation *c, mz_status status, const char *where)
{
    return c->world && c->size > 1 ? mz_agree(c->world, status, where) : status;
}

static mz_status list_entries(consolidation *c)
{
    c->n = mz_checkpoint_n_tensors(c->checkpoint);
    c->entries = mz_calloc((size_t)c->n, sizeof *c->entries);
    if (!c->entries)
        return MZ_ERR_MEMORY;
    for (int i = 0; i < c->n; i++) {
        const mz_checkpoint_tensor *tensor = mz_checkpoint_tensor_at(c->checkpoint, i);
        if (!tensor->kinds[MZ_SHARD_PARAM])
            return mz_fail(MZ_ERR_CHECKPOINT, "%s: has no values of tensor \"%s\", only optimiser state",
                           mz_checkpoint_folder(c->checkpoint), tensor->name);
        c->entries[i] = (mz_weights_entry){.name = tensor->name, .n_dims = tensor->n_dims};
        memcpy(c->entries[i].shape, tensor->shape, sizeof tensor->shape);
        c->total += tensor->numel;
    }
    return MZ_OK;
}

static mz_status open_all(consolidation *c)
{
    const size_t bytes = c->options->buffer_bytes ? c->options->buffer_bytes : default_buffer_bytes;
    c->room = (int64_t)(bytes / sizeof *c->buffer);
    if (!c->room)
        c->room = 1;
    mz_status status = mz_checkpoint_open(c->options->checkpoint, &c->checkpoint);
    if (!status)
        status = list_entries(c);
    if (!status && !(c->buffer = mz_alloc_aligned((size_t)c->room * sizeof *c->buffer)))
        status = MZ_ERR_MEMORY;
    return status;
}

static mz_status open_writer(consolidation *c, bool create)
{
    return mz_weights_writer_open(c->options->output, c->entries, c->n, c->options->dtype,
                                  c->options->max_file_bytes, create, &c->writer);
}

static mz_status check_range(const consolidation *c, const char *name, int64_t offset, int64_t count)
{
    if (c->options->dtype != MZ_F16)
        return MZ_OK;
    for (int64_t i = 0; i < count; i++)
        if (!(fabsf(c->buffer[i]) < largest_f16))
            return mz_fail(
                MZ_ERR_NONFINITE, "%s: tensor \"%s\", element %lld is %g, which fp16 cannot hold; use bf16",
                mz_checkpoint_folder(c->checkpoint), name, (long long)(offset + i), (double)c->buffer[i]);
    return MZ_OK;
}

/* Elements begin .. end of tensor i, through the buffer. */
static mz_status stream_tensor(consolidation *c, int i, int64_t begin, int64_t end)
{
    mz_status status = MZ_OK;
    while (begin < end && !status) {
        const int64_t n = end - begin < c->room ? end - begin : c->room;
        status = mz_checkpoint_read(c->checkpoint, c->entries[i].name, MZ_SHARD_PARAM, begin, n, c->buffer);
        if (!status)
            status = check_range(c, c->entries[i].name, begin, n);
        if (!status)
            status = mz_weights_writer_put(c->writer, i, begin, n, c->buffer);
        begin += n;
    }
    return status;
}

/* This rank's even part of all elements. */
static mz_status stream(consolidation *c)
{
    const int64_t per_rank = c->total / c->size, rest = c->total % c->size;
    const int64_t begin = per_rank * c->rank + (c->rank < rest ? c->rank : rest);
    const int64_t end = begin + per_rank + (c->rank < rest);
    int64_t first = 0; /* of tensor i */
    mz_status status = MZ_OK;
    for (int i = 0; i < c->n && !status; i++) {
        const int64_t numel = mz_checkpoint_tensor_at(c->checkpoint, i)->numel;
        const int64_t from = begin > first ? begin - first : 0;
        const int64_t to = end - first < numel ? end - first : numel;
        if (from < to)
            status = stream_tensor(c, i, from, to);
        first += numel;
    }
    return status ? status : mz_weights_writer_sync(c->writer);
}

/* The training loop saves the model's config.json in the run's state. */
static mz_status write_config(const consolidation *c)
{
    json_error_t error;
    json_t *state = json_loads(mz_checkpoint_state(c->checkpoint), 0, &error);
    json_t *config = json_object_get(state, "model_config");
    char *text = json_is_object(config) ? json_dumps(config, JSON_COMPACT) : NULL;
    mz_status status = text ? mz_model_folder_write_config(c->options->output, text, c->options->dtype) : MZ_OK;
    free(text);
    json_decref(state);
    return status;
}

static mz_status finish(consolidation *c)
{
    mz_status status = mz_weights_writer_finish(c->writer);
    if (!status)
        status = write_config(c);
    if (!status && c->options->tokenizer_folder)
        status = mz_model_folder_copy_tokenizer(c->options->tokenizer_folder, c->options->output);
    return status;
}

static mz_status run(consolidation *c)
{
    mz_status status = open_all(c);
    if (!status && c->rank == 0)
        status = open_writer(c, true);
    status = agree(c, status, "opening the checkpoint and the weights");
    if (status)
        return status;
    if (c->rank > 0)
        status = open_writer(c, false);
    if (!status)
        status = stream(c);
    status = agree(c, status, "writing the weights");
    if (status)
        return status;
    return agree(c, c->rank == 0 ? finish(c) : MZ_OK, "finishing the weights folder");
}

mz_status mz_consolidate(mz_world *world, const mz_consolidate_options *options, mz_consolidate_facts *facts)
{
    consolidation c = {
        .options = options, .world = world, .rank = world ? world->rank : 0, .size = world ? world->size : 1};
    mz_status status = run(&c);
    if (!status)
        *facts = (mz_consolidate_facts){.step = mz_checkpoint_step(c.checkpoint),
                                        .n_parameters = c.total,
                                        .bytes_written = c.total * (int64_t)mz_dtype_size(options->dtype),
                                        .n_tensors = c.n};
    mz_weights_writer_close(c.writer);
    mz_free(c.buffer);
    mz_free(c.entries);
    mz_checkpoint_close(c.checkpoint);
    return status;
}
