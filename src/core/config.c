/* Loading a configuration: read, then resolve. */
#include <string.h>
#include <strings.h>

#include "core/config_internal.h"
#include "core/error.h"
#include "core/file.h"
#include "core/memory.h"

void mz_config_defaults_init(mz_config_defaults *defaults)
{
    *defaults = (mz_config_defaults){
        .micro_batch_size = -1,
        .gradient_accumulation_steps = -1,
        .learning_rate = -1,
        .weight_decay = -1,
        .adam_beta1 = -1,
        .adam_beta2 = -1,
        .adam_epsilon = -1,
        .gradient_clipping = -1,
        .warmup_steps = -1,
        .total_steps = -1,
        .mixed_precision = NULL,
        .hidden_size = -1,
        .zero_stage = -1,
        .seed = -1,
        .gradient_checkpointing = -1,
        .recompute_cheap = -1,
        .stochastic_rounding = -1,
        .tf32 = -1,
        .activation_memory = -1,
        .comm_timeout_seconds = -1,
    };
}

/* DeepSpeed also takes its configuration as base64 text. */
static bool looks_like_base64(const char *path)
{
    size_t n = strlen(path);
    return n >= 24 && strspn(path, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=_-") == n;
}

mz_status mz_config_source_open(const char *path, mz_config_source *source)
{
    const char *dot = strrchr(path, '.');
    *source = (mz_config_source){0};
    if (!mz_path_exists(path) && looks_like_base64(path))
        return mz_fail(MZ_ERR_CONFIG,
                       "configuration: expected a file's name, found what may be base64 text, which is not "
                       "read; write it to a file and give its name");
    if (dot && (strcasecmp(dot, ".yaml") == 0 || strcasecmp(dot, ".yml") == 0))
        return mz_config_yaml_open(path, source);
    return mz_json_read(path, &source->json);
}

void mz_config_source_close(mz_config_source *source)
{
    mz_json_free(&source->json);
    for (int i = 0; i < source->n_lines; i++) {
        mz_free(source->lines[i].path);
        mz_free(source->lines[i].shown);
    }
    mz_free(source->lines);
    mz_free(source->mixed_precision);
    *source = (mz_config_source){0};
}

static mz_status resolve(mz_config_reader *reader)
{
    mz_status (*const steps[])(mz_config_reader *) = {
        mz_config_resolve_flags, mz_config_resolve_precision, mz_config_resolve_batch,
        mz_config_resolve_zero,  mz_config_resolve_optimizer, mz_config_resolve_scheduler,
    };
    mz_status status = MZ_OK;
    for (size_t i = 0; i < sizeof steps / sizeof steps[0] && status == MZ_OK; i++)
        status = steps[i](reader);
    return status;
}

mz_status mz_config_load(const char *path, const mz_config_defaults *defaults, int world_size, mz_config *config)
{
    mz_config_reader reader = {.has_file = path != NULL, .flags = defaults, .world_size = world_size};
    mz_status status = MZ_OK;
    if (world_size < 1)
        return mz_fail(MZ_ERR_ARGUMENT, "mz_config_load: expected at least 1 rank, found %d", world_size);
    mz_config_set_defaults(&reader.config);
    reader.entries = mz_calloc((size_t)mz_config_n_keys, sizeof *reader.entries);
    if (!reader.entries)
        return MZ_ERR_MEMORY;
    if (path) {
        status = mz_config_source_open(path, &reader.source);
        if (status == MZ_OK)
            status = mz_config_read_tree(&reader);
    }
    if (status == MZ_OK)
        status = resolve(&reader);
    if (status == MZ_OK)
        *config = reader.config;
    mz_config_source_close(&reader.source);
    mz_free(reader.entries);
    return status;
}
