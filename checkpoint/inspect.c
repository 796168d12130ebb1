#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "checkpoint/paths.h"
#include "checkpoint/reader.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/steps.h"
#include "checkpoint/tools.h"
#include "core/error.h"
#include "core/memory.h"

static json_t *shape_json(const int64_t *shape, int n_dims)
{
    json_t *list = json_array();
    for (int i = 0; i < n_dims; i++)
        json_array_append_new(list, json_integer(shape[i]));
    return list;
}

static json_t *kinds_json(const bool *kinds)
{
    json_t *list = json_array();
    for (int k = 0; k < MZ_N_SHARD_KINDS; k++)
        if (kinds[k])
            json_array_append_new(list, json_string(mz_shard_kind_name((mz_shard_kind)k)));
    return list;
}

/* The members that every kind has. problem NULL: none. */
static json_t *begin_facts(const char *kind, const char *path, bool whole, bool verified, const char *problem)
{
    return json_pack("{s:s, s:s, s:b, s:b, s:s?}", "kind", kind, "path", path, "whole", whole, "verified", verified,
                     "problem", problem);
}

static void add_checkpoint(json_t *facts, const mz_checkpoint *checkpoint)
{
    const mz_manifest *manifest = &checkpoint->manifest;
    bool kinds[MZ_N_SHARD_KINDS] = {false};
    json_t *tensors = json_array(), *files = json_array();
    json_int_t bytes = 0, n_parameters = 0;
    for (int i = 0; i < manifest->n_tensors; i++) {
        const mz_checkpoint_tensor *tensor = &manifest->tensors[i];
        n_parameters += tensor->numel;
        for (int k = 0; k < MZ_N_SHARD_KINDS; k++)
            kinds[k] = kinds[k] || tensor->kinds[k];
        json_array_append_new(tensors, json_pack("{s:s, s:o, s:I, s:s, s:o}", "name", tensor->name, "shape",
                                                 shape_json(tensor->shape, tensor->n_dims), "numel",
                                                 (json_int_t)tensor->numel, "dtype",
                                                 mz_dtype_name(tensor->dtypes[MZ_SHARD_PARAM]), "kinds",
                                                 kinds_json(tensor->kinds)));
    }
    for (int i = 0; i < manifest->n_files; i++) {
        bytes += manifest->files[i].bytes;
        json_array_append_new(files, json_pack("{s:s, s:I}", "name", manifest->files[i].name, "bytes",
                                               (json_int_t)manifest->files[i].bytes));
    }
    json_object_update_new(facts, json_pack("{s:I, s:i, s:i, s:I, s:I, s:o, s:o, s:o, s:o}", "step",
                                            (json_int_t)manifest->step, "world_size", manifest->world_size,
                                            "n_tensors", manifest->n_tensors, "n_parameters", n_parameters, "bytes",
                                            bytes, "kinds", kinds_json(kinds), "files", files, "tensors", tensors,
                                            "state", json_loads(manifest->state, 0, NULL)));
}

static mz_status inspect_checkpoint(const char *path, bool verify, json_t **facts)
{
    mz_checkpoint *checkpoint = NULL;
    char *report = NULL;
    mz_status status = mz_checkpoint_open(path, &checkpoint);
    if (!status && verify)
        status = mz_checkpoint_verify(checkpoint, &report);
    if (status == MZ_ERR_MEMORY)
        goto out;
    *facts = begin_facts("checkpoint", checkpoint ? checkpoint->folder : path, !status, verify && checkpoint,
                         status ? mz_last_error() : NULL);
    if (!*facts)
        status = mz_fail(MZ_ERR_MEMORY, "%s: no memory for what it holds", path);
    else if (checkpoint)
        add_checkpoint(*facts, checkpoint);
out:
    mz_free(report);
    mz_checkpoint_close(checkpoint);
    return status;
}

static void add_weights(json_t *facts, const mz_weights *weights)
{
    json_t *tensors = json_array();
    json_int_t bytes = 0, n_parameters = 0;
    for (int i = 0; i < mz_weights_n_tensors(weights); i++) {
        const mz_weights_tensor *tensor = mz_weights_at(weights, i);
        n_parameters += tensor->numel;
        bytes += mz_weights_tensor_bytes(tensor);
        json_array_append_new(tensors, json_pack("{s:s, s:o, s:I, s:s, s:o}", "name", tensor->name, "shape",
                                                 shape_json(tensor->shape, tensor->n_dims), "numel",
                                                 (json_int_t)tensor->numel, "dtype", tensor->dtype_name, "kinds",
                                                 json_pack("[s]", mz_shard_kind_name(MZ_SHARD_PARAM))));
    }
    json_object_update_new(facts, json_pack("{s:i, s:I, s:I, s:o}", "n_tensors", mz_weights_n_tensors(weights),
                                            "n_parameters", n_parameters, "bytes", bytes, "tensors", tensors));
}

static mz_status inspect_weights(const char *path, json_t **facts)
{
    mz_weights *weights = NULL;
    mz_status status = mz_weights_open(path, &weights);
    if (status == MZ_ERR_MEMORY)
        return status;
    *facts = begin_facts("weights", path, !status, false, status ? mz_last_error() : NULL);
    if (!*facts)
        status = mz_fail(MZ_ERR_MEMORY, "%s: no memory for what it holds", path);
    else if (weights)
        add_weights(*facts, weights);
    mz_weights_close(weights);
    return status;
}

static bool looks_like_checkpoint(const char *path)
{
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
    return mz_exists_in(path, MZ_MANIFEST_NAME) || mz_exists_in(path, MZ_CHECKPOINTS_FOLDER) ||
           mz_exists_in(path, MZ_LATEST_NAME) || !strcmp(base, MZ_LATEST_NAME) || !strncmp(base, "step-", 5);
}

mz_status mz_inspect(const char *path, bool verify, json_t **facts)
{
    struct stat info;
    *facts = NULL;
    if (stat(path, &info))
        return mz_fail_errno(MZ_ERR_IO, "cannot inspect %s", path);
    if (looks_like_checkpoint(path))
        return inspect_checkpoint(path, verify, facts);
    if (mz_weights_present(path))
        return inspect_weights(path, facts);
    return mz_fail(MZ_ERR_CHECKPOINT,
                   "%s: neither a checkpoint (%s), nor a run's folder (%s/), nor weights (model.safetensors)", path,
                   MZ_MANIFEST_NAME, MZ_CHECKPOINTS_FOLDER);
}
