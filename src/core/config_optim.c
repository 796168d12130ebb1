/* The optimizer and scheduler blocks: which type takes which parameters, and each type's own defaults. */
#include <string.h>

#include "core/config_internal.h"

#define OPT(name)   "optimizer.params." name
#define SCHED(name) "scheduler.params." name
#define OPTIMIZERS  "Adam|AdamW|SGD|Adagrad|Lion"
#define SCHEDULERS  "WarmupLR|WarmupDecayLR|WarmupCosineLR|OneCycle|LRRangeTest"

/* mz_optim_kind of kernels/kernels.h, which this layer does not include. */
enum { ADAMW = 0, ADAM_L2, SGD, ADAGRAD, LION };

const char *mz_config_optimizer_name(int kind)
{
    static const char *const names[] = {"AdamW", "Adam", "SGD", "Adagrad", "Lion"};
    return names[kind];
}

const char *mz_config_scheduler_name(mz_scheduler_kind kind)
{
    static const char *const names[] = {NULL,       "WarmupLR",   "WarmupDecayLR", "WarmupCosineLR",
                                        "OneCycle", "LRRangeTest"};
    return names[kind];
}

mz_status mz_config_check_params(const mz_config_reader *reader, const char *block, const char *type)
{
    size_t n = strlen(block);
    for (int i = 0; i < mz_config_n_keys; i++) {
        const mz_config_key *key = &mz_config_keys[i];
        if (strncmp(key->path, block, n) != 0 || key->path[n] != '.')
            continue;
        mz_key_state state = reader->entries[i].state;
        bool takes = !key->only || mz_config_word_in(key->only, type);
        if (state != MZ_KEY_ABSENT && !takes)
            return mz_config_fail(reader, reader->entries[i].line, key->path,
                                  "expected a parameter of %s, found one of %s; remove it or change the type", type,
                                  key->only);
        bool unset = mz_config_entry_of(reader, key->path)->state == MZ_KEY_ABSENT;
        if (strcmp(key->fallback, "required") == 0 && unset && takes)
            return mz_config_fail(reader, mz_config_line_of(reader, "scheduler.type"), key->path,
                                  "expected a value, because %s needs one, found none; add the key", type);
    }
    return MZ_OK;
}

/* One of the two betas: the file's, the flag's, or the Trainer's. */
static mz_status resolve_beta(const mz_config_reader *reader, int which, double flag, double otherwise,
                              double *beta)
{
    const mz_config_entry *entry = mz_config_entry_of(reader, OPT("betas"));
    const char *name = which == 0 ? "--adam-beta1" : "--adam-beta2";
    *beta = flag >= 0 ? flag : otherwise;
    if (entry->state == MZ_KEY_GIVEN) {
        const json_t *value = json_array_get(entry->value, (size_t)which);
        if (json_array_size(entry->value) != 2 || !json_is_number(value))
            return mz_config_fail(reader, entry->line, OPT("betas"),
                                  "expected two numbers, as in [0.9, 0.999], found "
                                  "something else; correct the list");
        *beta = json_number_value(value);
        if (flag >= 0 && flag != *beta)
            return mz_config_fail(
                reader, entry->line, OPT("betas"),
                "expected the value of %s, %g, found %g; make them equal, drop the flag, or set the key "
                "to \"auto\"",
                name, flag, *beta);
    }
    if (*beta < 0 || *beta >= 1)
        return mz_config_fail(reader, entry->line, OPT("betas"),
                              "expected numbers from 0 to below 1, found %g; correct %s", *beta,
                              entry->state == MZ_KEY_GIVEN ? "the list" : name);
    return MZ_OK;
}

/* What type and adam_w_mode come to. */
static mz_status resolve_kind(const mz_config_reader *reader, int *kind)
{
    const mz_config_entry *type = mz_config_entry_of(reader, "optimizer.type");
    *kind = ADAMW;
    if (mz_config_state_of(reader, "optimizer") == MZ_KEY_ABSENT)
        return MZ_OK;
    if (type->state != MZ_KEY_GIVEN)
        return mz_config_fail(reader, mz_config_line_of(reader, "optimizer"), "optimizer.type",
                              "expected Adam, AdamW, SGD, Adagrad or Lion, found none; add \"type\"");
    int index = mz_config_word_index(OPTIMIZERS, json_string_value(type->value));
    switch (index) {
    case 0:
        *kind = mz_config_truth_of(reader, OPT("adam_w_mode"), true) ? ADAMW : ADAM_L2;
        return MZ_OK;
    case 1:
        return MZ_OK;
    case 2:
    case 3:
    case 4:
        *kind = index;
        return MZ_OK;
    default:
        return mz_config_fail(
            reader, type->line, "optimizer.type",
            "expected Adam, AdamW, SGD, Adagrad or Lion, found \"%s\", which is not there; use one of "
            "these",
            json_string_value(type->value));
    }
}

