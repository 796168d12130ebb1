#include "train/eval_loop.h"

#include <math.h>

#include "core/clock.h"
#include "train/engine_impl.h"

/* Block `index`, or a sample of which nothing counts where there is none. */
static void fill_sample(const mz_dataset *data, int64_t index, int32_t *ids, int32_t *labels)
{
    bool there = index < mz_dataset_n_blocks(data);
    int64_t n = mz_dataset_block_size(data);
    mz_dataset_block(data, there ? index : 0, ids, labels);
    for (int64_t t = 0; t < n && !there; t++)
        labels[t] = -100;
}

mz_status mz_eval_plan(mz_world *world, mz_engine *engine, const mz_setup *setup)
{
    mz_token_batch tokens;
    mz_status st = mz_token_batch_create(setup->eval_batch_size, setup->block_size, &tokens);
    st = mz_agree(world, st, "making the evaluation's batch");
    if (st == MZ_OK)
        st = mz_engine_plan_for(engine, &tokens.batch, false);
    mz_token_batch_free(&tokens);
    return st;
}

mz_status mz_eval_loop(mz_world *world, mz_engine *engine, const mz_setup *setup, mz_metrics *metrics)
{
    const mz_dataset *data = setup->validation;
    int64_t batch = setup->eval_batch_size, block = setup->block_size;
    int64_t per_round = batch * world->size, n_blocks = mz_dataset_n_blocks(data);
    double loss = 0, targets = 0, begin = mz_clock_seconds();
    mz_token_batch tokens;
    mz_status st = mz_token_batch_create(batch, block, &tokens);
    for (int64_t first = 0; first < n_blocks && st == MZ_OK; first += per_round) {
        for (int64_t i = 0; i < batch; i++)
            fill_sample(data, first + world->rank * batch + i, tokens.ids + i * block, tokens.labels + i * block);
        double sum = 0, n = 0;
        st = mz_engine_eval(engine, &tokens.batch, &sum, &n);
        loss += sum;
        targets += n;
    }
    mz_token_batch_free(&tokens);
    metrics->is_eval = true;
    metrics->eval_loss = targets > 0 ? loss / targets : 0;
    metrics->perplexity = exp(metrics->eval_loss);
    metrics->eval_seconds = mz_clock_seconds() - begin;
    return st;
}
