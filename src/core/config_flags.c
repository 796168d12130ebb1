/* The command line's values where the file says "auto" or nothing; an error where both say something and it
 * differs. */
#include <stdio.h>
#include <string.h>

#include "core/config_internal.h"
#include "core/error.h"

#define FLAG(field) offsetof(mz_config_defaults, field)

static const struct flag {
    const char *path, *name;
    size_t offset;
    bool real;
    bool warn_only; /* the file may differ */
} flags[] = {
    {"train_micro_batch_size_per_gpu", "--per-device-train-batch-size", FLAG(micro_batch_size), false, false},
    {"gradient_accumulation_steps", "--gradient-accumulation-steps", FLAG(gradient_accumulation_steps), false,
     false},
    {"gradient_clipping", "--max-grad-norm", FLAG(gradient_clipping), true, false},
    {"optimizer.params.lr", "--learning-rate", FLAG(learning_rate), true, false},
    {"optimizer.params.weight_decay", "--weight-decay", FLAG(weight_decay), true, false},
    {"optimizer.params.eps", "--adam-epsilon", FLAG(adam_epsilon), true, false},
    {"scheduler.params.warmup_num_steps", "--num-warmup-steps", FLAG(warmup_steps), false, false},
    {"scheduler.params.total_num_steps", "the run's steps", FLAG(total_steps), false, true},
    {"mpizero.seed", "--seed", FLAG(seed), false, false},
    {"mpizero.activation_memory", "--activation-memory", FLAG(activation_memory), true, false},
    {"mpizero.timeout_seconds", "--timeout", FLAG(comm_timeout_seconds), true, false},
};
enum { N_FLAGS = sizeof flags / sizeof flags[0] };

/* The flag's value as a number; negative: not given. zero_stage is an int and stands apart. */
static double flag_value(const mz_config_defaults *given, const struct flag *flag)
{
    const char *at = (const char *)given + flag->offset;
    return flag->real ? *(const double *)at : (double)*(const int64_t *)at;
}

static double file_value(const mz_config_key *key, const mz_config *config)
{
    if (key->type == MZ_KEY_REAL)
        return *(const double *)((const char *)config + key->offset);
    return (double)mz_config_fetch_int(key, config);
}

static void put(const mz_config_key *key, mz_config *config, double value)
{
    if (key->type == MZ_KEY_REAL)
        *(double *)((char *)config + key->offset) = value;
    else
        mz_config_store_int(key, config, (int64_t)value);
}

static mz_status out_of_range(const struct flag *flag, const mz_config_key *key, double value)
{
    return mz_fail(MZ_ERR_CONFIG, "%s: expected a number from %g to %g, found %g; correct the flag", flag->name,
                   key->min, key->max, value);
}

/* All contradictions in one message. */
static mz_status check_conflicts(const mz_config_reader *reader)
{
    char others[512] = "";
    size_t used = 0;
    const struct flag *first = NULL;
    for (int i = 0; i < N_FLAGS; i++) {
        const mz_config_key *key = &mz_config_keys[mz_config_key_find(flags[i].path)];
        double flag = flag_value(reader->flags, &flags[i]), file = file_value(key, &reader->config);
        if (flag < 0 || mz_config_state_of(reader, key->path) != MZ_KEY_GIVEN || flag == file)
            continue;
        if (flags[i].warn_only) {
            mz_config_warn(reader, mz_config_line_of(reader, key->path), key->path, "%g in the file, and %s are %g",
                           file, flags[i].name, flag);
        } else if (!first) {
            first = &flags[i];
        } else {
            int n = snprintf(others + used, sizeof others - used, "; likewise %s (line %d) is %g and %s %g",
                             key->path, mz_config_line_of(reader, key->path), file, flags[i].name, flag);
            used += n > 0 && used + (size_t)n < sizeof others ? (size_t)n : 0;
        }
    }
    if (!first)
        return MZ_OK;
    const mz_config_key *key = &mz_config_keys[mz_config_key_find(first->path)];
    return mz_config_fail(
        reader, mz_config_line_of(reader, key->path), key->path,
        "expected the value of %s, %g, found %g; make them equal, drop the flag, or set the key to "
        "\"auto\"%s",
        first->name, flag_value(reader->flags, first), file_value(key, &reader->config), others);
}

static mz_status resolve_stage(mz_config_reader *reader)
{
    const char *path = "zero_optimization.stage";
    mz_config *config = &reader->config;
    int flag = reader->flags->zero_stage;
    mz_key_state state = mz_config_state_of(reader, path);
    if (flag > 3)
        return mz_fail(MZ_ERR_CONFIG, "--zero-stage: expected 0, 1, 2 or 3, found %d; correct the flag", flag);
    if (state == MZ_KEY_GIVEN && flag >= 0 && flag != config->zero.stage)
        return mz_config_fail(
            reader, mz_config_line_of(reader, path), path,
            "expected the value of --zero-stage, %d, found %d; make them equal, drop the flag, or set "
            "the key to \"auto\"",
            flag, config->zero.stage);
    if (state == MZ_KEY_AUTO)
        config->zero.stage = 2;
    if (state != MZ_KEY_GIVEN && flag >= 0)
        config->zero.stage = flag;
    return MZ_OK;
}

mz_status mz_config_resolve_flags(mz_config_reader *reader)
{
    mz_config *config = &reader->config;
    for (int i = 0; i < N_FLAGS; i++) {
        const mz_config_key *key = &mz_config_keys[mz_config_key_find(flags[i].path)];
        double value = flag_value(reader->flags, &flags[i]);
        if (value >= 0 && (value < key->min || value > key->max))
            return out_of_range(&flags[i], key, value);
    }
    mz_status status = check_conflicts(reader);
    if (status != MZ_OK)
        return status;
    if (mz_config_state_of(reader, "scheduler.params.warmup_num_steps") == MZ_KEY_AUTO)
        config->scheduler.warmup_num_steps = 0;
    if (mz_config_state_of(reader, "optimizer.params.lr") == MZ_KEY_AUTO)
        config->optimizer.lr = 5e-5; /* the Trainer's */
    for (int i = 0; i < N_FLAGS; i++) {
        const mz_config_key *key = &mz_config_keys[mz_config_key_find(flags[i].path)];
        double value = flag_value(reader->flags, &flags[i]);
        if (value < 0 || mz_config_state_of(reader, key->path) == MZ_KEY_GIVEN)
            continue;
        put(key, config, value);
        if (strcmp(key->path, "mpizero.seed") == 0)
            config->seed = (uint64_t)reader->flags->seed; /* all 63 bits */
    }
    int wanted = reader->flags->gradient_checkpointing;
    if (wanted >= 0 && mz_config_state_of(reader, "mpizero.activation_checkpointing_every") != MZ_KEY_GIVEN)
        config->activation_checkpointing_every = wanted > 0;
    wanted = reader->flags->recompute_cheap;
    if (wanted >= 0 && mz_config_state_of(reader, "mpizero.recompute_cheap") != MZ_KEY_GIVEN)
        config->recompute_cheap = wanted > 0;
    wanted = reader->flags->tf32;
    if (wanted >= 0 && mz_config_state_of(reader, "mpizero.tf32") != MZ_KEY_GIVEN)
        config->tf32 = wanted > 0;
    wanted = reader->flags->stochastic_rounding;
    if (wanted >= 0 && mz_config_state_of(reader, "mpizero.stochastic_rounding") != MZ_KEY_GIVEN)
        config->stochastic_rounding = wanted > 0;
    return resolve_stage(reader);
}
