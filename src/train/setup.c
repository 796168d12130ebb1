/* Opening what a run works on. */
#include "train/setup.h"

#include <math.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "checkpoint/safetensors.h"
#include "core/error.h"
#include "core/file.h"
#include "core/log.h"
#include "core/memory.h"

void mz_train_options_default(mz_train_options *options)
{
    *options = (mz_train_options){.shuffle = true,
                                  .num_train_epochs = 3,
                                  .save_steps = -1,
                                  .save_async = true,
                                  .save_weights = true,
                                  .tensorboard = true,
                                  .validation_split = -1};
    mz_config_defaults_init(&options->flags);
}

/* ---- model and tokenizer: each rank for itself ---- */

mz_status mz_setup_open_model(const char *path, bool *is_folder, mz_model **model)
{
    struct stat info;
    if (!path)
        return mz_fail(MZ_ERR_USAGE, "--model: missing; give a Hugging Face folder or a config.json");
    if (stat(path, &info) != 0)
        return mz_fail_errno(MZ_ERR_MODEL, "--model %s", path);
    *is_folder = S_ISDIR(info.st_mode);
    if (*is_folder)
        return mz_model_from_folder(path, model);
    char *text = NULL;
    size_t bytes = 0;
    mz_status st = mz_file_read(path, &text, &bytes);
    if (st == MZ_OK)
        st = mz_model_from_config(path, text, model);
    mz_free(text);
    return st;
}

static mz_status open_model(const mz_train_options *options, mz_setup *setup)
{
    bool is_folder;
    mz_status st = mz_setup_open_model(options->model, &is_folder, &setup->model);
    if (st != MZ_OK || !is_folder)
        return st;
    setup->has_weights = mz_weights_present(options->model);
    setup->model_folder = mz_strdup(options->model);
    return setup->model_folder ? MZ_OK : MZ_ERR_MEMORY;
}

static mz_status open_tokenizer(const mz_train_options *options, mz_setup *setup)
{
    const char *spec = options->tokenizer ? options->tokenizer : setup->model_folder;
    if (!spec)
        return mz_fail(MZ_ERR_USAGE,
                       "--tokenizer: missing; give \"byte\" or a folder with tokenizer files, since "
                       "--model %s is not a folder",
                       options->model);
    mz_status st = mz_tokenizer_open(spec, &setup->tokenizer);
    if (st != MZ_OK && !options->tokenizer) {
        char *reason = mz_strdup(mz_last_error());
        st = mz_fail(st, "%s. --tokenizer byte needs no files", reason ? reason : "no tokenizer");
        mz_free(reason);
    }
    return st;
}

static mz_status check_vocabulary(const mz_setup *setup)
{
    int64_t have = mz_model_get_info(setup->model)->vocab, need = mz_tokenizer_vocab(setup->tokenizer);
    if (have >= need)
        return MZ_OK;
    return mz_fail(MZ_ERR_MODEL,
                   "the tokenizer %s has %lld tokens, the model only %lld (vocab_size in config.json): they do not "
                   "belong together",
                   mz_tokenizer_name(setup->tokenizer), (long long)need, (long long)have);
}

static mz_status choose_block_size(const mz_train_options *options, mz_setup *setup)
{
    int64_t most = mz_model_get_info(setup->model)->max_positions;
    setup->block_size = options->block_size > 0 ? options->block_size : most < 1024 ? most : 1024;
    if (setup->block_size < 2 || setup->block_size > most)
        return mz_fail(MZ_ERR_USAGE, "--block-size %lld: expected 2 to the model's %lld positions",
                       (long long)setup->block_size, (long long)most);
    return MZ_OK;
}

static mz_status split_no_decay(const mz_train_options *options, mz_setup *setup)
{
    setup->no_decay_text =
        mz_strdup(options->no_decay ? options->no_decay : "bias,LayerNorm.weight,layer_norm.weight");
    if (!setup->no_decay_text)
        return MZ_ERR_MEMORY;
    const int most = sizeof setup->no_decay / sizeof *setup->no_decay;
    char *rest = NULL;
    for (char *word = strtok_r(setup->no_decay_text, ",", &rest); word; word = strtok_r(NULL, ",", &rest)) {
        if (setup->n_no_decay == most)
            return mz_fail(MZ_ERR_USAGE, "--no-decay: more than %d parts", most);
        setup->no_decay[setup->n_no_decay++] = word;
    }
    return MZ_OK;
}

/* ---- data: collective ---- */

