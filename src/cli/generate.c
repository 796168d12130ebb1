#include "cli/cli.h"
#include "train/train.h"

#define AT(field) offsetof(mz_generate_options, field)
#define N(table)  ((int)(sizeof(table) / sizeof((table)[0])))

typedef struct generate_target {
    mz_cli_common common;
    mz_generate_options options;
    int64_t seed;
    int do_sample; /* -1: not given */
} generate_target;

static const mz_option model[] = {
    MZ_NEEDED("model", "DIR", AT(model), "Hugging Face folder with weights"),
    MZ_TEXT("tokenizer", "DIR", "the model's folder", AT(tokenizer), "folder with tokenizer files, or \"byte\""),
    MZ_TEXT("prompt", "TEXT", "the end-of-text token", AT(prompt), "what the text begins with"),
    MZ_INT64("max-new-tokens", "N", "100", 1, 1e9, AT(max_new_tokens), "tokens to write at most"),
    MZ_INT64("num-return-sequences", "N", "1", 1, 65536, AT(num_return_sequences), "texts to write"),
    MZ_SWITCH("ignore-end", "off", AT(ignore_end), "do not stop at the end-of-text token"),
    MZ_SWITCH("json", "off", AT(json), "print a JSON object"),
};
static const mz_option_group model_group = {"Model and text", model, N(model)};

static const mz_option sampling[] = {
    MZ_DOUBLE("temperature", "T", "1", 0, 1e6, AT(temperature),
              "below 1 sharper, above 1 flatter; 0 takes the likeliest token"),
    MZ_INT64("top-k", "K", "all", 0, 1e9, AT(top_k), "draw from the K likeliest tokens"),
    MZ_DOUBLE("top-p", "P", "1", 0, 1, AT(top_p),
              "draw from the likeliest tokens that hold this share of the probability"),
};
static const mz_option_group sampling_group = {"Sampling", sampling, N(sampling)};

static const mz_option drawing[] = {
    MZ_CHOICE("do-sample", "on with one of --temperature, --top-k and --top-p",
              offsetof(generate_target, do_sample), "draw tokens; otherwise always the likeliest"),
    MZ_INT64("seed", "N", "42", 0, 9e18, offsetof(generate_target, seed), "of the draws"),
};
static const mz_option_group drawing_group = {"Draws", drawing, N(drawing)};

static const mz_option machine[] = {
    MZ_TEXT("device", "NAME", "the best there is", AT(device), "where to compute: cpu or cuda"),
    MZ_INT("cpu-threads", "N", "all cores", 1, 4096, AT(cpu_threads), "threads to compute with"),
};
static const mz_option_group machine_group = {"Machine", machine, N(machine)};

static const mz_command_group groups[] = {
    {&model_group, offsetof(generate_target, options)},
    {&sampling_group, offsetof(generate_target, options)},
    {&drawing_group, 0},
    {&machine_group, offsetof(generate_target, options)},
    {&mz_group_common, 0},
};

static void set_defaults(void *target)
{
    generate_target *t = target;
    mz_generate_options_default(&t->options);
    t->seed = 42;
    t->do_sample = -1;
}

/* Sampling is meant when a setting of it was given, and greedy search otherwise. */
static mz_status run(mz_world *world, const void *target)
{
    const generate_target *t = target;
    mz_generate_options options = t->options;
    mz_generate_options defaults;
    mz_generate_options_default(&defaults);
    bool tuned = options.temperature != defaults.temperature || options.top_k != defaults.top_k ||
                 options.top_p != defaults.top_p;
    options.seed = (uint64_t)t->seed;
    options.do_sample = t->do_sample >= 0 ? t->do_sample > 0 : tuned;
    if (options.temperature == 0) {
        options.do_sample = false;
        options.temperature = 1;
    }
    return mz_generate(world, &options, stdout);
}

const mz_command mz_command_generate = {
    .name = "generate",
    .operands = "",
    .summary = "write text with a model",
    .description =
        "Continues a prompt with a model's weights, on one rank: greedily, or by sampling with temperature, top-k "
        "and top-p.",
    .groups = groups,
    .n_groups = N(groups),
    .target_bytes = sizeof(generate_target),
    .set_defaults = set_defaults,
    .starts_mpi = true,
    .run = run,
};
