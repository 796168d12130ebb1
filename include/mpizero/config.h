/* The configuration of a run: DeepSpeed's JSON (or Accelerate's YAML) and the command line, resolved.
 *
 * Every key that DeepSpeed accepts is honoured, accepted with a warning that says what is different, or
 * refused with a message that names file, line and key. docs/CONFIG.md lists which. */
#ifndef MPIZERO_CONFIG_H
#define MPIZERO_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "mpizero/dtype.h"
#include "mpizero/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum mz_scheduler_kind {
    MZ_SCHED_CONSTANT = 0,
    MZ_SCHED_WARMUP,        /* WarmupLR */
    MZ_SCHED_WARMUP_DECAY,  /* WarmupDecayLR */
    MZ_SCHED_WARMUP_COSINE, /* WarmupCosineLR */
    MZ_SCHED_ONE_CYCLE,     /* OneCycle */
    MZ_SCHED_LR_RANGE_TEST  /* LRRangeTest */
} mz_scheduler_kind;

/* Fields are named as DeepSpeed's keys. */
typedef struct mz_scheduler_config {
    mz_scheduler_kind kind;
    double warmup_min_lr, warmup_max_lr; /* warmup_max_lr < 0: the optimiser's lr */
    int64_t warmup_num_steps, total_num_steps; /* total -1: not known yet, the caller is to set it */
    bool warmup_linear; /* warmup_type: "linear"; else "log" */
    double warmup_min_ratio, cos_min_ratio;
    double cycle_min_lr, cycle_max_lr, decay_lr_rate;
    int64_t cycle_first_step_size, cycle_second_step_size; /* second < 0: as first */
    int64_t cycle_first_stair_count, cycle_second_stair_count; /* second < 0: as first */
    int64_t decay_step_size;
    bool cycle_momentum;
    double cycle_min_mom, cycle_max_mom, decay_mom_rate;
    double lr_range_test_min_lr, lr_range_test_step_rate;
    int64_t lr_range_test_step_size;
    bool lr_range_test_staircase;
    int64_t last_batch_iteration;
} mz_scheduler_config;

typedef struct mz_optimizer_config {
    int kind; /* mz_optim_kind of kernels/kernels.h: 0 AdamW, 1 Adam with L2, 2 SGD, 3 Adagrad, 4 Lion */
    double lr, beta1, beta2, eps, weight_decay, momentum, dampening;
    bool nesterov, bias_correction;
} mz_optimizer_config;

typedef enum mz_offload_device { MZ_OFFLOAD_NONE = 0, MZ_OFFLOAD_CPU, MZ_OFFLOAD_NVME } mz_offload_device;

typedef struct mz_offload_config {
    mz_offload_device device;
    char nvme_path[512];
    int64_t buffer_count, buffer_size, max_in_cpu;
    bool pin_memory, pipeline_read, pipeline_write;
    double ratio;
} mz_offload_config;

typedef struct mz_zero_config {
    int stage;
    bool contiguous_gradients, reduce_scatter, allgather_partitions, overlap_comm;
    int64_t reduce_bucket_size, allgather_bucket_size, sub_group_size; /* elements */
    int64_t stage3_prefetch_bucket_size, stage3_param_persistence_threshold;
    int64_t stage3_model_persistence_threshold, stage3_max_live_parameters, stage3_max_reuse_distance;
    bool stage3_gather_16bit_weights_on_model_save;
    int zero_hpz_partition_size, mics_shard_size;
    bool zero_quantized_weights, zero_quantized_gradients;
    mz_offload_config offload_param, offload_optimizer;
} mz_zero_config;

typedef struct mz_fp16_config {
    double loss_scale; /* 0: dynamic */
    int initial_scale_power, loss_scale_window, hysteresis;
    bool consecutive_hysteresis;
    double min_loss_scale;
} mz_fp16_config;

typedef struct mz_config {
    /* Batch: train = micro x accumulation x data-parallel ranks. All three set after resolution. */
    int64_t train_batch_size, micro_batch_size, gradient_accumulation_steps;

    mz_dtype dtype; /* MZ_F32, MZ_F16 or MZ_BF16: of parameters and activations */
    mz_fp16_config fp16;
    bool bf16_check_grad_overflow;
    bool bf16_master_weights_and_grads; /* no fp32 masters: the bf16 parameters are updated */
    bool bf16_optimizer_states;         /* and the optimiser's states are bf16, too */
    bool stochastic_rounding;           /* where there are no masters, results are rounded stochastically */
    mz_dtype grad_accum_dtype;         /* = dtype when not given */
    mz_dtype communication_data_type;  /* of gradients on the wire; = the gradients' dtype when not given */

    mz_zero_config zero;
    mz_optimizer_config optimizer;
    mz_scheduler_config scheduler;
    double gradient_clipping; /* 0: none */
    bool prescale_gradients;
    double gradient_predivide_factor;
    bool gradient_allreduce_sum; /* gradient_allreduce_op: "sum" */

    int activation_checkpointing_every; /* 0: none; else every k-th recomputable unit keeps its inputs only */
    bool recompute_cheap; /* outputs of activations and layer norms are computed again rather than kept; without
                           * it that is done where a step does not fit otherwise */
    double activation_memory; /* GiB; where a micro-batch's activations need more, as few as possible of these outputs
                               * are computed again; 0: no limit */

    bool tf32; /* fp32 products on a GPU round their operands to TF32 */

    int64_t steps_per_print;
    bool wall_clock_breakdown, dump_state, dataloader_drop_last;
    bool tensorboard_enabled, csv_monitor_enabled;
    char tensorboard_output_path[512], tensorboard_job_name[128];
    char csv_output_path[512], csv_job_name[128];
    bool comms_logger_enabled, flops_profiler_enabled;
    int64_t flops_profiler_step;
    char flops_profiler_output[512];

    uint64_t seed;
    double comm_timeout_seconds;
} mz_config;

/* What "auto" in the file stands for, and what to use where the file is silent: the command line's values,
 * resolved as Accelerate's _prepare_deepspeed and the Trainer do. Negative numbers (and NULL) mean not given.
 * A flag given and a different value in the file is an error that names both. */
typedef struct mz_config_defaults {
    int64_t micro_batch_size, gradient_accumulation_steps;
    double learning_rate, weight_decay, adam_beta1, adam_beta2, adam_epsilon;
    double gradient_clipping;
    int64_t warmup_steps, total_steps;
    const char *mixed_precision; /* "no", "fp16", "bf16" */
    int64_t hidden_size;         /* of the model; for bucket sizes */
    int zero_stage;
    int64_t seed;
    int gradient_checkpointing; /* 0, 1; -1 not given */
    int recompute_cheap;        /* 0, 1; -1 not given */
    int tf32;                   /* 0, 1; -1 not given */
    int stochastic_rounding;    /* 0, 1; -1 not given */
    double activation_memory;
    double comm_timeout_seconds;
} mz_config_defaults;
void mz_config_defaults_init(mz_config_defaults *defaults); /* all: not given */

/* Not collective. path NULL: no file, the defaults and flags alone. `world_size` is the number of
 * data-parallel ranks, for the batch rule. *config is set on success only.
 * Errors: MZ_ERR_CONFIG (message: file:line: key: expected, found, what to do), MZ_ERR_IO. */
mz_status mz_config_load(const char *path, const mz_config_defaults *defaults, int world_size, mz_config *config);

/* The resolved configuration as JSON text, for the checkpoint and for dump_state; owned by the caller (free()). */
char *mz_config_to_json(const mz_config *config);

#ifdef __cplusplus
}
#endif
#endif
