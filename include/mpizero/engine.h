/* The engine: a model, a configuration and the ranks of the job; forward, backward, step, save, load, as
 * deepspeed.initialize gives in Python. Collective functions are called by all ranks in the same order. */
#ifndef MPIZERO_ENGINE_H
#define MPIZERO_ENGINE_H

#include "mpizero/config.h"
#include "mpizero/model.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mz_world mz_world;
typedef struct mz_engine mz_engine;

/* Collective over MPI_COMM_WORLD: starts MPI when it is not, finds the topology, refuses wrong launches.
 * ranks_per_node 0: as found. timeout_seconds <= 0: the default. */
mz_status mz_start(int ranks_per_node, double timeout_seconds, mz_world **world);
void mz_stop(mz_world *world);
int mz_world_rank(const mz_world *world);
int mz_world_size(const mz_world *world);

/* A micro-batch on the host. Arrays are borrowed for the call. */
typedef struct mz_host_input {
    mz_input_role role;
    mz_dtype dtype; /* MZ_I32, MZ_U8 or MZ_F32 (converted to the training dtype) */
    int n_dims;
    int64_t shape[MZ_MAX_DIMS]; /* shape[0] = samples */
    const void *data;
} mz_host_input;

typedef struct mz_batch {
    const mz_host_input *inputs;
    int n_inputs;
    int64_t n_samples;
    int64_t n_targets;        /* terms of this micro-batch's loss; 0: counted (labels != -100, or target elements) */
    int64_t n_targets_global; /* of the whole global batch; 0: each micro-batch counts alike, as DeepSpeed does */
} mz_batch;

typedef struct mz_engine_options {
    const char *device;          /* "cpu", "cuda"; NULL: the best there is */
    int n_threads;               /* CPU threads per rank; 0: cores / ranks of the node */
    const char *const *no_decay; /* NULL: "bias", "LayerNorm.weight", "layer_norm.weight" */
    int n_no_decay;
    bool inference;              /* parameters only: no gradients, no optimiser state; forward and step are refused */
} mz_engine_options;

/* Collective. model is borrowed and must outlive the engine; config is copied. Parameters start from the
 * model's own initialisation with config->seed; see mz_engine_load_weights. options may be NULL. */
mz_status mz_engine_create(mz_world *world, const mz_config *config, const mz_model *model,
                           const mz_engine_options *options, mz_engine **engine);
void mz_engine_destroy(mz_engine *engine);

/* Plans a step with this batch's shapes (larger ones need a new plan), takes the arena and checks that it fits.
 * Called by the first forward when it was not before. MZ_ERR_MEMORY says what would fit. */
mz_status mz_engine_plan(mz_engine *engine, const mz_batch *shapes);

/* Collective. One micro-batch. The loss stays on the device until the step. */
mz_status mz_engine_forward(mz_engine *engine, const mz_batch *batch);
/* Collective. Gradients of the last forward. */
mz_status mz_engine_backward(mz_engine *engine);

typedef struct mz_step_info {
    bool boundary;       /* false: still accumulating, and nothing below is set */
    int64_t step;        /* optimiser steps done, this one included (skipped ones count) */
    double loss;         /* mean over the global batch */
    double learning_rate, grad_norm, loss_scale;
    bool skipped;        /* overflow: no update */
    int64_t tokens;      /* of the global batch */
} mz_step_info;
/* Collective. After gradient_accumulation_steps backwards: reduces, clips, updates, moves the schedule and
 * the loss scale. Before that only counts. info may be NULL. */
mz_status mz_engine_step(mz_engine *engine, mz_step_info *info);

/* Collective. Sum of the loss over the batch's targets and their number, over all ranks; no gradients. Not between a
 * forward and its backward, as mz_engine_logits. MZ_ERR_ARGUMENT.
 * All ranks take part; one that has no data left passes a batch whose labels are all -100. */
mz_status mz_engine_eval(mz_engine *engine, const mz_batch *batch, double *loss_sum, double *n_targets);

/* Collective. Logits of the last position of each sample, fp32 [n_samples, vocab] on the host, owned by the
 * caller's buffer. cache NULL: the whole sequence is run. */
mz_status mz_engine_logits(mz_engine *engine, const mz_batch *batch, mz_kv_cache *cache, bool last_position_only,
                           float *logits);
mz_status mz_engine_cache_create(mz_engine *engine, int64_t batch, int64_t capacity, mz_kv_cache **cache);
void mz_engine_cache_destroy(mz_kv_cache *cache);

/* Collective. Parameters from a Hugging Face folder's safetensors (each rank reads only its own ranges). */
mz_status mz_engine_load_weights(mz_engine *engine, const char *folder);
/* Collective. Writes a Hugging Face folder: weights in `dtype` (sharded with an index above max_file_bytes; 0:
 * 5 GB), config.json, and the files of `tokenizer_folder` when not NULL. All ranks write at once; no rank
 * holds a tensor whole. */
mz_status mz_engine_save_weights(mz_engine *engine, const char *folder, mz_dtype dtype, int64_t max_file_bytes,
                                 const char *tokenizer_folder);

/* Collective. Sharded checkpoint RUN_FOLDER/checkpoints/step-NNNNNN (checkpoint/checkpoint.h). asynchronous:
 * returns after the snapshot; the next save, load or destroy waits for the writer. keep: newest ones kept, 0:
 * all. extra: the caller's own state as JSON text, given back by load; may be NULL. */
mz_status mz_engine_save(mz_engine *engine, const char *run_folder, bool asynchronous, int keep, const char *extra);
/* Collective. Waits for an asynchronous save and reports how it went. */
mz_status mz_engine_save_wait(mz_engine *engine);
/* Collective. folder: a step's folder, or RUN_FOLDER/checkpoints/latest. Any world size, any stage. *extra is owned
 * by the caller (free()); extra may be NULL. */
mz_status mz_engine_load(mz_engine *engine, const char *folder, char **extra);

int64_t mz_engine_steps(const mz_engine *engine);
const mz_config *mz_engine_config(const mz_engine *engine);

#ifdef __cplusplus
}
#endif
#endif
