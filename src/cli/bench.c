/* bench train: training speed on synthetic tokens. */
#include "train/bench.h"

#include "cli/cli.h"

#define AT(field) offsetof(mz_bench_options, field)
#define N(table)  ((int)(sizeof(table) / sizeof((table)[0])))

typedef struct bench_target {
    mz_cli_common common;
    mz_bench_options options;
} bench_target;

static const mz_option what[] = {
    MZ_NEEDED("model", "DIR", AT(model), "Hugging Face folder or a config.json; weights are not read"),
    MZ_TEXT_ALSO("deepspeed", "config-file", "FILE", NULL, AT(config_path),
                 "DeepSpeed JSON configuration, or Accelerate YAML"),
    MZ_INT64("block-size", "N", "the model's positions, 1024 at most", 2, 1e9, AT(block_size),
             "tokens of a sequence"),
    MZ_INT64("steps", "N", "20", 1, 1e6, AT(steps), "optimiser steps that are timed"),
    MZ_INT64("warmup", "N", "5", 0, 1e6, AT(warmup), "optimiser steps before them"),
    MZ_TEXT("device", "NAME", "the best there is", AT(device), "where to compute: cpu or cuda"),
    MZ_INT("cpu-threads", "N", "cores / ranks of the node", 1, 4096, AT(cpu_threads), "threads of a rank"),
    MZ_SWITCH("json", "off", AT(json), "print a JSON object"),
};
static const mz_option_group what_group = {"Model and measurement", what, N(what)};

static const mz_command_group groups[] = {
    {&what_group, offsetof(bench_target, options)},
    {&mz_group_training, offsetof(bench_target, options.flags)},
    {&mz_group_launch, 0},
    {&mz_group_common, 0},
};

static void set_defaults(void *target)
{
    mz_bench_options_default(&((bench_target *)target)->options);
}

static mz_status run(mz_world *world, const void *target)
{
    const bench_target *t = target;
    mz_bench_options options = t->options;
    options.flags.comm_timeout_seconds = t->common.timeout_seconds;
    return mz_bench_train(world, &options, stdout);
}

const mz_command mz_command_bench_train = {
    .name = "bench train",
    .operands = "",
    .summary = "training speed on synthetic tokens, and where the time goes",
    .description =
        "Trains the model from its initialisation on random tokens, without data or checkpoints, and prints "
        "tokens/s "
        "(median and spread of the timed steps), the share of the machine's peak (MFU), memory, the communication "
        "that "
        "compute did not hide, and a profile of one more step by kernel family and by unit. The model's work per "
        "token "
        "is counted as in the appendix of PaLM (Chowdhery et al. 2022): 6 N + 12 L H Q T FLOP for N parameters, L "
        "layers, H heads of size Q and T tokens. The peak is that of a large matrix product in the training type, "
        "measured here (8192 x 8192 x 8192 on a GPU), and the data sheet's where the device is known.",
    .groups = groups,
    .n_groups = N(groups),
    .target_bytes = sizeof(bench_target),
    .set_defaults = set_defaults,
    .starts_mpi = true,
    .run = run,
};
