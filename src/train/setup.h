/* What a run works on: model, tokenizer, data, configuration, sampler; opened and checked on all ranks. */
#ifndef MZ_TRAIN_SETUP_H
#define MZ_TRAIN_SETUP_H

#include "data/dataset.h"
#include "data/sampler.h"
#include "data/tokenizer.h"
#include "train/train.h"

typedef struct mz_setup {
    mz_model *model;
    char *model_folder; /* NULL when --model is a lone config.json */
    bool has_weights;
    mz_tokenizer *tokenizer;
    mz_dataset *train, *validation;
    mz_config config;
    mz_sampler sampler;
    int64_t block_size, max_steps, steps_per_epoch, eval_batch_size;
    mz_dtype weights_dtype;
    const char *no_decay[32];
    int n_no_decay;
    char *no_decay_text;
} mz_setup;

/* Collective. evaluating: training data and schedule are not needed. */
mz_status mz_setup_open(mz_world *world, const mz_train_options *options, bool evaluating, mz_setup *setup);
void mz_setup_close(mz_setup *setup);

/* Local. The model of a Hugging Face folder or of a lone config.json, owned by the caller. */
mz_status mz_setup_open_model(const char *path, bool *is_folder, mz_model **model);

/* One rank's micro-batches of token blocks. */
typedef struct mz_token_batch {
    int32_t *ids, *labels; /* [samples][block_size] */
    mz_host_input inputs[2];
    mz_batch batch;
} mz_token_batch;
mz_status mz_token_batch_create(int64_t samples, int64_t block_size, mz_token_batch *tokens);
void mz_token_batch_free(mz_token_batch *tokens);

#endif
