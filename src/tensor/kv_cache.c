#include "tensor/kv_cache.h"

#include <inttypes.h>

#include "core/error.h"
#include "core/memory.h"

static size_t layer_bytes(const mz_kv_cache *cache)
{
    return (size_t)(cache->batch * cache->capacity * cache->features) * mz_dtype_size(cache->dtype);
}

mz_status mz_kv_cache_create(mz_device *device, int layers, int64_t batch, int64_t capacity, int64_t features,
                             mz_dtype dtype, mz_kv_cache **out)
{
    if (layers < 1 || batch < 1 || capacity < 1 || features < 1)
        return mz_fail(MZ_ERR_ARGUMENT,
                       "key-value cache: expected positive sizes, found %d layers x [%" PRId64 ", %" PRId64
                       ", %" PRId64 "]",
                       layers, batch, capacity, features);
    mz_kv_cache *cache = mz_calloc(1, sizeof *cache);
    if (!cache)
        return MZ_ERR_MEMORY;
    cache->device = device;
    cache->layers = layers;
    cache->batch = batch;
    cache->capacity = capacity;
    cache->features = features;
    cache->dtype = dtype;
    size_t bytes = (size_t)layers * layer_bytes(cache);
    mz_status status = device->ops->alloc(device, bytes, &cache->keys);
    if (status == MZ_OK)
        status = device->ops->alloc(device, bytes, &cache->values);
    if (status != MZ_OK) {
        mz_kv_cache_destroy(cache);
        return status;
    }
    *out = cache;
    return MZ_OK;
}

void mz_kv_cache_destroy(mz_kv_cache *cache)
{
    if (!cache)
        return;
    if (cache->keys)
        cache->device->ops->free(cache->device, cache->keys);
    if (cache->values)
        cache->device->ops->free(cache->device, cache->values);
    mz_free(cache);
}

void mz_kv_cache_rewind(mz_kv_cache *cache, int64_t length)
{
    if (length < cache->length)
        cache->length = length < 0 ? 0 : length;
    cache->pending = 0;
}

int64_t mz_kv_cache_length(const mz_kv_cache *cache)
{
    return cache->length;
}

void *mz_kv_cache_keys(const mz_kv_cache *cache, int layer)
{
    return (char *)cache->keys + (size_t)layer * layer_bytes(cache);
}

void *mz_kv_cache_values(const mz_kv_cache *cache, int layer)
{
    return (char *)cache->values + (size_t)layer * layer_bytes(cache);
}

/* One token for every sample is one strided copy; more tokens lie together within a sample. */
static mz_status append_one(const mz_kv_cache *cache, mz_stream *stream, void *layer, const void *src, int64_t n,
                            int64_t row_stride)
{
    const mz_device_ops *ops = cache->device->ops;
    size_t size = mz_dtype_size(cache->dtype), row = (size_t)cache->features * size;
    size_t src_stride = (size_t)row_stride * size, sample_stride = (size_t)cache->capacity * row;
    char *dst = (char *)layer + (size_t)cache->length * row;
    if (n == 1)
        return ops->copy_2d(stream, dst, sample_stride, src, src_stride, row, (size_t)cache->batch);
    mz_status status = MZ_OK;
    for (int64_t b = 0; b < cache->batch && status == MZ_OK; b++)
        status = ops->copy_2d(stream, dst + (size_t)b * sample_stride, row,
                              (const char *)src + (size_t)(b * n) * src_stride, src_stride, row, (size_t)n);
    return status;
}

mz_status mz_kv_cache_append(mz_kv_cache *cache, mz_stream *stream, int layer, const void *k, const void *v,
                             int64_t n, int64_t row_stride)
{
    if (layer < 0 || layer >= cache->layers)
        return mz_fail(MZ_ERR_ARGUMENT, "key-value cache: layer %d of %d", layer, cache->layers);
    if (cache->length + n > cache->capacity)
        return mz_fail(MZ_ERR_ARGUMENT,
                       "key-value cache: %" PRId64 " positions do not fit: %" PRId64 " of %" PRId64 " are in use",
                       n, cache->length, cache->capacity);
    mz_status status = append_one(cache, stream, mz_kv_cache_keys(cache, layer), k, n, row_stride);
    if (status == MZ_OK)
        status = append_one(cache, stream, mz_kv_cache_values(cache, layer), v, n, row_stride);
    if (status == MZ_OK)
        cache->pending = n;
    return status;
}

void mz_kv_cache_commit(mz_kv_cache *cache)
{
    cache->length += cache->pending;
    cache->pending = 0;
}

void mz_kv_cache_drop(mz_kv_cache *cache)
{
    cache->pending = 0;
}
