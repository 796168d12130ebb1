/* Where a save reads the shards' values: in the shards themselves until somebody is about to change them, and from
 * then on in a copy of what was not written yet.
 *
 * Two threads share it. The writer holds the source while it reads, a piece at a time, and says how far it has
 * come. Whoever changes the shards settles it before: the copy begins when the writer lets go. */
#ifndef MZ_CHECKPOINT_SHARD_SOURCE_H
#define MZ_CHECKPOINT_SHARD_SOURCE_H

#include <pthread.h>

#include "device/device.h"
#include "zero/zero.h"

typedef struct mz_shard_source {
    const mz_shard *shards; /* borrowed, as the rest */
    int64_t n_shards;
    uint8_t **copies; /* of each shard's values, at the begin of a page; owned, what they point to is not */
    int64_t *taken;   /* elements of each shard that nobody reads again; the writer's, while it holds */

    pthread_mutex_t lock; /* over what follows */
    pthread_cond_t released;
    bool held, settling;
    bool settled; /* there is nothing left to copy; the values are in the copies */
} mz_shard_source;

/* Bytes for the copies of all shards: whole pages each, so that they can go to the disk past the system's cache. */
size_t mz_shard_source_room(const mz_shard *shards, int64_t n_shards);

/* snapshot: host memory for all copies, from a page's begin. MZ_ERR_MEMORY; free takes a failed one, and a zeroed
 * one too. */
mz_status mz_shard_source_init(mz_shard_source *source, const mz_shard *shards, int64_t n_shards, void *snapshot);
void mz_shard_source_free(mz_shard_source *source);

/* A save begins, by the thread that changes the shards. settled: the copies are made, or under way. */
void mz_shard_source_begin(mz_shard_source *source, bool settled);
/* Nothing is read any more. */
void mz_shard_source_end(mz_shard_source *source);

/* The writer's brackets around reading. */
void mz_shard_source_hold(mz_shard_source *source);
void mz_shard_source_release(mz_shard_source *source);
/* The values of shard i, as long as the source is held. */
static inline const uint8_t *mz_shard_source_values(const mz_shard_source *source, int64_t i)
{
    return source->settled ? source->copies[i] : source->shards[i].data;
}

/* Copies what is left, by a compute stream of the caller's; at once when nothing is. *copied: bytes. */
mz_status mz_shard_source_settle(mz_shard_source *source, mz_device *device, mz_stream *stream, size_t *copied);

#endif
