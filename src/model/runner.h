/* Runs a model's units forward and backward over a tape, with hooks around each unit. ZeRO, offload and
 * profiling are hooks; without any the model runs on parameters that are always there. */
#ifndef MZ_MODEL_RUNNER_H
#define MZ_MODEL_RUNNER_H

#include "mpizero/model.h"
#include "tensor/kv_cache.h"
#include "tensor/tape.h"

typedef enum mz_phase { MZ_PHASE_FORWARD, MZ_PHASE_BACKWARD } mz_phase;

/* before: unit's own and shared parameters must be readable when it returns (in stream order); in
 * BACKWARD it comes before recomputation too. after: the unit's own parameters are no longer needed by
 * this call; in BACKWARD all its gradient contributions of this micro-batch are written. Any may be NULL. */
typedef struct mz_runner_hooks {
    void *context;
    mz_status (*before)(void *context, int unit, mz_phase phase);
    mz_status (*after)(void *context, int unit, mz_phase phase);
} mz_runner_hooks;

typedef struct mz_runner mz_runner;

/* Creates the run-time parameters of all units (data and grad NULL) with the given dtypes.
 * model is borrowed. */
mz_status mz_runner_create(const mz_model *model, mz_dtype param_dtype, mz_dtype grad_dtype, mz_runner **runner);
void mz_runner_destroy(mz_runner *runner);

const mz_model *mz_runner_model(const mz_runner *runner); /* borrowed */
int mz_runner_n_params(const mz_runner *runner);
mz_param *mz_runner_param(mz_runner *runner, int i);           /* in order of units, then of specification */
mz_param *mz_runner_find(mz_runner *runner, const char *name); /* NULL when there is none */
/* Indices of unit u's own parameters: [first, first + n). */
void mz_runner_unit_params(const mz_runner *runner, int unit, int *first, int *n);
/* Units whose parameters unit u reads: u itself and the owners of what it uses. Returns their number;
 * `units` has room for n_uses + 1. */
int mz_runner_unit_needs(const mz_runner *runner, int unit, int *units);

void mz_runner_set_hooks(mz_runner *runner, const mz_runner_hooks *hooks); /* copied */
/* Every k-th recomputable unit keeps only its inputs; 0: none. 1: all of them. */
void mz_runner_set_checkpointing(mz_runner *runner, int every);

typedef struct mz_run {
    mz_goal goal;
    bool training; /* dropout, and the tape records for mz_runner_backward */
    bool last_position_only;
    mz_kv_cache *cache;
    int64_t position_offset;
    mz_tensor *inputs[MZ_N_INPUTS]; /* borrowed */
} mz_run;

/* Runs all units. *result: the loss or the logits, one reference for the caller. */
mz_status mz_runner_forward(mz_runner *runner, mz_tape *tape, const mz_run *run, mz_tensor **result);
/* Runs all units backwards, after a forward with training set. Parameter gradients are in param->grad. */
mz_status mz_runner_backward(mz_runner *runner, mz_tape *tape);

#endif
