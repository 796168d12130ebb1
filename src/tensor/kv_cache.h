/* Generation's memory of the keys and values of earlier positions. */
#ifndef MZ_TENSOR_KV_CACHE_H
#define MZ_TENSOR_KV_CACHE_H

#include "device/device.h"
#include "mpizero/nn.h"

struct mz_kv_cache {
    mz_device *device; /* borrowed */
    int layers;
    int64_t batch, capacity, features;
    mz_dtype dtype;
    int64_t length;      /* positions that every layer holds */
    int64_t pending;     /* positions appended to the layers of the pass that is under way */
    void *keys, *values; /* device memory [layers][batch][capacity][features] */
};

/* layers x [batch, capacity, features], twice, taken from the device at once. */
mz_status mz_kv_cache_create(mz_device *device, int layers, int64_t batch, int64_t capacity, int64_t features,
                             mz_dtype dtype, mz_kv_cache **cache);
void mz_kv_cache_destroy(mz_kv_cache *cache);
void mz_kv_cache_rewind(mz_kv_cache *cache, int64_t length); /* forget what lies behind */
int64_t mz_kv_cache_length(const mz_kv_cache *cache);

/* One layer's keys and values; stream-ordered copies behind what the cache holds. k and v are rows of `features`
 * elements, row_stride elements apart, for n positions of each of the cache's samples. */
mz_status mz_kv_cache_append(mz_kv_cache *cache, mz_stream *stream, int layer, const void *k, const void *v,
                             int64_t n, int64_t row_stride);
void *mz_kv_cache_keys(const mz_kv_cache *cache, int layer);
void *mz_kv_cache_values(const mz_kv_cache *cache, int layer);
/* Ends a pass: what it appended now counts; drop forgets it (the pass failed). */
void mz_kv_cache_commit(mz_kv_cache *cache);
void mz_kv_cache_drop(mz_kv_cache *cache);

#endif
