/* The engine's state on disk: weights folders and sharded checkpoints. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint/manifest.h"
#include "core/error.h"
#include "core/file.h"
#include "core/log.h"
#include "core/memory.h"
#include "train/engine_impl.h"
#include "train/sources.h"
#include "train/weights_folder.h"

mz_status mz_engine_load_weights(mz_engine *engine, const char *folder)
{
    mz_weights *weights = NULL;
    mz_status st = mz_weights_open(folder, &weights);
    if (st == MZ_OK)
        st = mz_weights_check(weights, engine->model, folder);
    st = mz_agree(engine->world, st, "reading the weights");
    if (st == MZ_OK && engine->writer)
        st = mz_writer_settle(engine->writer);
    if (st == MZ_OK) {
        mz_weights_source source = {.weights = weights, .model = engine->model};
        st = mz_zero_load_params(engine->zero, mz_weights_source_read, &source);
    }
    mz_weights_close(weights);
    return st;
}

mz_status mz_engine_save_weights(mz_engine *engine, const char *folder, mz_dtype dtype, int64_t max_file_bytes,
                                 const char *tokenizer_folder)
{
    const mz_weights_folder target = {
        .folder = folder, .dtype = dtype, .max_file_bytes = max_file_bytes, .tokenizer_folder = tokenizer_folder};
    const mz_shard *shards = NULL;
    int64_t n_shards = 0;
    mz_status st = mz_zero_shards(engine->zero, &shards, &n_shards);
    st = mz_agree(engine->world, st, "listing the shards");
    if (st != MZ_OK)
        return st;
    return mz_weights_folder_write(engine->world, engine->device, engine->model, shards, n_shards, &target);
}

/* ---- checkpoints ---- */

static json_t *scaler_to_json(const mz_loss_scaler *s)
{
    return json_pack("{s:b, s:f, s:I, s:I, s:i}", "dynamic", s->dynamic, "scale", s->scale, "iteration",
                     (json_int_t)s->iteration, "last_overflow", (json_int_t)s->last_overflow, "hysteresis_left",
                     s->hysteresis_left);
}

static void scaler_from_json(mz_loss_scaler *s, json_t *json)
{
    int dynamic = s->dynamic, hysteresis_left = s->hysteresis_left;
    double scale = s->scale;
    json_int_t iteration = 0, last_overflow = -1;
    if (json_unpack(json, "{s:b, s:F, s:I, s:I, s:i}", "dynamic", &dynamic, "scale", &scale, "iteration",
                    &iteration, "last_overflow", &last_overflow, "hysteresis_left", &hysteresis_left) != 0)
        return;
    s->iteration = iteration;
    if (!s->dynamic || !dynamic)
        return; /* a static scale is the configuration's, now as then */
    s->scale = scale;
    s->last_overflow = last_overflow;
    s->hysteresis_left = hysteresis_left;
}

/* The run's own state as JSON text; owned by the caller (free()). */
static char *state_text(const mz_engine *engine, const char *extra)
{
    char *config = mz_config_to_json(&engine->config);
    json_t *root = json_pack(
        "{s:I, s:I, s:o, s:i, s:i, s:o*, s:o*, s:s}", "step", (json_int_t)engine->steps, "skipped_steps",
        (json_int_t)engine->skipped, "loss_scaler", scaler_to_json(&engine->scaler), "world_size",
        engine->world->size, "zero_stage", engine->config.zero.stage, "configuration",
        config ? json_loads(config, JSON_DECODE_ANY, NULL) : NULL, "extra",
        extra ? json_loads(extra, JSON_DECODE_ANY, NULL) : NULL, "dtype", mz_dtype_name(engine->config.dtype));
    const char *model = mz_model_get_info(engine->model)->config_json;
    if (root && model)
        json_object_set_new(root, "model_config", json_loads(model, 0, NULL));
    char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;
    json_decref(root);
    free(config);
    return text;
}

mz_status mz_engine_open_writer(mz_engine *engine)
{
    if (engine->writer)
        return MZ_OK;
    const mz_shard *shards = NULL;
    int64_t n_shards = 0;
    mz_status st = mz_zero_shards(engine->zero, &shards, &n_shards);
    if (st == MZ_OK)
        st = mz_zero_checksums_prepare(engine->zero, mz_run_block);
    st = mz_agree(engine->world, st, "listing the shards");
    if (st != MZ_OK)
        return st;
    return mz_writer_create(engine->world, engine->device, shards, n_shards, 0, &engine->writer);
}

mz_status mz_engine_save(mz_engine *engine, const char *run_folder, bool asynchronous, int keep, const char *extra)
{
    if (engine->micro != 0)
        return mz_fail(MZ_ERR_ARGUMENT, "mz_engine_save: in the middle of a step; save after mz_engine_step");
    mz_status st = mz_engine_open_writer(engine);
    if (st != MZ_OK)
        return st;
    char *state = state_text(engine, extra);
    st = mz_agree(engine->world, state ? MZ_OK : mz_fail(MZ_ERR_MEMORY, "no memory for the checkpoint's state"),
                  "describing the run");
    if (st == MZ_OK)
        st = engine->device->ops->stream_sync(engine->compute);
    if (st == MZ_OK) {
        const mz_save_request request = {.run_folder = run_folder,
                                         .step = engine->steps,
                                         .keep = keep,
                                         .state = state,
                                         .asynchronous = asynchronous,
                                         .overlap_snapshot = true,
                                         .crcs = mz_zero_checksums(engine->zero)};
        st = mz_writer_save(engine->writer, &request);
    }
    free(state);
    return st;
}

