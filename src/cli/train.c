/* train and eval: the same options, but those that only training needs. */
#include "train/train.h"

#include "cli/cli.h"

#define AT(field) offsetof(mz_train_options, field)
#define N(table)  ((int)(sizeof(table) / sizeof((table)[0])))

typedef struct train_target {
    mz_cli_common common;
    mz_train_options options;
} train_target;

static const mz_option model_and_data[] = {
    {.name = "model",
     .kind = MZ_OPTION_TEXT,
     .value = "DIR",
     .offset = AT(model),
     .required = true,
     .help = "Hugging Face folder, with weights or without, or a config.json"},
    {.name = "tokenizer",
     .kind = MZ_OPTION_TEXT,
     .value = "DIR",
     .fallback = "the model's folder",
     .offset = AT(tokenizer),
     .help = "folder with tokenizer files, or \"byte\""},
    {.name = "train-data",
     .kind = MZ_OPTION_TEXT,
     .value = "FILE",
     .offset = AT(train_data),
     .help = "plain text or .jsonl to train on"},
    {.name = "validation-data",
     .kind = MZ_OPTION_TEXT,
     .value = "FILE",
     .offset = AT(validation_data),
     .help = "plain text or .jsonl to evaluate on"},
    {.name = "validation-split",
     .kind = MZ_OPTION_DOUBLE,
     .value = "FRACTION",
     .fallback = "none",
     .min = 0,
     .max = 1,
     .offset = AT(validation_split),
     .help = "share of the training blocks that is held out for evaluation"},
    {.name = "text-field",
     .kind = MZ_OPTION_TEXT,
     .value = "NAME",
     .fallback = "text",
     .offset = AT(text_field),
     .help = "the field of .jsonl files that holds the text"},
    {.name = "block-size",
     .kind = MZ_OPTION_INT64,
     .value = "N",
     .fallback = "the model's positions, 1024 at most",
     .min = 2,
     .max = 1e9,
     .offset = AT(block_size),
     .help = "tokens of a sequence"},
    {.name = "deepspeed",
     .alias = "config-file",
     .kind = MZ_OPTION_TEXT,
     .value = "FILE",
     .offset = AT(config_path),
     .help = "DeepSpeed JSON configuration, or Accelerate YAML"},
    {.name = "per-device-eval-batch-size",
     .kind = MZ_OPTION_INT64,
     .value = "N",
     .fallback = "as training",
     .min = 1,
     .max = 2147483647,
     .offset = AT(eval_batch_size),
     .help = "samples of an evaluation batch, per rank"},
    {.name = "resume",
     .alias = "resume-from-checkpoint",
     .kind = MZ_OPTION_TEXT,
     .value = "CHECKPOINT",
     .offset = AT(resume),
     .help = "\"latest\", a run's folder or a step's folder; from any number of ranks and any stage"},
};
static const mz_option_group model_and_data_group = {"Model and data", model_and_data, N(model_and_data)};

static const mz_option schedule[] = {
    {.name = "output-dir",
     .kind = MZ_OPTION_TEXT,
     .value = "DIR",
     .fallback = "run",
     .offset = AT(output_dir),
     .help = "where checkpoints, weights and metrics go"},
    {.name = "num-train-epochs",
     .kind = MZ_OPTION_DOUBLE,
     .value = "N",
     .fallback = "3",
     .min = 0,
     .max = 1e9,
     .offset = AT(num_train_epochs),
     .help = "times over the training data"},
    {.name = "max-steps",
     .alias = "max-train-steps",
     .kind = MZ_OPTION_INT64,
     .value = "N",
     .fallback = "by epochs",
     .min = 1,
     .max = 9e18,
     .offset = AT(max_steps),
     .help = "optimiser steps, instead of epochs"},
    {.name = "lr-scheduler-type",
     .kind = MZ_OPTION_WORD,
     .value = "TYPE",
     .fallback = "the file's, else constant",
     .words = "constant|constant_with_warmup|linear|cosine",
     .offset = AT(scheduler),
     .help = "constant, constant_with_warmup, linear or cosine"},
    {.name = "warmup-ratio",
     .kind = MZ_OPTION_DOUBLE,
     .value = "SHARE",
     .min = 0,
     .max = 1,
     .offset = AT(warmup_ratio),
     .help = "warm-up as a share of all steps, where --num-warmup-steps is not given"},
    {.name = "shuffle",
     .kind = MZ_OPTION_SWITCH,
     .fallback = "on",
     .offset = AT(shuffle),
     .help = "draw samples in an order of their own each epoch"},
    {.name = "no-decay",
     .kind = MZ_OPTION_TEXT,
     .value = "NAMES",
     .fallback = "bias,LayerNorm.weight,layer_norm.weight",
     .offset = AT(no_decay),
     .help = "parameters whose names contain one of these have no weight decay"},
};
static const mz_option_group schedule_group = {"Schedule", schedule, N(schedule)};

