#include "cli/cli.h"
#include "train/train.h"

#define AT(field) offsetof(mz_estimate_options, field)
#define N(table)  ((int)(sizeof(table) / sizeof((table)[0])))

typedef struct estimate_target {
    mz_cli_common common;
    mz_estimate_options options;
} estimate_target;

static const mz_option what[] = {
    {.name = "model",
     .kind = MZ_OPTION_TEXT,
     .value = "DIR",
     .offset = AT(model),
     .required = true,
     .help = "Hugging Face folder or a config.json; weights are not needed"},
    {.name = "deepspeed",
     .alias = "config-file",
     .kind = MZ_OPTION_TEXT,
     .value = "FILE",
     .offset = AT(config_path),
     .help = "DeepSpeed JSON configuration, or Accelerate YAML"},
    {.name = "block-size",
     .kind = MZ_OPTION_INT64,
     .value = "N",
     .fallback = "the model's positions, 1024 at most",
     .min = 2,
     .max = 1e9,
     .offset = AT(block_size),
     .help = "tokens of a sequence"},
    {.name = "ranks",
     .kind = MZ_OPTION_INT,
     .value = "N",
     .fallback = "1",
     .min = 1,
     .max = 1e7,
     .offset = AT(ranks),
     .help = "data-parallel ranks"},
    {.name = "ranks-per-node",
     .kind = MZ_OPTION_INT,
     .value = "N",
     .fallback = "all on one node",
     .min = 1,
     .max = 1e6,
     .offset = AT(ranks_per_node),
     .help = "ranks of a node"},
    {.name = "json",
     .kind = MZ_OPTION_SWITCH,
     .fallback = "off",
     .offset = AT(json),
     .help = "print a JSON object"},
};
static const mz_option_group what_group = {"Model and cluster", what, N(what)};

static const mz_command_group groups[] = {
    {&what_group, offsetof(estimate_target, options)},
    {&mz_group_training, offsetof(estimate_target, options.flags)},
    {&mz_group_common, 0},
};

static void set_defaults(void *target)
{
    mz_estimate_options_default(&((estimate_target *)target)->options);
}

static mz_status run(mz_world *world, const void *target)
{
    (void)world;
    return mz_estimate(&((const estimate_target *)target)->options, stdout);
}

const mz_command mz_command_estimate = {
    .name = "estimate",
    .operands = "",
    .summary = "memory per rank and communication per step, without running",
    .description =
        "Plans a training step of a model under a configuration on a number of ranks, and prints what a rank would "
        "hold in memory and send per step. Nothing is allocated or trained.",
    .groups = groups,
    .n_groups = N(groups),
    .target_bytes = sizeof(estimate_target),
    .set_defaults = set_defaults,
    .run = run,
};
