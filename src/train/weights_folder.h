/* A Hugging Face folder written by all ranks at once. */
#ifndef MZ_TRAIN_WEIGHTS_FOLDER_H
#define MZ_TRAIN_WEIGHTS_FOLDER_H

#include "checkpoint/safetensors.h"
#include "comm/comm.h"
#include "mpizero/model.h"
#include "zero/zero.h"

typedef struct mz_weights_folder {
    const char *folder;
    mz_dtype dtype;
    int64_t max_file_bytes;
    const char *tokenizer_folder; /* its tokenizer files are copied; NULL: none */
} mz_weights_folder;

/* Collective. Each rank converts and writes the parameter ranges it owns (shards of kind MZ_SHARD_PARAM) straight
 * into the files: no rank sees a tensor that it does not own. Then config.json and the tokenizer's files. */
mz_status mz_weights_folder_write(mz_world *world, mz_device *device, const mz_model *model, const mz_shard *shards,
                                  int64_t n_shards, const mz_weights_folder *target);

#endif