static const mz_option saving[] = {
    {.name = "logging-steps",
     .kind = MZ_OPTION_INT64,
     .value = "N",
     .fallback = "10",
     .min = 1,
     .max = 9e18,
     .offset = AT(logging_steps),
     .help = "steps between lines of progress"},
    {.name = "eval-steps",
     .kind = MZ_OPTION_INT64,
     .value = "N",
     .fallback = "at the end",
     .min = 1,
     .max = 9e18,
     .offset = AT(eval_steps),
     .help = "steps between evaluations"},
    {.name = "save-steps",
     .kind = MZ_OPTION_INT64,
     .value = "N",
     .fallback = "500",
     .min = 0,
     .max = 9e18,
     .offset = AT(save_steps),
     .help = "steps between checkpoints; 0 saves at the end only"},
    {.name = "save-total-limit",
     .kind = MZ_OPTION_INT,
     .value = "N",
     .fallback = "all",
     .min = 1,
     .max = 1e9,
     .offset = AT(save_total_limit),
     .help = "keep the newest N checkpoints"},
    {.name = "save-async",
     .kind = MZ_OPTION_SWITCH,
     .fallback = "on",
     .offset = AT(save_async),
     .help = "write checkpoints while training goes on"},
    {.name = "save-weights",
     .kind = MZ_OPTION_SWITCH,
     .fallback = "on",
     .offset = AT(save_weights),
     .help = "write the Hugging Face folder OUTPUT/weights at the end"},
    {.name = "weights-dtype",
     .kind = MZ_OPTION_WORD,
     .value = "TYPE",
     .fallback = "the training type, bf16 for fp32",
     .words = "bf16|fp16|fp32",
     .offset = AT(weights_dtype),
     .help = "bf16, fp16 or fp32, of the weights folder"},
    {.name = "tensorboard",
     .kind = MZ_OPTION_SWITCH,
     .fallback = "on",
     .offset = AT(tensorboard),
     .help = "write event files to OUTPUT/tensorboard"},
    {.name = "quiet", .kind = MZ_OPTION_SWITCH, .fallback = "off", .offset = AT(quiet), .help = "show no progress"},
};
static const mz_option_group saving_group = {"Reporting and saving", saving, N(saving)};

static const mz_option output[] = {
    {.name = "json",
     .kind = MZ_OPTION_SWITCH,
     .fallback = "off",
     .offset = AT(json),
     .help = "print the result as a JSON object"},
};
static const mz_option_group output_group = {"Output", output, N(output)};

static const mz_option machine[] = {
    {.name = "device",
     .kind = MZ_OPTION_TEXT,
     .value = "NAME",
     .fallback = "the best there is",
     .offset = AT(device),
     .help = "where to compute: cpu or cuda"},
    {.name = "cpu-threads",
     .kind = MZ_OPTION_INT,
     .value = "N",
     .fallback = "cores / ranks of the node",
     .min = 1,
     .max = 4096,
     .offset = AT(cpu_threads),
     .help = "threads of a rank"},
};
static const mz_option_group machine_group = {"Machine", machine, N(machine)};

static const mz_command_group train_groups[] = {
    {&model_and_data_group, offsetof(train_target, options)},
    {&schedule_group, offsetof(train_target, options)},
    {&mz_group_training, offsetof(train_target, options.flags)},
    {&saving_group, offsetof(train_target, options)},
    {&machine_group, offsetof(train_target, options)},
    {&mz_group_launch, 0},
    {&mz_group_common, 0},
};

static const mz_command_group eval_groups[] = {
    {&model_and_data_group, offsetof(train_target, options)},
    {&mz_group_training, offsetof(train_target, options.flags)},
    {&output_group, offsetof(train_target, options)},
    {&machine_group, offsetof(train_target, options)},
    {&mz_group_launch, 0},
    {&mz_group_common, 0},
};

static void set_defaults(void *target)
{
    mz_train_options_default(&((train_target *)target)->options);
}

/* The options as the library takes them. */
static mz_train_options options_of(const train_target *target)
{
    mz_train_options options = target->options;
    options.flags.comm_timeout_seconds = target->common.timeout_seconds;
    return options;
}

static mz_status run_train(mz_world *world, const void *target)
{
    const mz_train_options options = options_of(target);
    return mz_train(world, &options);
}

static mz_status run_eval(mz_world *world, const void *target)
{
    const mz_train_options options = options_of(target);
    return mz_evaluate(world, &options);
}

const mz_command mz_command_train = {
    .name = "train",
    .operands = "",
    .summary = "train or fine-tune a model, save and resume",
    .description =
        "Trains the model of a Hugging Face folder on text, over all ranks of the job. Checkpoints, 16-bit weights "
        "and metrics go to the output folder. SIGUSR1 and SIGTERM save at the next step and end with code 75.",
    .groups = train_groups,
    .n_groups = N(train_groups),
    .target_bytes = sizeof(train_target),
    .set_defaults = set_defaults,
    .starts_mpi = true,
    .run = run_train,
};

const mz_command mz_command_eval = {
    .name = "eval",
    .operands = "",
    .summary = "loss and perplexity of a model on held-out text",
    .description =
        "Evaluates a weights folder, or a checkpoint given with --resume, on --validation-data or on the share of "
        "--train-data that --validation-split holds out.",
    .groups = eval_groups,
    .n_groups = N(eval_groups),
    .target_bytes = sizeof(train_target),
    .set_defaults = set_defaults,
    .starts_mpi = true,
    .run = run_eval,
};
