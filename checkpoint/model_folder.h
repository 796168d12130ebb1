/* The files of a Hugging Face folder beside the weights. */
#ifndef MZ_CHECKPOINT_MODEL_FOLDER_H
#define MZ_CHECKPOINT_MODEL_FOLDER_H

#include "mpizero/dtype.h"
#include "mpizero/status.h"

/* Writes FOLDER/config.json: the given one, with the dtype of the weights in it. */
mz_status mz_model_folder_write_config(const char *folder, const char *config_json, mz_dtype dtype);
/* Copies the tokenizer's files and generation_config.json, those that are there. */
mz_status mz_model_folder_copy_tokenizer(const char *from, const char *to);

#endif
