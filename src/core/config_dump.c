/* The resolved configuration as JSON: a configuration file that resolves to the same struct. */
#include <stdio.h>
#include <string.h>

#include "core/config_internal.h"

/* The block that holds `path`, made where it is missing. */
static json_t *block_of(json_t *root, const char *path, const char **name)
{
    json_t *block = root;
    char step[64];
    for (const char *dot; (dot = strchr(path, '.')) != NULL; path = dot + 1) {
        snprintf(step, sizeof step, "%.*s", (int)(dot - path), path);
        json_t *inner = json_object_get(block, step);
        if (!inner) {
            inner = json_object();
            if (json_object_set_new(block, step, inner) != 0)
                return NULL;
        }
        block = inner;
    }
    *name = path;
    return block;
}

bool mz_config_put(json_t *root, const char *path, json_t *value)
{
    const char *name;
    json_t *block = value ? block_of(root, path, &name) : NULL;
    if (!block) {
        json_decref(value);
        return false;
    }
    return json_object_set_new(block, name, value) == 0;
}

static json_t *word(const char *words, int64_t index)
{
    for (; index > 0; index--)
        words += strcspn(words, "|") + 1;
    return json_stringn(words, strcspn(words, "|"));
}

/* A target's value as the file would have it. */
static json_t *value_of(const mz_config_key *key, const mz_config *config)
{
    const void *source = (const char *)config + key->offset;
    bool nullable = strcmp(key->fallback, "null") == 0;
    switch (key->type) {
    case MZ_KEY_BOOL:
        return json_boolean(*(const bool *)source);
    case MZ_KEY_INT: {
        int64_t value = mz_config_fetch_int(key, config);
        return nullable && (double)value == key->none ? json_null() : json_integer(value);
    }
    case MZ_KEY_REAL: {
        double value = *(const double *)source;
        if (strcmp(key->path, "scheduler.params.warmup_max_lr") == 0 && value < 0)
            return json_string("auto"); /* null would be WarmupDecayLR's own default */
        return nullable && value == key->none ? json_null() : json_real(value);
    }
    case MZ_KEY_WORD:
        return word(key->words, mz_config_fetch_int(key, config));
    default:
        return nullable && *(const char *)source == '\0' ? json_null() : json_string(source);
    }
}

/* Whether the optimiser or scheduler of this configuration takes the key. */
static bool applies(const mz_config_key *key, const char *optimizer, const char *scheduler)
{
    if (strncmp(key->path, "scheduler.", 10) == 0 && !scheduler)
        return false;
    if (!key->only)
        return true;
    return mz_config_word_in(key->only, strncmp(key->path, "optimizer.", 10) == 0 ? optimizer : scheduler);
}

static json_t *to_tree(const mz_config *config)
{
    const char *optimizer = mz_config_optimizer_name(config->optimizer.kind);
    const char *scheduler = mz_config_scheduler_name(config->scheduler.kind);
    json_t *root = json_object();
    bool good = root && mz_config_put(root, "train_batch_size", json_integer(config->train_batch_size));
    for (int i = 0; i < mz_config_n_keys && good; i++) {
        const mz_config_key *key = &mz_config_keys[i];
        if (key->offset != MZ_KEY_NO_TARGET && applies(key, optimizer, scheduler))
            good = mz_config_put(root, key->path, value_of(key, config));
    }
    good = good && mz_config_put(root, "optimizer.type", json_string(optimizer));
    if (good && mz_config_word_in("Adam AdamW Lion", optimizer))
        good = mz_config_put(root, "optimizer.params.betas",
                             json_pack("[f, f]", config->optimizer.beta1, config->optimizer.beta2));
    if (good && strcmp(optimizer, "Adam") == 0)
        good = mz_config_put(root, "optimizer.params.adam_w_mode", json_false());
    if (good && scheduler)
        good = mz_config_put(root, "scheduler.type", json_string(scheduler));
    good = good && mz_config_put(root, "fp16.enabled", json_boolean(config->dtype == MZ_F16)) &&
           mz_config_put(root, "bf16.enabled", json_boolean(config->dtype == MZ_BF16)) &&
           mz_config_put(root, "zero_optimization.overlap_comm", json_boolean(config->zero.overlap_comm));
    if (!good) {
        json_decref(root);
        return NULL;
    }
    return root;
}

char *mz_config_to_json(const mz_config *config)
{
    json_t *root = to_tree(config);
    char *text = root ? json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(root);
    return text;
}
