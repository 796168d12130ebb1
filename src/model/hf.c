#include "model/hf.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/error.h"
#include "core/file.h"
#include "core/memory.h"
#include "model/model.h"

static const mz_model_family *const families[] = {&mz_family_gpt2};
enum { N_FAMILIES = sizeof families / sizeof families[0] };

static const mz_model_family *find_family(const char *model_type)
{
    for (int i = 0; model_type && i < N_FAMILIES; i++)
        if (strcmp(families[i]->model_type, model_type) == 0)
            return families[i];
    return NULL;
}

/* ---- values ---- */

mz_status mz_hf_fail(const mz_json *config, mz_status code, const char *key, const char *format, ...)
{
    char what[256];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    int line = mz_json_line(config, key);
    if (line > 0)
        return mz_fail(code, "%s:%d: key \"%s\": %s", config->name, line, key, what);
    return mz_fail(code, "%s: key \"%s\": %s", config->name, key, what);
}

/* NULL where the key is absent or null. */
static const json_t *get(const mz_json *config, const char *key)
{
    const json_t *value = json_object_get(config->root, key);
    return json_is_null(value) ? NULL : value;
}

/* The value as a word for messages. */
static const char *found(const json_t *value, char *text, size_t bytes)
{
    switch (json_typeof(value)) {
    case JSON_STRING:
        snprintf(text, bytes, "\"%.60s\"", json_string_value(value));
        break;
    case JSON_INTEGER:
        snprintf(text, bytes, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        break;
    case JSON_REAL:
        snprintf(text, bytes, "%g", json_real_value(value));
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        snprintf(text, bytes, "%s", json_is_true(value) ? "true" : "false");
        break;
    default:
        snprintf(text, bytes, "%s", json_is_array(value) ? "a list" : "an object");
        break;
    }
    return text;
}

mz_status mz_hf_int(const mz_json *config, const char *key, int64_t min, int64_t max, int64_t *value)
{
    const json_t *json = get(config, key);
    char text[80];
    if (!json)
        return MZ_OK;
    if (!json_is_integer(json) || json_integer_value(json) < min || json_integer_value(json) > max)
        return mz_hf_fail(config, MZ_ERR_MODEL, key,
                          "expected a whole number from %" PRId64 " to %" PRId64 ", found %s", min, max,
                          found(json, text, sizeof text));
    *value = json_integer_value(json);
    return MZ_OK;
}

mz_status mz_hf_float(const mz_json *config, const char *key, double min, double max, double *value)
{
    const json_t *json = get(config, key);
    char text[80];
    if (!json)
        return MZ_OK;
    if (!json_is_number(json) || !(json_number_value(json) >= min && json_number_value(json) <= max))
        return mz_hf_fail(config, MZ_ERR_MODEL, key, "expected a number from %g to %g, found %s", min, max,
                          found(json, text, sizeof text));
    *value = json_number_value(json);
    return MZ_OK;
}

mz_status mz_hf_bool(const mz_json *config, const char *key, bool *value)
{
    const json_t *json = get(config, key);
    char text[80];
    if (!json)
        return MZ_OK;
    if (!json_is_boolean(json))
        return mz_hf_fail(config, MZ_ERR_MODEL, key, "expected true or false, found %s",
                          found(json, text, sizeof text));
    *value = json_is_true(json);
    return MZ_OK;
}

mz_status mz_hf_bool_only(const mz_json *config, const char *key, bool only)
{
    bool value = only;
    mz_status status = mz_hf_bool(config, key, &value);
    if (status == MZ_OK && value != only)
        status = mz_hf_fail(config, MZ_ERR_UNSUPPORTED, key, "%s is not supported; only %s is",
                            value ? "true" : "false", only ? "true" : "false");
    return status;
}

mz_status mz_hf_string(const mz_json *config, const char *key, const char **value)
{
    const json_t *json = get(config, key);
    char text[80];
    if (!json)
        return MZ_OK;
    if (!json_is_string(json))
        return mz_hf_fail(config, MZ_ERR_MODEL, key, "expected a string, found %s", found(json, text, sizeof text));
    *value = json_string_value(json);
    return MZ_OK;
}

/* ---- models ---- */

static mz_status refuse_type(const mz_json *config, const char *model_type)
{
    char known[256] = "";
    for (int i = 0; i < N_FAMILIES; i++) {
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s\"%s\"", i ? ", " : "", families[i]->model_type);
    }
    if (!model_type)
        return mz_fail(MZ_ERR_MODEL, "%s: key \"model_type\" is missing; expected one of %s", config->name, known);
    return mz_hf_fail(config, MZ_ERR_UNSUPPORTED, "model_type", "expected one of %s, found \"%.60s\"", known,
                      model_type);
}

static mz_status build(const mz_json *config, mz_model **model)
{
    const char *model_type = NULL;
    if (!json_is_object(config->root))
        return mz_fail(MZ_ERR_MODEL, "%s: expected an object {...} at the top level", config->name);
    mz_status status = mz_hf_string(config, "model_type", &model_type);
    if (status != MZ_OK)
        return status;
    const mz_model_family *family = find_family(model_type);
    return family ? family->build(config, model) : refuse_type(config, model_type);
}

mz_status mz_model_from_config(const char *name, const char *config_json, mz_model **model)
{
    mz_json config = {0};
    mz_status status = mz_json_parse(name, config_json, strlen(config_json), &config);
    if (status != MZ_OK)
        return status;
    status = build(&config, model);
    mz_json_free(&config);
    return status;
}

mz_status mz_model_from_folder(const char *folder, mz_model **model)
{
    mz_json config = {0};
    char *path = mz_path_join(folder, "config.json");
    if (!path)
        return MZ_ERR_MEMORY;
    mz_status status = MZ_OK;
    if (!mz_path_exists(path))
        status = mz_fail(MZ_ERR_MODEL,
                         "%s: expected a Hugging Face model folder, but there is no config.json in it", folder);
    if (status == MZ_OK)
        status = mz_json_read(path, &config);
    mz_free(path);
    if (status != MZ_OK)
        return status;
    status = build(&config, model);
    mz_json_free(&config);
    return status;
}

/* ---- weights ---- */

int mz_model_weight_aliases(const mz_model *model, const char *name, const char *aliases[MZ_MAX_WEIGHT_ALIASES])
{
    const mz_model_family *family = find_family(model->info.family);
    return family ? family->weight_aliases(model, name, aliases) : 0;
}

bool mz_model_weight_ignored(const mz_model *model, const char *file_name)
{
    const mz_model_family *family = find_family(model->info.family);
    return family && family->weight_ignored(model, file_name);
}