mz_status mz_engine_save_wait(mz_engine *engine)
{
    return engine->writer ? mz_writer_wait(engine->writer) : MZ_OK;
}

static mz_status restore_state(mz_engine *engine, const mz_checkpoint *checkpoint, char **extra)
{
    json_error_t error;
    json_t *root = json_loads(mz_checkpoint_state(checkpoint), 0, &error);
    json_int_t step = -1, skipped = 0;
    json_t *scaler = NULL, *more = NULL;
    if (!root ||
        json_unpack(root, "{s:I, s?I, s?o, s?o}", "step", &step, "skipped_steps", &skipped, "loss_scaler", &scaler,
                    "extra", &more) != 0 ||
        step != mz_checkpoint_step(checkpoint)) {
        json_decref(root);
        return mz_fail(MZ_ERR_CHECKPOINT, "%s/manifest.json: the run's state is not as mpizero writes it",
                       mz_checkpoint_folder(checkpoint));
    }
    engine->steps = step;
    engine->skipped = skipped;
    scaler_from_json(&engine->scaler, scaler);
    if (extra)
        *extra = more ? json_dumps(more, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    json_decref(root);
    return MZ_OK;
}

/* Does every tensor of the checkpoint have state of this kind? The optimiser may be another one now. */
static bool has_kind(const mz_checkpoint *checkpoint, mz_shard_kind kind)
{
    for (int i = 0; i < mz_checkpoint_n_tensors(checkpoint); i++)
        if (!mz_checkpoint_tensor_at(checkpoint, i)->kinds[kind])
            return false;
    return true;
}

/* Which kinds of state this run's optimiser has, from its shards. */
static mz_status wanted_kinds(mz_engine *engine, bool wanted[MZ_N_SHARD_KINDS])
{
    const mz_shard *shards = NULL;
    int64_t n = 0;
    memset(wanted, 0, MZ_N_SHARD_KINDS * sizeof *wanted);
    mz_status st = mz_zero_shards(engine->zero, &shards, &n);
    double found[MZ_N_SHARD_KINDS] = {0};
    for (int64_t i = 0; st == MZ_OK && i < n; i++)
        found[shards[i].kind] = 1;
    if (st == MZ_OK && engine->comm) /* a rank may own nothing of a tiny model */
        st = mz_all_reduce_host(engine->comm, found, MZ_N_SHARD_KINDS, true, "kinds of state");
    for (int k = 0; k < MZ_N_SHARD_KINDS; k++)
        wanted[k] = found[k] > 0;
    return st;
}

/* Between runs with and without master weights. */
static void say_rounding(const mz_engine *engine, const mz_checkpoint *checkpoint)
{
    const bool small = mz_checkpoint_n_tensors(checkpoint) > 0 &&
                       mz_checkpoint_tensor_at(checkpoint, 0)->dtypes[MZ_SHARD_PARAM] == MZ_BF16;
    const bool no_masters = engine->config.bf16_master_weights_and_grads;
    if (small && !no_masters)
        mz_log_root(MZ_LOG_INFO, "%s holds bf16 weights: master weights begin as these",
                    mz_checkpoint_folder(checkpoint));
    if (!small && no_masters)
        mz_log_root(MZ_LOG_INFO, "%s holds fp32 weights: without master weights they are rounded to bf16",
                    mz_checkpoint_folder(checkpoint));
}

static mz_status load_kinds(mz_engine *engine, mz_checkpoint *checkpoint)
{
    bool wanted[MZ_N_SHARD_KINDS];
    mz_checkpoint_source source = {.checkpoint = checkpoint, .kind = MZ_SHARD_PARAM};
    say_rounding(engine, checkpoint);
    mz_status st = mz_zero_load_params(engine->zero, mz_checkpoint_source_read, &source);
    if (st == MZ_OK)
        st = wanted_kinds(engine, wanted);
    for (int kind = MZ_SHARD_PARAM + 1; kind < MZ_N_SHARD_KINDS && st == MZ_OK; kind++) {
        if (!wanted[kind])
            continue;
        if (!has_kind(checkpoint, (mz_shard_kind)kind)) {
            mz_log_root(MZ_LOG_WARN, "%s holds no %s: this optimiser starts with it cleared",
                        mz_checkpoint_folder(checkpoint), mz_shard_kind_name((mz_shard_kind)kind));
            continue;
        }
        source.kind = (mz_shard_kind)kind;
        st = mz_zero_load_state(engine->zero, source.kind, mz_checkpoint_source_read, &source);
    }
    return st;
}

mz_status mz_engine_load(mz_engine *engine, const char *folder, char **extra)
{
    mz_checkpoint *checkpoint = NULL;
    char *more = NULL;
    mz_status st = mz_engine_save_wait(engine);
    if (st == MZ_OK)
        st = mz_checkpoint_open(folder, &checkpoint);
    if (st == MZ_OK)
        st = mz_checkpoint_check(checkpoint, engine->model);
    if (st == MZ_OK)
        st = restore_state(engine, checkpoint, &more);
    st = mz_agree(engine->world, st, "opening the checkpoint");
    if (st == MZ_OK)
        st = load_kinds(engine, checkpoint);
    mz_checkpoint_close(checkpoint);
    if (st == MZ_OK && extra)
        *extra = more;
    else
        free(more);
    return st;
}
