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
    MZ_NEEDED("model", "DIR", AT(model), "Hugging Face folder, with weights or without, or a config.json"),
    MZ_TEXT("tokenizer", "DIR", "the model's folder", AT(tokenizer), "folder with tokenizer files, or \"byte\""),
    MZ_TEXT("train-data", "FILE", NULL, AT(train_data), "plain text or .jsonl to train on"),
    MZ_TEXT("validation-data", "FILE", NULL, AT(validation_data), "plain text or .jsonl to evaluate on"),
    MZ_DOUBLE("validation-split", "FRACTION", "none", 0, 1, AT(validation_split),
              "share of the training blocks that is held out for evaluation"),
    MZ_TEXT("text-field", "NAME", "text", AT(text_field), "the field of .jsonl files that holds the text"),
    MZ_INT64("block-size", "N", "the model's positions, 1024 at most", 2, 1e9, AT(block_size),
             "tokens of a sequence"),
    MZ_TEXT_ALSO("deepspeed", "config-file", "FILE", NULL, AT(config_path),
                 "DeepSpeed JSON configuration, or Accelerate YAML"),
    MZ_INT64("per-device-eval-batch-size", "N", "as training", 1, 2147483647, AT(eval_batch_size),
             "samples of an evaluation batch, per rank"),
    MZ_TEXT_ALSO("resume", "resume-from-checkpoint", "CHECKPOINT", NULL, AT(resume),
                 "\"latest\", a run's folder or a step's folder; from any number of ranks and any stage"),
};
static const mz_option_group model_and_data_group = {"Model and data", model_and_data, N(model_and_data)};

static const mz_option schedule[] = {
    MZ_TEXT("output-dir", "DIR", "run", AT(output_dir), "where checkpoints, weights and metrics go"),
    MZ_DOUBLE("num-train-epochs", "N", "3", 0, 1e9, AT(num_train_epochs), "times over the training data"),
    MZ_INT64_ALSO("max-steps", "max-train-steps", "N", "by epochs", 1, 9e18, AT(max_steps),
                  "optimiser steps, instead of epochs"),
    MZ_WORD("lr-scheduler-type", "TYPE", "the file's, else constant", "constant|constant_with_warmup|linear|cosine",
            AT(scheduler), "constant, constant_with_warmup, linear or cosine"),
    MZ_DOUBLE("warmup-ratio", "SHARE", NULL, 0, 1, AT(warmup_ratio),
              "warm-up as a share of all steps, where --num-warmup-steps is not given"),
    MZ_SWITCH("shuffle", "on", AT(shuffle), "draw samples in an order of their own each epoch"),
    MZ_TEXT("no-decay", "NAMES", "bias,LayerNorm.weight,layer_norm.weight", AT(no_decay),
            "parameters whose names contain one of these have no weight decay"),
};
static const mz_option_group schedule_group = {"Schedule", schedule, N(schedule)};

static const mz_option saving[] = {
    MZ_INT64("logging-steps", "N", "10", 1, 9e18, AT(logging_steps), "steps between lines of progress"),
    MZ_INT64("eval-steps", "N", "at the end", 1, 9e18, AT(eval_steps), "steps between evaluations"),
    MZ_INT64("save-steps", "N", "500", 0, 9e18, AT(save_steps),
             "steps between checkpoints; 0 saves at the end only"),
    MZ_INT("save-total-limit", "N", "all", 1, 1e9, AT(save_total_limit), "keep the newest N checkpoints"),
    MZ_SWITCH("save-async", "on", AT(save_async), "write checkpoints while training goes on"),
    MZ_SWITCH("save-weights", "on", AT(save_weights), "write the Hugging Face folder OUTPUT/weights at the end"),
    MZ_WORD("weights-dtype", "TYPE", "the training type, bf16 for fp32", "bf16|fp16|fp32", AT(weights_dtype),
            "bf16, fp16 or fp32, of the weights folder"),
    MZ_SWITCH("tensorboard", "on", AT(tensorboard), "write event files to OUTPUT/tensorboard"),
    MZ_SWITCH("quiet", "off", AT(quiet), "show no progress"),
};
static const mz_option_group saving_group = {"Reporting and saving", saving, N(saving)};

static const mz_option output[] = {
    MZ_SWITCH("json", "off", AT(json), "print the result as a JSON object"),
};
static const mz_option_group output_group = {"Output", output, N(output)};

static const mz_option machine[] = {
    MZ_TEXT("device", "NAME", "the best there is", AT(device), "where to compute: cpu or cuda"),
    MZ_INT("cpu-threads", "N", "cores / ranks of the node", 1, 4096, AT(cpu_threads), "threads of a rank"),
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
