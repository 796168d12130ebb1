/* Every key of a DeepSpeed configuration (v0.19): type, default, range, where it goes, what becomes of it. */
#include "core/config_internal.h"

#include <string.h>

#define AT(field) offsetof(mz_config, field), sizeof(((mz_config *)0)->field)
#define NOWHERE   MZ_KEY_NO_TARGET, 0
#define TINY      1e-300 /* the smallest value where zero is not allowed */
#define HUGE_INT  9.3e18

/* Honoured keys, and what "auto" stands for where a value is known. */
#define BOOL(path, def, field)                                                                                     \
    {                                                                                                              \
        path, MZ_KEY_BOOL, MZ_KEY_HONOURED, def, 0, 0, 0, NULL, AT(field), NULL, NULL, false                       \
    }
#define INT(path, def, lo, hi, field, automatic)                                                                   \
    {                                                                                                              \
        path, MZ_KEY_INT, MZ_KEY_HONOURED, def, lo, hi, 0, NULL, AT(field), automatic, NULL, false                 \
    }
#define REAL(path, def, lo, hi, field, automatic)                                                                  \
    {                                                                                                              \
        path, MZ_KEY_REAL, MZ_KEY_HONOURED, def, lo, hi, 0, NULL, AT(field), automatic, NULL, false                \
    }
#define TEXT(path, def, field, automatic)                                                                          \
    {                                                                                                              \
        path, MZ_KEY_TEXT, MZ_KEY_HONOURED, def, 0, 0, 0, NULL, AT(field), automatic, NULL, false                  \
    }
#define WORD(path, def, words, field, automatic)                                                                   \
    {                                                                                                              \
        path, MZ_KEY_WORD, MZ_KEY_HONOURED, def, 0, 0, 0, words, AT(field), automatic, NULL, false                 \
    }
/* Parameters of an optimiser or a scheduler. */
#define PARAM(path, type, def, lo, hi, none, field, automatic, only)                                               \
    {                                                                                                              \
        path, type, MZ_KEY_HONOURED, def, lo, hi, none, NULL, AT(field), automatic, only, false                    \
    }
/* Honoured, but put in its place by code. */
#define CODED(path, type, def, lo, hi, words, automatic, only)                                                     \
    {                                                                                                              \
        path, type, MZ_KEY_HONOURED, def, lo, hi, 0, words, NOWHERE, automatic, only, false                        \
    }
/* Accepted without effect; refused unless default. */
#define IDLE(path, type, def, why)                                                                                 \
    {                                                                                                              \
        path, type, MZ_KEY_NO_EFFECT, def, -1e300, 1e300, 0, NULL, NOWHERE, why, NULL, false                       \
    }
#define REFUSE(path, type, def, why)                                                                               \
    {                                                                                                              \
        path, type, MZ_KEY_REFUSED, def, -1e300, 1e300, 0, NULL, NOWHERE, why, NULL, false                         \
    }
#define REFUSE_PARAM(path, type, def, why, only)                                                                   \
    {                                                                                                              \
        path, type, MZ_KEY_REFUSED, def, -1e300, 1e300, 0, NULL, NOWHERE, why, only, false                         \
    }
/* Blocks: strict ones refuse unknown keys, as DeepSpeed does there; loose ones warn. */
#define STRICT(path)                                                                                               \
    {                                                                                                              \
        path, MZ_KEY_BLOCK, MZ_KEY_HONOURED, "null", 0, 0, 0, NULL, NOWHERE, NULL, NULL, true                      \
    }
#define LOOSE(path)                                                                                                \
    {                                                                                                              \
        path, MZ_KEY_BLOCK, MZ_KEY_HONOURED, "null", 0, 0, 0, NULL, NOWHERE, NULL, NULL, false                     \
    }

#define DTYPES      "fp32|fp16|bf16|float32|float16|bfloat16|torch.float32|torch.float16|torch.bfloat16"
#define ADAMS       "Adam AdamW"
#define WARMUPS     "WarmupLR WarmupDecayLR"
#define ALL_WARMUPS "WarmupLR WarmupDecayLR WarmupCosineLR"

