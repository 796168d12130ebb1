/* Logits and generation on an engine. */
#include "core/error.h"
#include "core/half.h"
#include "core/memory.h"
#include "train/engine_impl.h"

mz_status mz_engine_cache_create(mz_engine *engine, int64_t batch, int64_t capacity, mz_kv_cache **cache)
{
    const mz_model_info *info = mz_model_get_info(engine->model);
    if (info->layers <= 0 || info->heads <= 0)
        return mz_fail(MZ_ERR_UNSUPPORTED, "this model says nothing of its layers and heads: no cache can be made");
    return mz_kv_cache_create(engine->device, (int)info->layers, batch, capacity, info->heads * info->head_size,
                              engine->config.dtype, cache);
}

void mz_engine_cache_destroy(mz_kv_cache *cache)
{
    mz_kv_cache_destroy(cache);
}

/* Device logits of any float type to host fp32. */
static mz_status logits_to_host(mz_engine *engine, const mz_tensor *logits, float *out)
{
    mz_dtype dtype = mz_tensor_dtype(logits);
    int64_t n = mz_tensor_numel(logits);
    size_t bytes = (size_t)n * mz_dtype_size(dtype);
    void *host = mz_alloc(bytes);
    if (!host)
        return MZ_ERR_MEMORY;
    mz_status st = engine->device->ops->copy(engine->compute, host, mz_tensor_data(logits), bytes);
    if (st == MZ_OK)
        st = engine->device->ops->stream_sync(engine->compute);
    if (st == MZ_OK)
        mz_convert(out, MZ_F32, host, dtype, n);
    mz_free(host);
    return st;
}

mz_status mz_engine_logits(mz_engine *engine, const mz_batch *batch, mz_kv_cache *cache, bool last_position_only,
                           float *logits)
{
    mz_status st = mz_engine_check_idle(engine, "mz_engine_logits");
    if (st == MZ_OK)
        st = mz_engine_reserve_logits(engine, batch, last_position_only);
    if (st != MZ_OK)
        return st;
    const mz_step_scalars scalars = {.loss_weight = 1, .grad_weight = 1};
    mz_run run = {.goal = MZ_GOAL_LOGITS,
                  .last_position_only = last_position_only,
                  .cache = cache,
                  .position_offset = cache ? mz_kv_cache_length(cache) : 0};
    mz_tensor *result = NULL;
    st = mz_zero_begin_micro(engine->zero, false, false, false);
    if (st == MZ_OK)
        st = mz_engine_run_forward(engine, batch, &run, &scalars, &result);
    if (st == MZ_OK)
        st = logits_to_host(engine, result, logits);
    mz_tensor_release(result);
    if (st == MZ_OK)
        st = mz_zero_end_micro(engine->zero);
    return st;
}
