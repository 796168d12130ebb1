#include "checkpoint/tools.h"

#include <string.h>

#include "cli/cli.h"
#include "core/log.h"

#define N(table) ((int)(sizeof(table) / sizeof((table)[0])))

typedef struct consolidate_target {
    mz_cli_common common;
    const char *checkpoint, *output, *dtype, *tokenizer;
    int64_t max_shard_bytes;
} consolidate_target;

#define AT(field) offsetof(consolidate_target, field)

static const mz_option what[] = {
    MZ_NEEDED(NULL, "CHECKPOINT", AT(checkpoint), "a step's folder, a run's folder, or RUN/checkpoints/latest"),
    MZ_NEEDED("output-dir", "DIR", AT(output), "the Hugging Face folder to write"),
    MZ_WORD("weights-dtype", "TYPE", "bf16", "bf16|fp16|fp32", AT(dtype), "bf16, fp16 or fp32"),
    MZ_INT64("max-shard-bytes", "N", "5e9", 1, 9e18, AT(max_shard_bytes),
             "weights beyond this size are split into files with an index"),
    MZ_TEXT("tokenizer", "DIR", "none", AT(tokenizer), "folder whose tokenizer files are copied"),
};
static const mz_option_group what_group = {"What to write", what, N(what)};

static const mz_command_group groups[] = {{&what_group, 0}, {&mz_group_launch, 0}, {&mz_group_common, 0}};

static mz_dtype dtype_of(const char *name)
{
    if (name && strcmp(name, "fp32") == 0)
        return MZ_F32;
    return name && strcmp(name, "fp16") == 0 ? MZ_F16 : MZ_BF16;
}

static mz_status run(mz_world *world, const void *target)
{
    const consolidate_target *t = target;
    const mz_consolidate_options options = {
        .checkpoint = t->checkpoint,
        .output = t->output,
        .dtype = dtype_of(t->dtype),
        .max_file_bytes = t->max_shard_bytes,
        .tokenizer_folder = t->tokenizer,
    };
    mz_consolidate_facts facts;
    mz_status status = mz_consolidate(world, &options, &facts);
    if (status == MZ_OK && world->rank == 0)
        printf("%s: step %lld, %d tensors, %lld parameters, %.3f GB in %s\n", t->output, (long long)facts.step,
               facts.n_tensors, (long long)facts.n_parameters, (double)facts.bytes_written / 1e9,
               t->dtype ? t->dtype : "bf16");
    return status;
}

const mz_command mz_command_consolidate = {
    .name = "consolidate",
    .operands = "CHECKPOINT",
    .summary = "sharded checkpoint to a Hugging Face folder",
    .description =
        "Writes the weights of a sharded checkpoint as safetensors with the model's config.json. Tensors stream "
        "through a small buffer; any number of ranks may share the work.",
    .groups = groups,
    .n_groups = N(groups),
    .target_bytes = sizeof(consolidate_target),
    .starts_mpi = true,
    .run = run,
};
