#include "checkpoint/model_folder.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/file.h"
#include "core/memory.h"

static const char *const tokenizer_files[] = {
    "tokenizer.json",    "tokenizer_config.json",  "vocab.json",          "merges.txt", "special_tokens_map.json",
    "added_tokens.json", "generation_config.json", "chat_template.jinja", "spm.model",
};

/* As torch calls the types. */
static const char *const torch_names[MZ_N_DTYPES] = {
    [MZ_F32] = "float32", [MZ_F16] = "float16", [MZ_BF16] = "bfloat16"};

mz_status mz_model_folder_write_config(const char *folder, const char *config_json, mz_dtype dtype)
{
    json_error_t error;
    json_t *root = json_loads(config_json, 0, &error);
    if (!json_is_object(root)) {
        json_decref(root);
        return mz_fail(MZ_ERR_MODEL, "%s/config.json: the model's configuration is no JSON object", folder);
    }
    json_object_del(root, "dtype"); /* what newer transformers call it */
    json_object_set_new(root, "torch_dtype", json_string(torch_names[dtype]));
    char *text = json_dumps(root, JSON_INDENT(2) | JSON_SORT_KEYS), *path = mz_path_join(folder, "config.json");
    mz_status status = text && path ? mz_file_write_atomic(path, text, strlen(text))
                                    : mz_fail(MZ_ERR_MEMORY, "%s/config.json: no memory", folder);
    mz_free(path);
    free(text);
    json_decref(root);
    return status;
}

static mz_status copy_file(const char *from, const char *to)
{
    char *data;
    size_t bytes;
    mz_status status = mz_file_read(from, &data, &bytes);
    if (status)
        return status;
    status = mz_file_write_atomic(to, data, bytes);
    mz_free(data);
    return status;
}

mz_status mz_model_folder_copy_tokenizer(const char *from, const char *to)
{
    mz_status status = MZ_OK;
    for (size_t i = 0; i < sizeof tokenizer_files / sizeof *tokenizer_files && !status; i++) {
        char *source = mz_path_join(from, tokenizer_files[i]), *target = mz_path_join(to, tokenizer_files[i]);
        if (!source || !target)
            status = MZ_ERR_MEMORY;
        else if (mz_path_exists(source) && strcmp(source, target))
            status = copy_file(source, target);
        mz_free(source);
        mz_free(target);
    }
    return status;
}
