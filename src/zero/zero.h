/* ZeRO (Rajbhandari et al., SC 2020): parameters, gradients and optimiser state of a model, partitioned over
 * the data-parallel ranks.
 *
 * Layout. Each unit's parameters lie in up to two flat segments, each tensor aligned to 64 elements: the
 * sharded one and, in stage 3, the persistent one (tensors below the persistence threshold, whose 16-bit
 * values stay on every rank). Within a segment tensors with weight decay come first. A segment's length is
 * padded to a multiple of 64 * ranks and cut evenly: rank r owns elements [r, r+1) * length / ranks, with
 * their fp32 master, moments and (stages 2, 3) reduced gradient. In fp32 training, and in bf16 with
 * bf16_master_weights_and_grads, the parameter is its own master.
 *
 * Stages: 0 keeps everything whole and all-reduces gradients; 1 shards optimiser state; 2 gradients too,
 * reduced by bucket during backward; 3 parameters too, gathered by unit ahead of use. */
#ifndef MZ_ZERO_ZERO_H
#define MZ_ZERO_ZERO_H

#include "comm/comm.h"
#include "model/runner.h"
#include "mpizero/config.h"
#include "optim/loss_scale.h"

typedef struct mz_zero mz_zero;

typedef struct mz_zero_options {
    const mz_config *config; /* copied */
    mz_device *device;       /* borrowed, as the rest */
    mz_comm *comm;           /* data-parallel ranks; NULL: one rank */
    mz_stream *compute;
    mz_runner *runner;
    const char *const *no_decay; /* substrings of names without weight decay */
    int n_no_decay;
    bool inference; /* parameters only: no gradients, no master weights, no optimiser state; training is refused */
    int plan_rank, plan_size; /* comm NULL and plan_size > 0: lay out as rank plan_rank of plan_size (estimate) */
} mz_zero_options;

/* Collective. Allocates all model state and buffers; nothing is allocated later. Sets every param->data that
 * is always there. Contents are undefined until mz_zero_load_params. */
mz_status mz_zero_create(const mz_zero_options *options, mz_zero **zero);
void mz_zero_destroy(mz_zero *zero);

/* Hooks for the runner, and the tape's gradient request. */
void mz_zero_hooks(mz_zero *zero, mz_runner_hooks *hooks);
mz_status mz_zero_grad_request(void *zero, mz_param *param);

/* Where gradients are scaled. Losses arrive weighted so that the plain sum over ranks is the mean over the
 * global batch: on its own, the wire would carry local means divided by the ranks. The engine multiplies
 * this factor into grad_weight, and the reduction takes it out again while the sum is in fp32:
 *     prescale_gradients      1: divided before the wire
 *     otherwise               ranks / gradient_predivide_factor: the wire carries local means, predivided
 * gradient_allreduce_op "sum" leaves the division by the ranks out: update then multiplies by them. */
double mz_zero_grad_weight_factor(const mz_zero *zero);

/* Brackets of one optimiser step: begin_micro before each forward (last: the micro-batch that completes the
 * accumulation, after which gradients are reduced in stages 0 and 1); no hooks run outside. In evaluation
 * use training == false: parameters are fetched, gradients untouched. */
mz_status mz_zero_begin_micro(mz_zero *zero, bool training, bool first, bool last);
mz_status mz_zero_end_micro(mz_zero *zero);

/* Whether the passes of the micro-batch that has begun are this rank's compute stream's alone: no collective, nor a
 * wait for one. Such a pass leaves nothing behind on the host but the parameters' grad_written. */
bool mz_zero_micro_is_local(const mz_zero *zero);