static mz_status open_data(mz_world *world, const mz_train_options *options, bool evaluating, mz_setup *setup)
{
    int64_t vocab = mz_model_get_info(setup->model)->vocab;
    mz_dataset_options data = {.path = options->train_data,
                               .text_field = options->text_field,
                               .tokenizer = setup->tokenizer,
                               .block_size = setup->block_size,
                               .split_fraction = options->validation_split > 0 ? options->validation_split : 0};
    mz_status st = MZ_OK;
    bool split = options->validation_split > 0 && !options->validation_data;
    if (options->validation_split >= 1)
        return mz_fail(MZ_ERR_USAGE, "--validation-split %g: expected a fraction below 1",
                       options->validation_split);
    if (!options->train_data && (!evaluating || split || !options->validation_data))
        return mz_fail(MZ_ERR_USAGE, "%s: missing; give a text or .jsonl file",
                       evaluating && !split ? "--validation-data" : "--train-data");
    if (!split)
        data.split_fraction = 0;
    if (!evaluating)
        st = mz_dataset_open(world, &data, vocab, &setup->train);
    if (st == MZ_OK && split) {
        data.held_out = true;
        st = mz_dataset_open(world, &data, vocab, &setup->validation);
    } else if (st == MZ_OK && (options->validation_data || evaluating)) {
        data.path = options->validation_data ? options->validation_data : options->train_data;
        data.split_fraction = 0;
        st = mz_dataset_open(world, &data, vocab, &setup->validation);
    }
    return st;
}

/* ---- configuration ---- */

/* --lr-scheduler-type and warm-up flags, where the file names no scheduler. */
static mz_status schedule_from_flags(const mz_train_options *options, int64_t warmup, mz_setup *setup)
{
    mz_scheduler_config *s = &setup->config.scheduler;
    const char *kind = options->scheduler;
    if (s->kind != MZ_SCHED_CONSTANT) {
        if (kind)
            mz_log_root(MZ_LOG_WARN, "--lr-scheduler-type %s: not used, the configuration file has a scheduler",
                        kind);
        return MZ_OK;
    }
    if (!kind)
        kind = warmup > 0 ? "constant_with_warmup" : "constant";
    if (strcmp(kind, "constant") == 0)
        return MZ_OK;
    if (strcmp(kind, "constant_with_warmup") == 0)
        s->kind = MZ_SCHED_WARMUP;
    else if (strcmp(kind, "linear") == 0)
        s->kind = MZ_SCHED_WARMUP_DECAY;
    else if (strcmp(kind, "cosine") == 0)
        s->kind = MZ_SCHED_WARMUP_COSINE;
    else
        return mz_fail(MZ_ERR_USAGE,
                       "--lr-scheduler-type %s: expected constant, constant_with_warmup, linear or cosine", kind);
    s->warmup_min_lr = 0;
    s->warmup_max_lr = -1;
    s->warmup_num_steps = warmup > 0 ? warmup : 0;
    s->warmup_linear = true;
    s->total_num_steps = setup->max_steps;
    s->last_batch_iteration = 0; /* the first step is index 0, as in transformers */
    return MZ_OK;
}

/* Steps, epochs and warm-up depend on the batch size, which the file may set; so it is read twice. */
static mz_status load_config(const mz_world *world, const mz_train_options *options, mz_setup *setup)
{
    mz_config_defaults flags = options->flags;
    flags.hidden_size = mz_model_get_info(setup->model)->hidden;
    flags.total_steps = options->max_steps > 0 ? options->max_steps : -1; /* not known yet */
    mz_status st = mz_config_load(options->config_path, &flags, world->size, &setup->config);
    if (st != MZ_OK || !setup->train)
        return st;

    setup->sampler = (mz_sampler){.n_samples = mz_dataset_n_blocks(setup->train),
                                  .seed = setup->config.seed,
                                  .shuffle = options->shuffle,
                                  .drop_last = setup->config.dataloader_drop_last,
                                  .global_batch = setup->config.train_batch_size};
    setup->steps_per_epoch = mz_sampler_steps_per_epoch(&setup->sampler);
    if (setup->steps_per_epoch < 1)
        return mz_fail(MZ_ERR_DATA,
                       "%s: %lld blocks are fewer than one global batch of %lld: lower the batch size, or "
                       "unset dataloader_drop_last",
                       options->train_data, (long long)setup->sampler.n_samples,
                       (long long)setup->sampler.global_batch);
    setup->max_steps = options->max_steps > 0
                           ? options->max_steps
                           : (int64_t)ceil(options->num_train_epochs * (double)setup->steps_per_epoch);
    flags.total_steps = setup->max_steps;
    if (flags.warmup_steps < 0 && options->warmup_ratio > 0)
        flags.warmup_steps = (int64_t)ceil(options->warmup_ratio * (double)setup->max_steps);
    st = mz_config_load(options->config_path, &flags, world->size, &setup->config);
    if (st == MZ_OK)
        st = schedule_from_flags(options, flags.warmup_steps, setup);
    return st;
}

