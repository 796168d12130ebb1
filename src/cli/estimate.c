#include "cli/cli.h"
#include "train/train.h"

#define AT(field) offsetof(mz_estimate_options, field)
#define N(table)  ((int)(sizeof(table) / sizeof((table)[0])))

typedef struct estimate_target {
    mz_cli_common common;
    mz_estimate_options options;
} estimate_target;

static const mz_option what[] = {
    MZ_NEEDED("model", "DIR", AT(model), "Hugging Face folder or a config.json; weights are not needed"),
    MZ_TEXT_ALSO("deepspeed", "config-file", "FILE", NULL, AT(config_path),
                 "DeepSpeed JSON configuration, or Accelerate YAML"),
    MZ_INT64("block-size", "N", "the model's positions, 1024 at most", 2, 1e9, AT(block_size),
             "tokens of a sequence"),
    MZ_INT("ranks", "N", "1", 1, 1e7, AT(ranks), "data-parallel ranks"),
    MZ_INT("ranks-per-node", "N", "all on one node", 1, 1e6, AT(ranks_per_node), "ranks of a node"),
    MZ_SWITCH("json", "off", AT(json), "print a JSON object"),
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