mz_status mz_config_resolve_optimizer(mz_config_reader *reader)
{
    mz_optimizer_config *optimizer = &reader->config.optimizer;
    const mz_config_defaults *flags = reader->flags;
    const mz_config_entry *type = mz_config_entry_of(reader, "optimizer.type");
    mz_status status = resolve_kind(reader, &optimizer->kind);
    if (status == MZ_OK && type->state == MZ_KEY_GIVEN)
        status = mz_config_check_params(reader, "optimizer.params", mz_config_optimizer_name(optimizer->kind));
    if (status == MZ_OK)
        status = resolve_beta(reader, 0, flags->adam_beta1, 0.9, &optimizer->beta1);
    if (status == MZ_OK)
        status = resolve_beta(reader, 1, flags->adam_beta2, 0.999, &optimizer->beta2);
    if (status != MZ_OK)
        return status;
    if (mz_config_state_of(reader, OPT("lr")) == MZ_KEY_ABSENT && flags->learning_rate < 0) {
        if (type->state != MZ_KEY_GIVEN)
            optimizer->lr = 5e-5; /* the Trainer's, as there is no optimizer block */
        else if (optimizer->kind == ADAGRAD)
            optimizer->lr = 1e-2;
    }
    if (optimizer->kind == ADAGRAD && mz_config_state_of(reader, OPT("eps")) == MZ_KEY_ABSENT &&
        flags->adam_epsilon < 0)
        optimizer->eps = 1e-10;
    if (optimizer->nesterov && (optimizer->momentum <= 0 || optimizer->dampening != 0))
        return mz_config_fail(
            reader, mz_config_line_of(reader, OPT("nesterov")), OPT("nesterov"),
            "expected a momentum above 0 and no dampening with it, found momentum %g, dampening %g; change "
            "those or remove nesterov",
            optimizer->momentum, optimizer->dampening);
    return MZ_OK;
}

/* OneCycle moves beta1 against the learning rate, and DeepSpeed fixes beta2 at 0.99 while it does. */
static void resolve_cycle_momentum(mz_config_reader *reader)
{
    mz_config *config = &reader->config;
    const char *path = SCHED("cycle_momentum");
    int line = mz_config_line_of(reader, path);
    if (config->scheduler.kind != MZ_SCHED_ONE_CYCLE || !config->scheduler.cycle_momentum)
        return;
    if (config->optimizer.kind == SGD || config->optimizer.kind == ADAGRAD) {
        mz_config_warn(reader, line, path, "no effect: %s has no betas to move",
                       mz_config_optimizer_name(config->optimizer.kind));
        config->scheduler.cycle_momentum = false;
    } else if (config->optimizer.beta2 != 0.99) {
        mz_config_warn(reader, line, path,
                       "OneCycle with cycle_momentum sets beta2 to 0.99, as DeepSpeed does; it was %g",
                       config->optimizer.beta2);
        config->optimizer.beta2 = 0.99;
    }
}

mz_status mz_config_resolve_scheduler(mz_config_reader *reader)
{
    mz_scheduler_config *scheduler = &reader->config.scheduler;
    const mz_config_entry *type = mz_config_entry_of(reader, "scheduler.type");
    if (mz_config_state_of(reader, "scheduler") == MZ_KEY_ABSENT) {
        scheduler->kind = MZ_SCHED_CONSTANT;
        return MZ_OK;
    }
    if (type->state != MZ_KEY_GIVEN)
        return mz_config_fail(
            reader, mz_config_line_of(reader, "scheduler"), "scheduler.type",
            "expected WarmupLR, WarmupDecayLR, WarmupCosineLR, OneCycle or LRRangeTest, found none; add "
            "\"type\"");
    scheduler->kind = (mz_scheduler_kind)(mz_config_word_index(SCHEDULERS, json_string_value(type->value)) + 1);
    const char *name = mz_config_scheduler_name(scheduler->kind);
    mz_status status = mz_config_check_params(reader, "scheduler.params", name);
    if (status != MZ_OK)
        return status;
    if (scheduler->kind == MZ_SCHED_WARMUP_DECAY &&
        mz_config_state_of(reader, SCHED("warmup_max_lr")) == MZ_KEY_ABSENT)
        scheduler->warmup_max_lr = 1e-3;
    bool decays = scheduler->kind == MZ_SCHED_WARMUP_DECAY || scheduler->kind == MZ_SCHED_WARMUP_COSINE;
    if (decays && scheduler->total_num_steps > 0 && scheduler->total_num_steps < scheduler->warmup_num_steps)
        mz_config_warn(reader, mz_config_line_of(reader, SCHED("total_num_steps")), SCHED("total_num_steps"),
                       "%lld is less than warmup_num_steps, %lld: the rate never reaches its maximum",
                       (long long)scheduler->total_num_steps, (long long)scheduler->warmup_num_steps);
    resolve_cycle_momentum(reader);
    return MZ_OK;
}
