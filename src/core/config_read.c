/* From the file's tree to the struct, key by key as the table says. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/config_internal.h"
#include "core/error.h"

enum { PATH_MAX_BYTES = 256 };

/* Names of older DeepSpeed versions. */
static const struct {
    const char *old, *now;
    const char *when_true, *when_false; /* what a flag becomes; NULL: the value stays */
} renamed[] = {
    {"bfloat16", "bf16", NULL, NULL},
    {"zero_optimization.stage3_gather_fp16_weights_on_model_save",
     "zero_optimization.stage3_gather_16bit_weights_on_model_save", NULL, NULL},
    {"zero_optimization.cpu_offload", "zero_optimization.offload_optimizer.device", "cpu", "none"},
    {"zero_optimization.cpu_offload_param", "zero_optimization.offload_param.device", "cpu", "none"},
    {"zero_optimization.cpu_offload_params", "zero_optimization.offload_param.device", "cpu", "none"},
    {"zero_optimization.cpu_offload_use_pin_memory", "zero_optimization.offload_optimizer.pin_memory", NULL, NULL},
    {"aio.thread_count", "aio.intra_op_parallelism", NULL, NULL},
};
enum { N_RENAMED = sizeof renamed / sizeof renamed[0] };

const mz_config_entry *mz_config_entry_of(const mz_config_reader *reader, const char *path)
{
    return &reader->entries[mz_config_key_find(path)];
}

mz_key_state mz_config_state_of(const mz_config_reader *reader, const char *path)
{
    return mz_config_entry_of(reader, path)->state;
}

int mz_config_line_of(const mz_config_reader *reader, const char *path)
{
    return mz_config_entry_of(reader, path)->line;
}

/* The line of a key as the file has it. */
static int line_in_file(const mz_config_reader *reader, const char *path, const char **shown)
{
    const mz_config_source *source = &reader->source;
    if (!source->lines)
        return mz_json_line(&source->json, path);
    for (int i = 0; i < source->n_lines; i++) {
        if (strcmp(source->lines[i].path, path) == 0) {
            *shown = source->lines[i].shown;
            return source->lines[i].line;
        }
    }
    return 0;
}

/* True or false, also as a string; -1 when it is neither. */
static int truth_of(const json_t *value)
{
    if (json_is_boolean(value))
        return json_is_true(value);
    if (json_is_string(value) && strcasecmp(json_string_value(value), "true") == 0)
        return 1;
    if (json_is_string(value) && strcasecmp(json_string_value(value), "false") == 0)
        return 0;
    return -1;
}

bool mz_config_truth_of(const mz_config_reader *reader, const char *path, bool otherwise)
{
    const mz_config_entry *entry = mz_config_entry_of(reader, path);
    return entry->state == MZ_KEY_GIVEN ? truth_of(entry->value) == 1 : otherwise;
}

/* An integer also when written as 5e8. */
static bool integer_of(const json_t *value, int64_t *integer)
{
    if (json_is_integer(value)) {
        *integer = json_integer_value(value);
        return true;
    }
    if (!json_is_real(value))
        return false;
    double real = json_real_value(value);
    if (real != floor(real) || fabs(real) >= 9.2e18)
        return false;
    *integer = (int64_t)real;
    return true;
}

/* Checks the type and the range; stores where the key has a target. False when the value is wrong. */
static bool take_value(const mz_config_key *key, const json_t *value, mz_config *config)
{
    bool store = key->offset != MZ_KEY_NO_TARGET;
    void *target = store ? (char *)config + key->offset : NULL;
    int64_t integer;
    switch (key->type) {
    case MZ_KEY_BOOL:
        integer = truth_of(value);
        break;
    case MZ_KEY_INT:
        if (!integer_of(value, &integer) || (double)integer < key->min || (double)integer > key->max)
            return false;
        if (store)
            mz_config_store_int(key, config, integer);
        return true;
    case MZ_KEY_WORD:
        integer = json_is_string(value) ? mz_config_word_index(key->words, json_string_value(value)) : -1;
        break;
    case MZ_KEY_REAL:
        if (!json_is_number(value) || !isfinite(json_number_value(value)) || json_number_value(value) < key->min ||
            json_number_value(value) > key->max)
            return false;
        if (store)
            *(double *)target = json_number_value(value);
        return true;
    case MZ_KEY_TEXT:
        if (!json_is_string(value) || (store && strlen(json_string_value(value)) >= key->bytes))
            return false;
        if (store)
            snprintf(target, key->bytes, "%s", json_string_value(value));
        return true;
    case MZ_KEY_LIST:
        return json_is_array(value);
    case MZ_KEY_BLOCK:
        return json_is_object(value);
    default:
        return true;
    }
    if (integer < 0)
        return false;
    if (store)
        mz_config_store_int(key, config, integer);
    return true;
}

/* Whether a value of a key without effect is DeepSpeed's default, or switches its block off. */
static bool is_default(const mz_config_key *key, const json_t *value)
{
    switch (key->type) {
    case MZ_KEY_BOOL:
        return truth_of(value) == (strcmp(key->fallback, "true") == 0);
    case MZ_KEY_INT:
    case MZ_KEY_REAL:
        return strcmp(key->fallback, "null") != 0 && json_number_value(value) == strtod(key->fallback, NULL);
    case MZ_KEY_TEXT:
        return strcmp(json_string_value(value), key->fallback) == 0;
    case MZ_KEY_LIST:
        return json_array_size(value) == 0;
    default:
        if (json_is_object(value)) {
            const json_t *enabled = json_object_get(value, "enabled");
            return json_object_size(value) == 0 || (enabled && truth_of(enabled) == 0);
        }
        return json_is_false(value);
    }
}

