/* Model families by Hugging Face's model_type, and their config.json read with messages that name the key. */
#ifndef MZ_MODEL_HF_H
#define MZ_MODEL_HF_H

#include "core/json.h"
#include "model/weights.h"

typedef struct mz_model_family {
    const char *model_type;
    mz_status (*build)(const mz_json *config, mz_model **model);
    int (*weight_aliases)(const mz_model *model, const char *name, const char *aliases[MZ_MAX_WEIGHT_ALIASES]);
    bool (*weight_ignored)(const mz_model *model, const char *file_name);
} mz_model_family;

extern const mz_model_family mz_family_gpt2;

/* Values of the configuration's top level. A key that is absent or null leaves *value as it is, so that the caller
 * puts the default there. Errors: MZ_ERR_MODEL, with file, line, key, expected and found. */
mz_status mz_hf_int(const mz_json *config, const char *key, int64_t min, int64_t max, int64_t *value);
mz_status mz_hf_float(const mz_json *config, const char *key, double min, double max, double *value);
mz_status mz_hf_bool(const mz_json *config, const char *key, bool *value);
mz_status mz_hf_string(const mz_json *config, const char *key, const char **value); /* borrowed */
/* A key that another value than `only` makes a model that is not supported. */
mz_status mz_hf_bool_only(const mz_json *config, const char *key, bool only);
/* Such a failure: "FILE:LINE: key "KEY": WHAT". */
mz_status mz_hf_fail(const mz_json *config, mz_status code, const char *key, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#endif
