/* mpizero eval: the loss of a model over a text. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "comm/conclude.h"
#include "core/error.h"
#include "core/memory.h"
#include "train/engine_impl.h"
#include "train/eval_loop.h"
#include "train/setup.h"
#include "train/train.h"

static mz_status load_model(mz_engine *engine, const mz_train_options *options, const mz_setup *setup)
{
    if (options->resume)
        return mz_engine_load(engine, options->resume, NULL);
    if (setup->has_weights)
        return mz_engine_load_weights(engine, setup->model_folder);
    return mz_fail(MZ_ERR_MODEL,
                   "--model %s: no weights there to evaluate; give a folder with model.safetensors, or a "
                   "checkpoint with --resume",
                   options->model);
}

static void print_result(const mz_setup *setup, const mz_metrics *m, const mz_engine *engine, bool json)
{
    int64_t tokens = mz_dataset_n_blocks(setup->validation) * setup->block_size;
    double rate = m->eval_seconds > 0 ? (double)tokens / m->eval_seconds : 0;
    if (!json) {
        printf("loss %.6f  perplexity %.4f  (%lld blocks of %lld tokens, %.1f s, %.0f tokens/s)\n", m->eval_loss,
               m->perplexity, (long long)mz_dataset_n_blocks(setup->validation), (long long)setup->block_size,
               m->eval_seconds, rate);
        return;
    }
    json_t *root = json_pack("{s:I, s:f, s:f, s:f, s:f, s:I, s:I}", "step", (json_int_t)mz_engine_steps(engine),
                             "eval_loss", m->eval_loss, "perplexity", m->perplexity, "eval_seconds",
                             m->eval_seconds, "tokens_per_second", rate, "tokens_seen", (json_int_t)tokens,
                             "memory_bytes", (json_int_t)mz_engine_memory_bytes(engine));
    char *text = root ? json_dumps(root, JSON_REAL_PRECISION(10)) : NULL;
    printf("%s\n", text ? text : "{}");
    free(text);
    json_decref(root);
}

mz_status mz_evaluate(mz_world *world, const mz_train_options *options)
{
    mz_setup setup;
    mz_engine *engine = NULL;
    mz_metrics metrics = {0};
    mz_status st = mz_setup_open(world, options, true, &setup);
    if (st != MZ_OK)
        return st;
    const mz_engine_options engine_options = {
        .device = options->device, .n_threads = options->cpu_threads, .inference = true};
    st = mz_engine_create(world, &setup.config, setup.model, &engine_options, &engine);
    if (st == MZ_OK)
        st = mz_agree(world, load_model(engine, options, &setup), "loading the model");
    if (st == MZ_OK)
        st = mz_eval_plan(world, engine, &setup);
    if (st == MZ_OK)
        st = mz_eval_loop(world, engine, &setup, &metrics);
    if (st == MZ_OK && world->rank == 0)
        print_result(&setup, &metrics, engine, options->json);
    mz_conclude_early(world, st);
    mz_engine_destroy(engine);
    mz_setup_close(&setup);
    return st;
}