static mz_status read_entry(mz_config_reader *reader, int index, const json_t *value, const char *file_path,
                            bool strict)
{
    const mz_config_key *key = &mz_config_keys[index];
    mz_config_entry *entry = &reader->entries[index];
    const char *shown = file_path;
    int line = line_in_file(reader, file_path, &shown);
    char found[128];
    if (entry->state != MZ_KEY_ABSENT)
        return mz_config_fail(reader, line, shown,
                              "expected one setting of %s, found a second one (the first is on line %d); "
                              "remove one of them",
                              key->path, entry->line);
    entry->line = line;
    if (json_is_null(value) && strcmp(key->fallback, "null") == 0)
        return MZ_OK;
    if (json_is_string(value) && strcmp(json_string_value(value), "auto") == 0) {
        if (key->use == MZ_KEY_HONOURED && key->note)
            entry->state = MZ_KEY_AUTO;
        else if (!strict) /* DeepSpeed's strict blocks drop "auto" and take the default */
            return mz_config_wrong_value(reader, key, value, line, shown);
        return MZ_OK;
    }
    if (!take_value(key, value, &reader->config))
        return mz_config_wrong_value(reader, key, value, line, shown);
    entry->state = MZ_KEY_GIVEN;
    entry->value = value;
    if (key->use == MZ_KEY_HONOURED || is_default(key, value))
        return MZ_OK;
    mz_config_describe_value(value, found, sizeof found);
    if (key->use == MZ_KEY_REFUSED) {
        const char *expected =
            key->type == MZ_KEY_OPEN || strcmp(key->fallback, "null") == 0 ? "no such key" : key->fallback;
        return mz_config_fail(reader, line, shown, "expected %s, found %s: %s", expected, found, key->note);
    }
    mz_config_warn(reader, line, shown, "%s is accepted and has no effect: %s", found, key->note);
    return MZ_OK;
}

/* The path of `name` in block `path` ("" at the top); false when it is too long to be a key. */
static bool join(const char *path, const char *name, char joined[PATH_MAX_BYTES])
{
    int n = snprintf(joined, PATH_MAX_BYTES, "%s%s%s", path, *path ? "." : "", name);
    return n >= 0 && n < PATH_MAX_BYTES;
}

static mz_status unknown_key(const mz_config_reader *reader, const char *path, const char *file_path, bool strict)
{
    const char *shown = file_path, *near = mz_config_key_nearest(path);
    int line = line_in_file(reader, file_path, &shown);
    char hint[160] = "";
    if (near)
        snprintf(hint, sizeof hint, "; did you mean \"%s\"?", near);
    if (strict)
        return mz_config_fail(reader, line, shown,
                              "expected a known key, found an unknown one%s Correct or remove it",
                              near ? hint : ".");
    mz_config_warn(reader, line, shown, "unknown key, ignored%s", hint);
    return MZ_OK;
}

/* Reads a block. `path` is its name in the table, `file_path` in the file; they differ for old names. */
static mz_status read_block(mz_config_reader *reader, const json_t *block, const char *path, const char *file_path,
                            bool strict)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)block, name, value)
    {
        char key_path[PATH_MAX_BYTES], in_file[PATH_MAX_BYTES];
        const json_t *taken = value;
        json_t *converted = NULL;
        if (!join(path, name, key_path) || !join(file_path, name, in_file))
            return mz_config_fail(reader, 0, file_path, "expected a known key, found one of %zu bytes; remove it",
                                  strlen(name));
        for (int i = 0; i < N_RENAMED; i++) {
            if (strcmp(key_path, renamed[i].old) != 0)
                continue;
            snprintf(key_path, sizeof key_path, "%s", renamed[i].now);
            const char *shown = in_file;
            int line = line_in_file(reader, in_file, &shown);
            mz_config_warn(reader, line, shown, "deprecated; use %s", renamed[i].now);
            int truth = truth_of(value);
            if (renamed[i].when_true && truth >= 0)
                taken = converted = json_string(truth ? renamed[i].when_true : renamed[i].when_false);
            break;
        }
        int index = mz_config_key_find(key_path);
        mz_status status;
        if (index < 0)
            status = unknown_key(reader, key_path, in_file, strict);
        else
            status = read_entry(reader, index, taken, in_file, strict);
        if (converted) {
            reader->entries[index].value = NULL;
            json_decref(converted);
        }
        if (status == MZ_OK && index >= 0 && mz_config_keys[index].type == MZ_KEY_BLOCK && json_is_object(taken))
            status = read_block(reader, taken, key_path, in_file, mz_config_keys[index].strict);
        if (status != MZ_OK)
            return status;
    }
    return MZ_OK;
}

/* "zero_optimization": true was once stage 1. */
static mz_status replace_zero_flag(mz_config_reader *reader)
{
    const json_t *zero = json_object_get(reader->source.json.root, "zero_optimization");
    int truth = zero ? truth_of(zero) : -1;
    if (truth < 0)
        return MZ_OK;
    const char *shown = "zero_optimization";
    int line = line_in_file(reader, shown, &shown);
    mz_config_warn(reader, line, shown, "true or false is deprecated; use {\"stage\": %d}", truth);
    json_t *block = json_pack("{s:i}", "stage", truth);
    if (!block || json_object_set_new(reader->source.json.root, "zero_optimization", block) != 0)
        return mz_fail(MZ_ERR_MEMORY, "no memory for the configuration");
    return MZ_OK;
}

mz_status mz_config_read_tree(mz_config_reader *reader)
{
    if (!json_is_object(reader->source.json.root))
        return mz_config_fail(reader, 1, "the file",
                              "expected an object in braces, found something else; see docs/CONFIG.md");
    mz_status status = replace_zero_flag(reader);
    return status == MZ_OK ? read_block(reader, reader->source.json.root, "", "", false) : status;
}
