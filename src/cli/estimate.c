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
    MZ_INT("ranks", "N", "1, or nodes x ranks of a node", 1, 1e6, AT(ranks), "data-parallel ranks"),
    MZ_INT("nodes", "N", "as many as the ranks fill", 1, 1e6, AT(nodes), "nodes, with equally many ranks each"),
    MZ_INT("ranks-per-node", "N", "all on one node; with --nodes alone 1", 1, 1e6, AT(ranks_per_node),
           "ranks of a node"),
    MZ_SWITCH("json", "off", AT(json), "print a JSON object"),
};
static const mz_option_group what_group = {"Model and cluster", what, N(what)};

/* No number given is 0; latencies are -1 then (set_defaults). */
static const mz_option rates[] = {
    MZ_TEXT(
        "rates", "FILES", NULL, AT(rates_paths),
        "what bench train --json and bench collectives --json printed, separated by commas; the flags below come "
        "before it"),
    MZ_DOUBLE("tokens-per-second", "X", NULL, 1e-3, 1e12, AT(tokens), "of one rank alone, in steps as asked for"),
    MZ_DOUBLE("tflops", "X", NULL, 1e-6, 1e9, AT(tflops),
              "or 10^12 FLOP/s of a rank in forward and backward passes, counted as bench train does"),
    MZ_DOUBLE("updates", "X", "any number", 1e-6, 1e9, AT(updates),
              "10^9 parameters per second that a rank's optimiser updates"),
    MZ_DOUBLE("inner-bandwidth", "GB/S", NULL, 1e-6, 1e9, AT(inner_gb),
              "bus bandwidth of collectives inside a node, 10^9 bytes per second"),
    MZ_DOUBLE("inner-latency", "US", "0", 0, 1e9, AT(inner_us), "microseconds of a small one"),
    MZ_DOUBLE("outer-bandwidth", "GB/S", NULL, 1e-6, 1e9, AT(outer_gb),
              "10^9 bytes per second that enter a node, over all its links"),
    MZ_DOUBLE("outer-latency", "US", "0", 0, 1e9, AT(outer_us), "microseconds of a small message between nodes"),
    MZ_DOUBLE("overlap-cost", "PART", "0", 0, 1, AT(overlap_cost),
              "how much longer compute takes beside communication: part of the time of what it hides"),
};
static const mz_option_group rates_group = {"Measured rates, for the time of a step", rates, N(rates)};

static const mz_command_group groups[] = {
    {&what_group, offsetof(estimate_target, options)},
    {&rates_group, offsetof(estimate_target, options)},
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
    .summary = "memory, communication and time of a step, without running",
    .description =
        "Plays a training step of a model under a configuration on a number of ranks, and prints what a rank would "
        "hold in memory and send per step. Nothing is allocated or trained. With rates of compute and of the links "
        "it "
        "also predicts the time of a step and the communication that compute does not hide.",
    .groups = groups,
    .n_groups = N(groups),
    .target_bytes = sizeof(estimate_target),
    .set_defaults = set_defaults,
    .run = run,
};
