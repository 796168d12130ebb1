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
    {.name = "model",
     .kind = MZ_OPTION_TEXT,
     .value = "DIR",
     .offset = AT(model),
     .required = true,
     .help = "Hugging Face folder with weights"},
    {.name = "tokenizer",
     .kind = MZ_OPTION_TEXT,
     .value = "DIR",
     .fallback = "the model's folder",
     .offset = AT(tokenizer),
     .help = "folder with tokenizer files, or \"byte\""},
    {.name = "prompt",
     .kind = MZ_OPTION_TEXT,
     .value = "TEXT",
     .fallback = "the end-of-text token",
     .offset = AT(prompt),
     .help = "what the text begins with"},
    {.name = "max-new-tokens",
     .kind = MZ_OPTION_INT64,
     .value = "N",
     .fallback = "100",
     .min = 1,
     .max = 1e9,
     .offset = AT(max_new_tokens),
     .help = "tokens to write at most"},
    {.name = "num-return-sequences",
     .kind = MZ_OPTION_INT64,
     .value = "N",
     .fallback = "1",
     .min = 1,
     .max = 65536,
     .offset = AT(num_return_sequences),
     .help = "texts to write"},
    {.name = "ignore-end",
     .kind = MZ_OPTION_SWITCH,
     .fallback = "off",
     .offset = AT(ignore_end),
     .help = "do not stop at the end-of-text token"},
    {.name = "json",
     .kind = MZ_OPTION_SWITCH,
     .fallback = "off",
     .offset = AT(json),
     .help = "print a JSON object"},
};
static const mz_option_group model_group = {"Model and text", model, N(model)};

static const mz_option sampling[] = {
    {.name = "temperature",
     .kind = MZ_OPTION_DOUBLE,
     .value = "T",
     .fallback = "1",
     .min = 0,
     .max = 1e6,
     .offset = AT(temperature),
     .help = "below 1 sharper, above 1 flatter; 0 takes the likeliest token"},
    {.name = "top-k",
     .kind = MZ_OPTION_INT64,
     .value = "K",
     .fallback = "all",
     .min = 0,
     .max = 1e9,
     .offset = AT(top_k),
     .help = "draw from the K likeliest tokens"},
    {.name = "top-p",
     .kind = MZ_OPTION_DOUBLE,
     .value = "P",
     .fallback = "1",
     .min = 0,
     .max = 1,
     .offset = AT(top_p),
     .help = "draw from the likeliest tokens that hold this share of the probability"},
};
static const mz_option_group sampling_group = {"Sampling", sampling, N(sampling)};

static const mz_option drawing[] = {
    {.name = "do-sample",
     .kind = MZ_OPTION_CHOICE,
     .fallback = "on with one of --temperature, --top-k and --top-p",
     .offset = offsetof(generate_target, do_sample),
     .help = "draw tokens; otherwise always the likeliest"},
    {.name = "seed",
     .kind = MZ_OPTION_INT64,
     .value = "N",
     .fallback = "42",
     .min = 0,
     .max = 9e18,
     .offset = offsetof(generate_target, seed),
     .help = "of the draws"},
};
static const mz_option_group drawing_group = {"Draws", drawing, N(drawing)};

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
     .fallback = "all cores",
     .min = 1,
     .max = 4096,
     .offset = AT(cpu_threads),
     .help = "threads to compute with"},
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
