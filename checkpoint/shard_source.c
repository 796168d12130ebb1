#include "checkpoint/shard_source.h"

#include "core/memory.h"

static size_t room_of(const mz_shard *shard)
{
    const size_t page = 4096;
    return (mz_shard_bytes(shard, shard->count) + page - 1) / page * page;
}

size_t mz_shard_source_room(const mz_shard *shards, int64_t n_shards)
{
    size_t bytes = 0;
    for (int64_t i = 0; i < n_shards; i++)
        bytes += room_of(&shards[i]);
    return bytes;
}

mz_status mz_shard_source_init(mz_shard_source *source, const mz_shard *shards, int64_t n_shards, void *snapshot)
{
    uint8_t *next = snapshot;
    *source = (mz_shard_source){.shards = shards, .n_shards = n_shards, .settled = true};
    pthread_mutex_init(&source->lock, NULL);
    pthread_cond_init(&source->released, NULL);
    source->copies = mz_calloc((size_t)n_shards, sizeof *source->copies);
    source->taken = mz_calloc((size_t)n_shards, sizeof *source->taken);
    if (!source->copies || !source->taken)
        return MZ_ERR_MEMORY;
    for (int64_t i = 0; i < n_shards; i++) {
        source->copies[i] = next;
        next += room_of(&shards[i]);
    }
    return MZ_OK;
}

void mz_shard_source_free(mz_shard_source *source)
{
    if (!source->shards && !source->copies && !source->taken)
        return;
    mz_free(source->copies);
    mz_free(source->taken);
    pthread_cond_destroy(&source->released);
    pthread_mutex_destroy(&source->lock);
}

void mz_shard_source_begin(mz_shard_source *source, bool settled)
{
    pthread_mutex_lock(&source->lock);
    for (int64_t i = 0; i < source->n_shards; i++)
        source->taken[i] = 0;
    source->settled = settled;
    pthread_mutex_unlock(&source->lock);
}

void mz_shard_source_end(mz_shard_source *source)
{
    pthread_mutex_lock(&source->lock);
    source->settled = true;
    pthread_mutex_unlock(&source->lock);
}

/* Who settles goes first: training waits for nothing but the piece in hand. */
void mz_shard_source_hold(mz_shard_source *source)
{
    pthread_mutex_lock(&source->lock);
    while (source->settling)
        pthread_cond_wait(&source->released, &source->lock);
    source->held = true;
    pthread_mutex_unlock(&source->lock);
}

void mz_shard_source_release(mz_shard_source *source)
{
    pthread_mutex_lock(&source->lock);
    source->held = false;
    if (source->settling)
        pthread_cond_broadcast(&source->released);
    pthread_mutex_unlock(&source->lock);
}

static mz_status copy_rest(mz_shard_source *source, const mz_device_ops *ops, mz_stream *stream, size_t *copied)
{
    mz_status status = MZ_OK;
    for (int64_t i = 0; i < source->n_shards && !status; i++) {
        const mz_shard *shard = &source->shards[i];
        const size_t from = mz_shard_bytes(shard, source->taken[i]),
                     bytes = mz_shard_bytes(shard, shard->count) - from;
        if (bytes)
            status = ops->copy(stream, source->copies[i] + from, (const uint8_t *)shard->data + from, bytes);
        *copied += bytes;
    }
    return status ? status : ops->stream_sync(stream);
}

mz_status mz_shard_source_settle(mz_shard_source *source, mz_device *device, mz_stream *stream, size_t *copied)
{
    mz_status status = MZ_OK;
    *copied = 0;
    pthread_mutex_lock(&source->lock);
    if (!source->settled) {
        source->settling = true;
        while (source->held)
            pthread_cond_wait(&source->released, &source->lock);
        pthread_mutex_unlock(&source->lock); /* `settling` keeps the writer away */
        status = copy_rest(source, device->ops, stream, copied);
        pthread_mutex_lock(&source->lock);
        source->settled = true;
        source->settling = false;
        pthread_cond_broadcast(&source->released);
    }
    pthread_mutex_unlock(&source->lock);
    return status;
}