#define ZERO(name)   "zero_optimization." name
#define OPARAM(name) "zero_optimization.offload_param." name
#define OOPT(name)   "zero_optimization.offload_optimizer." name
#define OPT(name)    "optimizer.params." name
#define SCHED(name)  "scheduler.params." name

#define WHY_ARENA    "activations and buckets lie in memory planned before the first step"
#define WHY_PYTHON   "it tunes how DeepSpeed hooks into Python modules, which are not there"
#define WHY_TRACKER  "this tracker is not there; metrics.jsonl, TensorBoard and CSV are"
#define WHY_PIPELINE "models run without pipeline stages"
#define WHY_COMPILE  "kernels are compiled ahead of time"
#define WHY_WRITER   "checkpoints are written as sharded HDF5 by a thread of their own"

const mz_config_key mz_config_keys[] = {
    /* Batch. */
    CODED("train_batch_size", MZ_KEY_INT, "null", 1, HUGE_INT, NULL, "micro-batch x accumulation x ranks", NULL),
    INT("train_micro_batch_size_per_gpu", "null", 1, 2147483647, micro_batch_size,
        "--per-device-train-batch-size, else 8"),
    INT("gradient_accumulation_steps", "null", 1, 2147483647, gradient_accumulation_steps,
        "--gradient-accumulation-steps, else 1"),
    IDLE("managed_gradient_accumulation", MZ_KEY_BOOL, "true", "the training loop always manages accumulation"),

    /* Top level. */
    INT("steps_per_print", "null", 0, HUGE_INT, steps_per_print, NULL),
    BOOL("wall_clock_breakdown", "false", wall_clock_breakdown),
    IDLE("memory_breakdown", MZ_KEY_BOOL, "false", "memory is planned, and shown by purpose at the start"),
    BOOL("dump_state", "false", dump_state),
    BOOL("dataloader_drop_last", "false", dataloader_drop_last),
    IDLE("log_level", MZ_KEY_TEXT, "null", "the command line's --log-level sets it"),
    REAL("gradient_clipping", "1.0", 0, 1e300, gradient_clipping, "--max-grad-norm, else 1.0"),
    WORD("communication_data_type", "null", DTYPES, communication_data_type, NULL),
    IDLE("seq_parallel_communication_data_type", MZ_KEY_TEXT, "fp32", "there is no sequence parallelism"),
    BOOL("prescale_gradients", "false", prescale_gradients),
    REAL("gradient_predivide_factor", "1.0", TINY, 1e300, gradient_predivide_factor, NULL),
    {"gradient_allreduce_op", MZ_KEY_WORD, MZ_KEY_HONOURED, "mean", 0, 0, 0, "mean|sum", AT(gradient_allreduce_sum),
     NULL, NULL, false},
    IDLE("sparse_gradients", MZ_KEY_BOOL, "false", "gradients of embeddings are dense; the result is the same"),
    IDLE("disable_allgather", MZ_KEY_BOOL, "false", "gathers are built in; the result is the same"),
    IDLE("zero_allow_untested_optimizer", MZ_KEY_BOOL, "false", "every optimiser here works with ZeRO"),
    IDLE("zero_force_ds_cpu_optimizer", MZ_KEY_BOOL, "true", "there is one implementation of each optimiser"),
    IDLE("graph_harvesting", MZ_KEY_BOOL, "false", "no graphs are recorded for this"),
    REFUSE("amp", MZ_KEY_OPEN, "null", "Apex mixed precision is not there: use a bf16 or fp16 block"),
    REFUSE("torch_autocast", MZ_KEY_OPEN, "null",
           "autocasting by operation is not there: use a bf16 or fp16 block"),
    LOOSE("data_types"),
    WORD("data_types.grad_accum_dtype", "null", DTYPES, grad_accum_dtype, NULL),
    REFUSE("data_types.param_dtype", MZ_KEY_TEXT, "null", "the fp16 and bf16 blocks say how parameters are stored"),
    REFUSE("data_types.buffer_dtype", MZ_KEY_TEXT, "null", "models here have no buffers of their own"),
    IDLE("vocabulary_size", MZ_KEY_INT, "null", "the model's config.json has it"),
    IDLE("use_data_before_expert_parallelism", MZ_KEY_BOOL, "false", "there is no expert parallelism"),
    IDLE("pipeline", MZ_KEY_OPEN, "null", WHY_PIPELINE),
    REFUSE("progressive_layer_drop", MZ_KEY_OPEN, "null", "layers are not dropped: remove the block"),
    LOOSE("timers"),
    IDLE("timers.throughput", MZ_KEY_OPEN, "null", "throughput is always measured, without synchronising"),
    STRICT("tensor_parallel"),
    REFUSE("tensor_parallel.autotp_size", MZ_KEY_INT, "0", "layers are not split over ranks: use ZeRO stage 3"),
    IDLE("tensor_parallel.tp_overlap_comm", MZ_KEY_BOOL, "false", "layers are not split over ranks"),
    IDLE("tensor_parallel.preset_model", MZ_KEY_TEXT, "null", "layers are not split over ranks"),
    IDLE("tensor_parallel.partition_config", MZ_KEY_OPEN, "null", "layers are not split over ranks"),
    IDLE("compile", MZ_KEY_OPEN, "null", WHY_COMPILE),

    /* Optimiser. */
    LOOSE("optimizer"),
    CODED("optimizer.type", MZ_KEY_TEXT, "required", 0, 0, "Adam|AdamW|SGD|Adagrad|Lion", NULL, NULL),
    IDLE("optimizer.legacy_fusion", MZ_KEY_BOOL, "false", "it concerns DeepSpeed's fused fp16 optimiser"),
    STRICT("optimizer.params"),
    PARAM(OPT("lr"), MZ_KEY_REAL, "0.001", 0, 1e300, 0, optimizer.lr, "--learning-rate, else 5e-5", NULL),
    CODED(OPT("betas"), MZ_KEY_LIST, "[0.9, 0.999]", 0, 0, NULL, "--adam-beta1 and --adam-beta2", ADAMS " Lion"),
    PARAM(OPT("eps"), MZ_KEY_REAL, "1e-8", 0, 1e300, 0, optimizer.eps, "--adam-epsilon, else 1e-8",
          ADAMS " Adagrad"),
    PARAM(OPT("weight_decay"), MZ_KEY_REAL, "0", 0, 1e300, 0, optimizer.weight_decay, "--weight-decay, else 0",
          NULL),
    PARAM(OPT("bias_correction"), MZ_KEY_BOOL, "true", 0, 0, 0, optimizer.bias_correction, NULL, ADAMS),
    CODED(OPT("adam_w_mode"), MZ_KEY_BOOL, "true", 0, 0, NULL, NULL, ADAMS),
    IDLE(OPT("torch_adam"), MZ_KEY_BOOL, "false", "there is one implementation of Adam"),
    REFUSE_PARAM(OPT("fp32_optimizer_states"), MZ_KEY_BOOL, "true", "the moments are always fp32", ADAMS),
    REFUSE_PARAM(OPT("amsgrad"), MZ_KEY_BOOL, "false", "Adam's amsgrad variant is not there", ADAMS),
    PARAM(OPT("momentum"), MZ_KEY_REAL, "0", 0, 1, 0, optimizer.momentum, NULL, "SGD"),
    PARAM(OPT("dampening"), MZ_KEY_REAL, "0", 0, 1, 0, optimizer.dampening, NULL, "SGD"),
    PARAM(OPT("nesterov"), MZ_KEY_BOOL, "false", 0, 0, 0, optimizer.nesterov, NULL, "SGD"),
    REFUSE_PARAM(OPT("lr_decay"), MZ_KEY_REAL, "0", "use a scheduler block", "Adagrad"),
    REFUSE_PARAM(OPT("initial_accumulator_value"), MZ_KEY_REAL, "0", "Adagrad's sums start at 0", "Adagrad"),
    REFUSE(OPT("max_grad_norm"), MZ_KEY_REAL, "null",
           "it is not a parameter of an optimiser: use gradient_clipping at the top level of the file"),

    /* Scheduler. */
    LOOSE("scheduler"),
    CODED("scheduler.type", MZ_KEY_WORD, "required", 0, 0,
          "WarmupLR|WarmupDecayLR|WarmupCosineLR|OneCycle|LRRangeTest", NULL, NULL),
    STRICT("scheduler.params"),
    PARAM(SCHED("warmup_min_lr"), MZ_KEY_REAL, "0", 0, 1e300, 0, scheduler.warmup_min_lr, "0", WARMUPS),
    PARAM(SCHED("warmup_max_lr"), MZ_KEY_REAL, "null", 0, 1e300, -1, scheduler.warmup_max_lr, "the optimiser's lr",
          WARMUPS),
    PARAM(SCHED("warmup_num_steps"), MZ_KEY_INT, "1000", 0, HUGE_INT, 0, scheduler.warmup_num_steps,
          "--num-warmup-steps, else 0", ALL_WARMUPS),
    PARAM(SCHED("total_num_steps"), MZ_KEY_INT, "null", 1, HUGE_INT, -1, scheduler.total_num_steps,
          "the run's steps", "WarmupDecayLR WarmupCosineLR"),
    {SCHED("warmup_type"), MZ_KEY_WORD, MZ_KEY_HONOURED, "log", 0, 0, 0, "log|linear", AT(scheduler.warmup_linear),
     NULL, ALL_WARMUPS, false},
    PARAM(SCHED("warmup_min_ratio"), MZ_KEY_REAL, "0", 0, 1, 0, scheduler.warmup_min_ratio, NULL, "WarmupCosineLR"),
    PARAM(SCHED("cos_min_ratio"), MZ_KEY_REAL, "0.0001", 0, 1, 0, scheduler.cos_min_ratio, NULL, "WarmupCosineLR"),
    PARAM(SCHED("cycle_min_lr"), MZ_KEY_REAL, "required", 0, 1e300, 0, scheduler.cycle_min_lr, NULL, "OneCycle"),
    PARAM(SCHED("cycle_max_lr"), MZ_KEY_REAL, "required", 0, 1e300, 0, scheduler.cycle_max_lr, NULL, "OneCycle"),
    PARAM(SCHED("decay_lr_rate"), MZ_KEY_REAL, "0", 0, 1e300, 0, scheduler.decay_lr_rate, NULL, "OneCycle"),
    PARAM(SCHED("cycle_first_step_size"), MZ_KEY_INT, "2000", 1, HUGE_INT, 0, scheduler.cycle_first_step_size, NULL,
          "OneCycle"),
    PARAM(SCHED("cycle_second_step_size"), MZ_KEY_INT, "null", 0, HUGE_INT, -1, scheduler.cycle_second_step_size,
          NULL, "OneCycle"),
    PARAM(SCHED("cycle_first_stair_count"), MZ_KEY_INT, "0", 0, HUGE_INT, 0, scheduler.cycle_first_stair_count,
          NULL, "OneCycle"),
    PARAM(SCHED("cycle_second_stair_count"), MZ_KEY_INT, "null", 0, HUGE_INT, -1,
          scheduler.cycle_second_stair_count, NULL, "OneCycle"),
    PARAM(SCHED("decay_step_size"), MZ_KEY_INT, "0", 0, HUGE_INT, 0, scheduler.decay_step_size, NULL, "OneCycle"),
    PARAM(SCHED("cycle_momentum"), MZ_KEY_BOOL, "true", 0, 0, 0, scheduler.cycle_momentum, NULL, "OneCycle"),
    PARAM(SCHED("cycle_min_mom"), MZ_KEY_REAL, "0.8", 0, 1, 0, scheduler.cycle_min_mom, NULL, "OneCycle"),
    PARAM(SCHED("cycle_max_mom"), MZ_KEY_REAL, "0.9", 0, 1, 0, scheduler.cycle_max_mom, NULL, "OneCycle"),
    PARAM(SCHED("decay_mom_rate"), MZ_KEY_REAL, "0", 0, 1e300, 0, scheduler.decay_mom_rate, NULL, "OneCycle"),
    PARAM(SCHED("lr_range_test_min_lr"), MZ_KEY_REAL, "0.001", 0, 1e300, 0, scheduler.lr_range_test_min_lr, NULL,
          "LRRangeTest"),
    PARAM(SCHED("lr_range_test_step_size"), MZ_KEY_INT, "2000", 1, HUGE_INT, 0, scheduler.lr_range_test_step_size,
          NULL, "LRRangeTest"),
    PARAM(SCHED("lr_range_test_step_rate"), MZ_KEY_REAL, "1.0", 0, 1e300, 0, scheduler.lr_range_test_step_rate,
          NULL, "LRRangeTest"),
    PARAM(SCHED("lr_range_test_staircase"), MZ_KEY_BOOL, "false", 0, 0, 0, scheduler.lr_range_test_staircase, NULL,
          "LRRangeTest"),
    PARAM(SCHED("last_batch_iteration"), MZ_KEY_INT, "-1", -1, HUGE_INT, 0, scheduler.last_batch_iteration, NULL,
          NULL),

    /* Precision. */
    STRICT("fp16"),
    CODED("fp16.enabled", MZ_KEY_BOOL, "false", 0, 0, NULL, "--mixed-precision fp16", NULL),
    IDLE("fp16.auto_cast", MZ_KEY_BOOL, "false", "inputs of floating type are always converted"),
    REAL("fp16.loss_scale", "0", 0, 1e300, fp16.loss_scale, NULL),
    INT("fp16.initial_scale_power", "16", 0, 127, fp16.initial_scale_power, NULL),
    INT("fp16.loss_scale_window", "1000", 1, 2147483647, fp16.loss_scale_window, NULL),
    INT("fp16.hysteresis", "2", 1, 2147483647, fp16.hysteresis, NULL),
    BOOL("fp16.consecutive_hysteresis", "false", fp16.consecutive_hysteresis),
    REAL("fp16.min_loss_scale", "1", TINY, 1e300, fp16.min_loss_scale, NULL),
    REFUSE("fp16.fp16_master_weights_and_grads", MZ_KEY_BOOL, "false",
           "fp16 ends at 6e-8 below, where small weights and updates are lost: master weights of fp16 are fp32"),
    STRICT("bf16"),
    CODED("bf16.enabled", MZ_KEY_BOOL, "false", 0, 0, NULL, "--mixed-precision bf16", NULL),
    IDLE("bf16.immediate_grad_update", MZ_KEY_BOOL, "false",
         "gradients are accumulated as soon as they are formed"),
    BOOL("bf16.check_grad_overflow", "true", bf16_check_grad_overflow),
    BOOL("bf16.bf16_master_weights_and_grads", "false", bf16_master_weights_and_grads),
    BOOL("bf16.bf16_optimizer_states", "false", bf16_optimizer_states),

    /* ZeRO. */
    STRICT("zero_optimization"),
    INT(ZERO("stage"), "0", 0, 3, zero.stage, "--zero-stage, else 2"),
    BOOL(ZERO("contiguous_gradients"), "true", zero.contiguous_gradients),
    BOOL(ZERO("reduce_scatter"), "true", zero.reduce_scatter),
    INT(ZERO("reduce_bucket_size"), "5e8", 1, HUGE_INT, zero.reduce_bucket_size, "hidden size squared"),
    IDLE(ZERO("use_multi_rank_bucket_allreduce"), MZ_KEY_BOOL, "true",
         "buckets are reduced by one collective each"),
    BOOL(ZERO("allgather_partitions"), "true", zero.allgather_partitions),
    INT(ZERO("allgather_bucket_size"), "5e8", 1, HUGE_INT, zero.allgather_bucket_size, NULL),
    CODED(ZERO("overlap_comm"), MZ_KEY_BOOL, "null", 0, 0, NULL, "true at stage 3, else false", NULL),
    REFUSE(ZERO("load_from_fp32_weights"), MZ_KEY_BOOL, "true", "a resume always takes the fp32 master weights"),
    IDLE(ZERO("elastic_checkpoint"), MZ_KEY_BOOL, "false", "every checkpoint loads on any number of ranks"),
    STRICT(ZERO("offload_param")),
    WORD(OPARAM("device"), "none", "none|cpu|nvme", zero.offload_param.device, "none"),
    TEXT(OPARAM("nvme_path"), "null", zero.offload_param.nvme_path, "none"),
    INT(OPARAM("buffer_count"), "5", 0, HUGE_INT, zero.offload_param.buffer_count, NULL),
    INT(OPARAM("buffer_size"), "1e8", 0, HUGE_INT, zero.offload_param.buffer_size, NULL),
    INT(OPARAM("max_in_cpu"), "1e9", 0, HUGE_INT, zero.offload_param.max_in_cpu, NULL),
    BOOL(OPARAM("pin_memory"), "true", zero.offload_param.pin_memory),
    STRICT(ZERO("offload_optimizer")),
    WORD(OOPT("device"), "none", "none|cpu|nvme", zero.offload_optimizer.device, "none"),
    TEXT(OOPT("nvme_path"), "null", zero.offload_optimizer.nvme_path, "none"),
    INT(OOPT("buffer_count"), "4", 0, HUGE_INT, zero.offload_optimizer.buffer_count, NULL),
    BOOL(OOPT("pin_memory"), "true", zero.offload_optimizer.pin_memory),
    BOOL(OOPT("pipeline_read"), "false", zero.offload_optimizer.pipeline_read),
    BOOL(OOPT("pipeline_write"), "false", zero.offload_optimizer.pipeline_write),
    IDLE(OOPT("fast_init"), MZ_KEY_BOOL, "false", "optimiser states are initialised in place"),
    REAL(OOPT("ratio"), "1.0", 0, 1, zero.offload_optimizer.ratio, NULL),
    IDLE(OOPT("super_offload"), MZ_KEY_BOOL, "false", "CPU and GPU updates are scheduled by the engine"),
    IDLE(OOPT("cpuadam_cores_perc"), MZ_KEY_REAL, "0.8", "--cpu-threads sets the cores"),
    REFUSE(ZERO("zenflow"), MZ_KEY_OPEN, "null", "ZenFlow's delayed updates are not there: remove the block"),
    INT(ZERO("sub_group_size"), "1e9", 1, HUGE_INT, zero.sub_group_size, NULL),
    INT(ZERO("stage3_prefetch_bucket_size"), "5e7", 0, HUGE_INT, zero.stage3_prefetch_bucket_size,
        "0.9 x hidden size squared"),
    INT(ZERO("stage3_param_persistence_threshold"), "1e5", 0, HUGE_INT, zero.stage3_param_persistence_threshold,
        "10 x hidden size"),
    INT(ZERO("stage3_model_persistence_threshold"), "9223372036854775807", 0, HUGE_INT,
        zero.stage3_model_persistence_threshold, NULL),
    INT(ZERO("stage3_max_live_parameters"), "1e9", 0, HUGE_INT, zero.stage3_max_live_parameters, NULL),
    INT(ZERO("stage3_max_reuse_distance"), "1e9", 0, HUGE_INT, zero.stage3_max_reuse_distance, NULL),
    BOOL(ZERO("stage3_gather_16bit_weights_on_model_save"), "false",
         zero.stage3_gather_16bit_weights_on_model_save),
    IDLE(ZERO("stage3_module_granularity_threshold"), MZ_KEY_INT, "0", "parameters are gathered by unit"),
    IDLE(ZERO("stage3_use_all_reduce_for_fetch_params"), MZ_KEY_BOOL, "false",
         "parameters are fetched by all-gather"),
    IDLE(ZERO("stage3_allgather_sequential"), MZ_KEY_BOOL, "false", "gathers follow the order of units already"),
    IDLE(ZERO("ignore_unused_parameters"), MZ_KEY_BOOL, "true", "a parameter without a gradient keeps a zero one"),
    IDLE(ZERO("legacy_stage1"), MZ_KEY_BOOL, "false", "there is one implementation of stage 1"),
    IDLE(ZERO("round_robin_gradients"), MZ_KEY_BOOL, "false",
         "every rank owns an even slice of every unit already"),
    INT(ZERO("zero_hpz_partition_size"), "1", 1, 2147483647, zero.zero_hpz_partition_size, NULL),
    BOOL(ZERO("zero_quantized_weights"), "false", zero.zero_quantized_weights),
    REFUSE(ZERO("zero_quantized_nontrainable_weights"), MZ_KEY_BOOL, "false", "every parameter here is trained"),
    BOOL(ZERO("zero_quantized_gradients"), "false", zero.zero_quantized_gradients),
    REFUSE(ZERO("zeropp_loco_param"), MZ_KEY_OPEN, "null", "LoCo's error feedback is not there: remove the block"),
    INT(ZERO("mics_shard_size"), "-1", -1, 2147483647, zero.mics_shard_size, NULL),
    IDLE(ZERO("mics_hierarchical_params_gather"), MZ_KEY_BOOL, "false",
         "gathers between nodes are always hierarchical"),
    IDLE(ZERO("memory_efficient_linear"), MZ_KEY_BOOL, "true", WHY_PYTHON),
    IDLE(ZERO("pipeline_loading_checkpoint"), MZ_KEY_BOOL, "false", "loading reads only this rank's ranges"),
    IDLE(ZERO("override_module_apply"), MZ_KEY_BOOL, "true", WHY_PYTHON),
    IDLE(ZERO("log_trace_cache_warnings"), MZ_KEY_BOOL, "false",
         "the order of units is known, so no trace is cached"),
    IDLE(ZERO("enable_sanity_checks"), MZ_KEY_BOOL, "false", "collectives are always checked against each other"),
    IDLE(ZERO("save_muon_momentum_buffer_in_memory"), MZ_KEY_BOOL, "false", "it concerns Muon"),
    IDLE(ZERO("leaf_module"), MZ_KEY_OPEN, "null", "parameters are gathered by unit"),
    IDLE(ZERO("grad_hooks"), MZ_KEY_BOOL, "true", WHY_PYTHON),

    STRICT("aio"),
    IDLE("aio.block_size", MZ_KEY_INT, "1048576", "transfers to NVMe choose their own block size"),
    IDLE("aio.queue_depth", MZ_KEY_INT, "8", "transfers to NVMe choose their own depth"),
    IDLE("aio.intra_op_parallelism", MZ_KEY_INT, "1", "transfers to NVMe choose their own threads"),
    IDLE("aio.single_submit", MZ_KEY_BOOL, "false", "transfers to NVMe are submitted in batches"),
    IDLE("aio.overlap_events", MZ_KEY_BOOL, "true", "transfers to NVMe always overlap"),
    IDLE("aio.use_gds", MZ_KEY_BOOL, "false", "transfers to NVMe go through pinned memory"),

    /* The rest. */
    LOOSE("activation_checkpointing"),
    IDLE("activation_checkpointing.partition_activations", MZ_KEY_BOOL, "false", "layers are not split over ranks"),
    REFUSE("activation_checkpointing.cpu_checkpointing", MZ_KEY_BOOL, "false",
           "checkpointed activations stay on the device: --gradient-checkpointing needs the least"),
    IDLE("activation_checkpointing.contiguous_memory_optimization", MZ_KEY_BOOL, "false", WHY_ARENA),
    IDLE("activation_checkpointing.number_checkpoints", MZ_KEY_INT, "null",
         "--gradient-checkpointing keeps the inputs of every block"),
    IDLE("activation_checkpointing.synchronize_checkpoint_boundary", MZ_KEY_BOOL, "false", WHY_ARENA),
    IDLE("activation_checkpointing.profile", MZ_KEY_BOOL, "false", "wall_clock_breakdown times the recomputation"),
    STRICT("flops_profiler"),
    BOOL("flops_profiler.enabled", "false", flops_profiler_enabled),
    IDLE("flops_profiler.recompute_fwd_factor", MZ_KEY_REAL, "0.0", "recomputation is counted as it happens"),
    INT("flops_profiler.profile_step", "1", 1, HUGE_INT, flops_profiler_step, NULL),
    IDLE("flops_profiler.module_depth", MZ_KEY_INT, "-1", "the profile is by unit"),
    IDLE("flops_profiler.top_modules", MZ_KEY_INT, "1", "the profile lists every unit"),
    IDLE("flops_profiler.detailed", MZ_KEY_BOOL, "true", "the profile lists every unit"),
    TEXT("flops_profiler.output_file", "null", flops_profiler_output, NULL),
    STRICT("comms_logger"),
    BOOL("comms_logger.enabled", "false", comms_logger_enabled),
    IDLE("comms_logger.verbose", MZ_KEY_BOOL, "false",
         "a summary is logged; --log-level debug shows each operation"),
    IDLE("comms_logger.prof_all", MZ_KEY_BOOL, "true", "all operations are counted"),
    IDLE("comms_logger.debug", MZ_KEY_BOOL, "false", "--log-level debug shows each operation"),
    IDLE("comms_logger.prof_ops", MZ_KEY_LIST, "[]", "all operations are counted"),
    STRICT("tensorboard"),
    BOOL("tensorboard.enabled", "false", tensorboard_enabled),
    TEXT("tensorboard.output_path", "", tensorboard_output_path, NULL),
    TEXT("tensorboard.job_name", "DeepSpeedJobName", tensorboard_job_name, NULL),
    STRICT("csv_monitor"),
    BOOL("csv_monitor.enabled", "false", csv_monitor_enabled),
    TEXT("csv_monitor.output_path", "", csv_output_path, NULL),
    TEXT("csv_monitor.job_name", "DeepSpeedJobName", csv_job_name, NULL),
    IDLE("wandb", MZ_KEY_OPEN, "null", WHY_TRACKER),
    IDLE("comet", MZ_KEY_OPEN, "null", WHY_TRACKER),
    LOOSE("checkpoint"),
    {"checkpoint.tag_validation", MZ_KEY_WORD, MZ_KEY_NO_EFFECT, "Warn", 0, 0, 0, "Ignore|Warn|Fail", NOWHERE,
     "a checkpoint is named by its step, alike on all ranks", NULL, false},
    IDLE("checkpoint.load_universal", MZ_KEY_BOOL, "false", "every checkpoint loads on any ranks and stage"),
    IDLE("checkpoint.use_node_local_storage", MZ_KEY_BOOL, "false", "--output-dir says where checkpoints go"),
    IDLE("checkpoint.parallel_write", MZ_KEY_OPEN, "null", WHY_WRITER),
    IDLE("checkpoint.checkpoint_serialization", MZ_KEY_BOOL, "true", WHY_WRITER),
    IDLE("checkpoint.writer", MZ_KEY_OPEN, "null", WHY_WRITER),
    IDLE("nebula", MZ_KEY_OPEN, "null", WHY_WRITER),
    IDLE("datastates_ckpt", MZ_KEY_OPEN, "null", WHY_WRITER),
    REFUSE("elasticity", MZ_KEY_OPEN, "null",
           "batch sizes do not follow the ranks: give them, and resume on any number of ranks"),
    IDLE("autotuning", MZ_KEY_OPEN, "null", "the estimate command says what fits"),
    IDLE("data_efficiency", MZ_KEY_OPEN, "null", "samples are neither reordered nor shortened"),
    IDLE("curriculum_learning", MZ_KEY_OPEN, "null", "samples are neither reordered nor shortened"),
    IDLE("sparse_attention", MZ_KEY_OPEN, "null", "attention is dense"),
    IDLE("compression_training", MZ_KEY_OPEN, "null", "weights are neither pruned nor quantised in training"),
    IDLE("eigenvalue", MZ_KEY_OPEN, "null", "eigenvalues are not estimated"),
    IDLE("hybrid_engine", MZ_KEY_OPEN, "null", "training and generation are commands apart"),
    IDLE("expert_parallel", MZ_KEY_OPEN, "null", "there is no expert parallelism"),

    /* What DeepSpeed has no key for. */
    STRICT("mpizero"),
    INT("mpizero.seed", "42", 0, HUGE_INT, seed, NULL),
    REAL("mpizero.timeout_seconds", "1800", 0, 1e300, comm_timeout_seconds, NULL),
    INT("mpizero.activation_checkpointing_every", "0", 0, 2147483647, activation_checkpointing_every, NULL),
    BOOL("mpizero.recompute_cheap", "false", recompute_cheap),
    BOOL("mpizero.tf32", "false", tf32),
    BOOL("mpizero.stochastic_rounding", "false", stochastic_rounding),
    REAL("mpizero.activation_memory", "0", 0, 1e6, activation_memory, NULL),
};

/* Read and checked; the engine refuses them by name. */
static const char *const later[] = {ZERO("offload_param"), ZERO("offload_optimizer")};

bool mz_config_key_later(const mz_config_key *key)
{
    for (size_t i = 0; i < sizeof later / sizeof *later; i++) {
        size_t n = strlen(later[i]);
        if (strncmp(key->path, later[i], n) == 0 && (key->path[n] == '\0' || key->path[n] == '.'))
            return key->use == MZ_KEY_HONOURED;
    }
    return false;
}

const int mz_config_n_keys = sizeof mz_config_keys / sizeof mz_config_keys[0];