typedef struct mz_zero_step_info {
    double lr, beta1;  /* of this step (beta1: Adam, Lion) */
    double loss_scale; /* gradients carry this factor */
    double clip;       /* global norm to clip to; 0: none */
    int64_t step;      /* 1 for the first: Adam's t */
    bool checksums;    /* a save comes next: make mz_zero_checksums, where they were prepared */
    /* out */
    double grad_norm;         /* before clipping, loss scale taken out */
    bool overflow;            /* some gradient was not finite: nothing was updated */
    char nonfinite_name[160]; /* the first such tensor, when overflow; found on the ranks together */
} mz_zero_step_info;

/* Collective. Finishes reductions, takes the global norm, clips, updates the shards, refreshes the 16-bit
 * parameters (stages 1, 2: all-gather; stage 3: persistent segments). When it returns, all that the compute stream was
 * given before is done; the update may be under way. */
mz_status mz_zero_update(mz_zero *zero, mz_zero_step_info *step);

/* ---- what is saved ---- */

typedef enum mz_shard_kind { MZ_SHARD_PARAM = 0, MZ_SHARD_STATE1, MZ_SHARD_STATE2, MZ_N_SHARD_KINDS } mz_shard_kind;
/* "param" (the master), "exp_avg", "exp_avg_sq"; for other optimisers' states the same two names. */
const char *mz_shard_kind_name(mz_shard_kind kind);

/* A run of consecutive elements of one named tensor that this rank owns; fp32, or without master weights bf16. */
typedef struct mz_shard {
    const char *name; /* of the tensor; borrowed from the model */
    mz_shard_kind kind;
    int n_dims;
    int64_t shape[MZ_MAX_DIMS]; /* of the whole tensor */
    int64_t offset, count;      /* elements of the flattened tensor */
    mz_dtype dtype;
    void *data; /* device memory (CPU, offloaded: host) */
} mz_shard;

static inline size_t mz_shard_bytes(const mz_shard *shard, int64_t n_elements)
{
    return (size_t)n_elements * mz_dtype_size(shard->dtype);
}

/* This rank's shards: for each kind that the optimiser has, each tensor's owned run. With stage 0 the ranks share
 * the work: rank r lists the r-th even part of each tensor. Over all ranks the runs of a tensor and kind
 * cover it once. Borrowed, fixed for the life of `zero`. */
mz_status mz_zero_shards(mz_zero *zero, const mz_shard **shards, int64_t *n_shards);

/* Local. Makes ready for CRC-32C of the shards' blocks, whose length in elements follows from a shard's: block_of.
 * MZ_ERR_MEMORY. Does nothing where the update is not done by the host's processors. */
mz_status mz_zero_checksums_prepare(mz_zero *zero, int64_t (*block_of)(int64_t count));
/* The CRCs, those of one shard after those of the other, as the last update made them; NULL when the values are not
 * that update's any more, or it was not asked to. Borrowed; the next update overwrites them. */
const uint32_t *mz_zero_checksums(const mz_zero *zero);

/* Where parameter values come from: fills dst[0..count) with elements offset.. of tensor `name`, flattened. */
typedef mz_status (*mz_param_source)(void *context, const mz_param_spec *spec, int64_t offset, int64_t count,
                                     float *dst);

/* Collective. Every rank fills what it holds from `source` (no communication needed for the values), sets
 * masters and 16-bit copies; optimiser state is cleared. What is kept in bf16 is rounded to the nearest. */
mz_status mz_zero_load_params(mz_zero *zero, mz_param_source source, void *context);
/* Collective. The same for one kind of optimiser state. */
mz_status mz_zero_load_state(mz_zero *zero, mz_shard_kind kind, mz_param_source source, void *context);

/* Bytes that this rank holds, by what for. `estimate` and the line at start print this. */
typedef struct mz_zero_memory {
    size_t params, grads, master, optimizer; /* the formula's terms */
    size_t gather_buffers, reduce_buffers, other;
} mz_zero_memory;
void mz_zero_get_memory(const mz_zero *zero, mz_zero_memory *memory);

/* Seconds that the compute stream waited for communication since the last call. */
double mz_zero_exposed_seconds(mz_zero *zero);

#endif
