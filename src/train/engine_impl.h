/* The engine's inside, shared by the files that implement include/mpizero/engine.h. */
#ifndef MZ_TRAIN_ENGINE_IMPL_H
#define MZ_TRAIN_ENGINE_IMPL_H

#include "checkpoint/checkpoint.h"
#include "comm/comm.h"
#include "device/arena.h"
#include "model/runner.h"
#include "mpizero/engine.h"
#include "optim/loss_scale.h"
#include "train/replay.h"
#include "zero/zero.h"

/* Scalars that a step reads from device memory; mirrored in pinned memory and copied before each micro-batch. */
typedef struct mz_step_scalars {
    mz_rng_state rng;
    float loss_weight; /* multiplies each target's loss: the sum over micro-batches and ranks is the mean */
    float grad_weight; /* the same times loss scale and ZeRO's factor */
} mz_step_scalars;

/* Device copies of a micro-batch's arrays and of the step's scalars. Two pinned slots, so that the host may
 * fill one while the device still reads the other. */
typedef struct mz_staging {
    mz_device *device;
    size_t bytes; /* of one slot */
    uint8_t *pinned[2];
    mz_event *read[2]; /* recorded when the device has read the slot */
    uint8_t *on_device;
    int next;
} mz_staging;

/* Batch shapes for which the arena is known to be large enough. */
typedef struct mz_shape_key {
    uint64_t hash;
    bool training;
    bool logits, last_position_only;
} mz_shape_key;
#define MZ_MAX_PLANNED 16

struct mz_engine {
    mz_world *world;
    mz_config config;
    const mz_model *model;
    mz_device *device;
    mz_stream *compute;
    mz_comm *comm;
    mz_runner *runner;
    mz_zero *zero;
    mz_arena *arena;
    mz_tape *tape;
    mz_staging staging;
    mz_writer *writer;
    mz_loss_scaler scaler;
    mz_replay *replay; /* NULL: nothing is replayed */

    mz_tensor *inputs[MZ_N_INPUTS]; /* over staging.on_device, made for each micro-batch */
    float *loss_sum;                /* device: sum of this step's weighted losses */
    float *loss_host;               /* pinned */
    bool inference;
    bool needs_backward;
    bool replays;         /* the micro-batch under way */
    bool stop_vote;       /* the training loop's: this rank was asked to stop */
    bool stop_agreed;     /* at the last step some rank was */
    bool save_due;        /* the training loop's: a save comes right after the next step */
    mz_recompute recompute; /* the tape's option: asked for, or taken when a step does not fit otherwise */

    int64_t steps;   /* optimiser steps done, skipped ones included */
    int64_t skipped; /* of these, by overflow: they move neither schedule nor Adam's t, as in DeepSpeed */
    int64_t micro;   /* micro-batches of this step done */
    int64_t tokens;  /* of this rank in this step */
    size_t arena_bytes;
    size_t room;   /* for an arena, on the rank that has the least */
    int room_rank; /* that rank; -1 unless all ranks are planning together */
    mz_shape_key planned[MZ_MAX_PLANNED];
    int n_planned;
    double flops_per_micro; /* model FLOPs of forward and backward, from the plan */
};

/* Bytes that a batch's arrays and the scalars take in one slot. */
size_t mz_staging_bytes(const mz_batch *batch, mz_dtype dtype);
mz_status mz_staging_reserve(mz_staging *staging, mz_device *device, size_t bytes);
void mz_staging_free(mz_staging *staging);
/* Copies scalars and arrays to the device (MZ_F32 inputs become `dtype`) and makes tensors over them. */
mz_status mz_staging_put(mz_staging *staging, mz_tape *tape, mz_stream *stream, const mz_step_scalars *scalars,
                         const mz_batch *batch, mz_dtype dtype, mz_tensor **inputs);
/* Device address of the scalars. */
mz_step_scalars *mz_staging_scalars(const mz_staging *staging);

/* What a step of this shape needs, found by playing it on the meta device. */
typedef struct mz_plan {
    size_t arena_bytes;
    double flops;        /* forward and backward without recomputation */
    double played_flops; /* what was played on the way, recomputation included */
} mz_plan;
/* recompute: as the tape's option of that name. */
mz_status mz_plan_step(const mz_model *model, const mz_config *config, const mz_batch *shapes, bool training,
                       mz_recompute recompute, mz_plan *plan);
/* The least recomputation, but no less than `least`, with which the arena takes no more than `room`; else all of
 * it. *recompute and *plan are what was found. */
mz_status mz_plan_within(const mz_model *model, const mz_config *config, const mz_batch *shapes, mz_recompute least,
                         size_t room, mz_recompute *recompute, mz_plan *plan);
/* What the configuration asks for, whatever there is room for. */
mz_recompute mz_plan_recompute(const mz_config *config);

/* Tensors of a batch's shapes; no memory stands behind them. */
mz_status mz_plan_inputs(mz_device *meta, mz_tape *tape, const mz_batch *shapes, mz_dtype dtype,
                         mz_tensor **inputs);

/* The arena of a forward pass to logits. One over a cache of keys and values needs no more. */
mz_status mz_plan_logits(const mz_model *model, const mz_config *config, const mz_batch *shapes,
                         bool last_position_only, size_t *arena_bytes);

mz_shape_key mz_shape_key_of(const mz_batch *shapes, bool training);

/* Collective. mz_engine_plan, also for an evaluation's batch. */
mz_status mz_engine_plan_for(mz_engine *engine, const mz_batch *shapes, bool training);

/* Makes the arena at least as large as the batch needs. Not collective. */
mz_status mz_engine_reserve(mz_engine *engine, const mz_batch *shapes, bool training);

/* The same for mz_engine_logits. An engine that has not trained takes a growing arena, since shapes change from
 * call to call. */
mz_status mz_engine_reserve_logits(mz_engine *engine, const mz_batch *shapes, bool last_position_only);

/* Collective. Takes what saves need, before the first of them. */
mz_status mz_engine_open_writer(mz_engine *engine);

/* Memory in use where the tensors are: this process's on the CPU, all that a GPU has given away. */
int64_t mz_engine_memory_bytes(const mz_engine *engine);

/* Refuses what would run over the activations that a backward pass is still to come for. */
mz_status mz_engine_check_idle(const mz_engine *engine, const char *function);

/* Sends a batch to the device and runs all units on it. *result: one reference for the caller. */
mz_status mz_engine_run_forward(mz_engine *engine, const mz_batch *batch, mz_run *run,
                                const mz_step_scalars *scalars, mz_tensor **result);

/* The work of a micro-batch whose inputs are on their way to the device, behind them on the compute stream: the forward
 * pass, whose loss is added to the step's, and the backward pass. */
mz_status mz_engine_forward_pass(mz_engine *engine, mz_run *run);
mz_status mz_engine_backward_pass(mz_engine *engine);

/* Targets of a batch: n_targets when given, else counted. */
int64_t mz_batch_targets(const mz_batch *batch);

#endif