static mz_status choose_dtypes(const mz_train_options *options, mz_setup *setup)
{
    static const struct {
        const char *name;
        mz_dtype dtype;
    } names[] = {{"bf16", MZ_BF16}, {"fp16", MZ_F16}, {"fp32", MZ_F32}};
    setup->weights_dtype = setup->config.dtype == MZ_F32 ? MZ_BF16 : setup->config.dtype;
    setup->eval_batch_size =
        options->eval_batch_size > 0 ? options->eval_batch_size : setup->config.micro_batch_size;
    if (!options->weights_dtype)
        return MZ_OK;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(names[i].name, options->weights_dtype) == 0) {
            setup->weights_dtype = names[i].dtype;
            return MZ_OK;
        }
    return mz_fail(MZ_ERR_USAGE, "--weights-dtype %s: expected bf16, fp16 or fp32", options->weights_dtype);
}

/* Ranks that were started with unlike inputs: a wrong launch, which another go would not mend. */
static mz_status agree_same(mz_world *world, const char *text, const char *what)
{
    char reason[512];
    mz_status st = mz_agree_same(world, text, strlen(text), what);
    if (st != MZ_ERR_MISMATCH)
        return st;
    snprintf(reason, sizeof reason, "%s", mz_last_error());
    return mz_fail(MZ_ERR_LAUNCH, "%s: give all ranks the same options and files", reason);
}

mz_status mz_setup_open(mz_world *world, const mz_train_options *options, bool evaluating, mz_setup *setup)
{
    memset(setup, 0, sizeof *setup);
    mz_status st = open_model(options, setup);
    if (st == MZ_OK)
        st = open_tokenizer(options, setup);
    if (st == MZ_OK)
        st = check_vocabulary(setup);
    if (st == MZ_OK)
        st = choose_block_size(options, setup);
    if (st == MZ_OK)
        st = split_no_decay(options, setup);
    st = mz_agree(world, st, "opening the model");
    if (st == MZ_OK)
        st = open_data(world, options, evaluating, setup);
    st = mz_agree(world, st, "opening the data");
    if (st != MZ_OK)
        goto out;
    st = load_config(world, options, setup);
    if (st == MZ_OK)
        st = choose_dtypes(options, setup);
    st = mz_agree(world, st, "reading the configuration");
    if (st == MZ_OK) {
        char *text = mz_config_to_json(&setup->config);
        st = agree_same(world, text ? text : "", "the configuration");
        free(text);
    }
    if (st == MZ_OK) {
        const char *text = mz_model_get_info(setup->model)->config_json;
        st = agree_same(world, text, "the model's config.json");
    }
out:
    if (st != MZ_OK)
        mz_setup_close(setup);
    return st;
}

void mz_setup_close(mz_setup *setup)
{
    mz_dataset_close(setup->train);
    mz_dataset_close(setup->validation);
    mz_tokenizer_close(setup->tokenizer);
    mz_model_destroy(setup->model);
    mz_free(setup->model_folder);
    mz_free(setup->no_decay_text);
    memset(setup, 0, sizeof *setup);
}

mz_status mz_token_batch_create(int64_t samples, int64_t block_size, mz_token_batch *tokens)
{
    memset(tokens, 0, sizeof *tokens);
    tokens->ids = mz_calloc((size_t)(samples * block_size), sizeof *tokens->ids);
    tokens->labels = mz_calloc((size_t)(samples * block_size), sizeof *tokens->labels);
    if (!tokens->ids || !tokens->labels) {
        mz_token_batch_free(tokens);
        return MZ_ERR_MEMORY;
    }
    tokens->inputs[0] = (mz_host_input){
        .role = MZ_INPUT_IDS, .dtype = MZ_I32, .n_dims = 2, .shape = {samples, block_size}, .data = tokens->ids};
    tokens->inputs[1] = (mz_host_input){.role = MZ_INPUT_LABELS,
                                        .dtype = MZ_I32,
                                        .n_dims = 2,
                                        .shape = {samples, block_size},
                                        .data = tokens->labels};
    tokens->batch = (mz_batch){.inputs = tokens->inputs, .n_inputs = 2, .n_samples = samples};
    return MZ_OK;
}

void mz_token_batch_free(mz_token_batch *tokens)
{
    mz_free(tokens->ids);
    mz_free(tokens->labels);
    memset(tokens, 0, sizeof *tokens);
}
