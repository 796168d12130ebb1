/* Whole parameters again after the ranks have updated their slices: all segments in stages 1 and 2, the
 * persistent ones in stage 3. allgather_bucket_size bounds the elements of one collective. */
#include "zero/internal.h"

typedef struct bucket {
    int n; /* of z->updater.segments */
    int64_t elements;
    const char *label;
} bucket;

/* One all-gather, or a broadcast from each owner. The segments lie at rank 0's blocks. */
static mz_status send(mz_zero *z, bucket *b)
{
    mz_updater *u = &z->updater;
    size_t size = mz_dtype_size(z->dtype);
    bool broadcasts = !z->config.zero.allgather_partitions;
    mz_status status = MZ_OK;
    if (b->n == 0)
        return MZ_OK;
    z->counters.n_refreshes++;
    if (b->elements > z->counters.max_refresh_elements)
        z->counters.max_refresh_elements = b->elements;
    for (int root = 0; !status && broadcasts && root < z->shard_size; root++) {
        for (int i = 0; i < b->n; i++) {
            u->segments[i].recv =
                (uint8_t *)u->segments[i].recv + (root ? (size_t)u->segments[i].stride * size : 0);
            u->segments[i].send = u->segments[i].recv;
        }
        z->counters.n_broadcasts++;
        status = mz_broadcast(z->shard_comm, u->segments, b->n, z->dtype, root, b->label, z->transfer);
    }
    if (!broadcasts)
        status = mz_all_gather(z->shard_comm, u->segments, b->n, z->dtype, b->label, z->transfer);
    *b = (bucket){0};
    return status;
}

/* Segments lie in the order of units: one event for the units up to segment i, all of whose segments have been
 * sent. */
static mz_status mark_sent(mz_zero *z, int i)
{
    mz_updater *u = &z->updater;
    const mz_layout_segment *s = &z->layout->segments[i];
    bool last = i + 1 == z->layout->n_segments || z->layout->segments[i + 1].unit != s->unit;
    int end = s->unit + last;
    if (!z->overlap || u->n_marked >= end)
        return MZ_OK;
    for (; u->n_marked < end; u->n_marked++)
        u->mark[u->n_marked] = end - 1;
    return mz_zero_transfer_mark(z, u->refreshed[end - 1]);
}

/* The next forward pass starts with the first units, so these go first, in collectives no larger than the wire
 * needs. */
static mz_status send_all(mz_zero *z)
{
    size_t size = mz_dtype_size(z->dtype);
    int64_t row = z->config.zero.allgather_bucket_size / z->shard_size / MZ_LAYOUT_ALIGN * MZ_LAYOUT_ALIGN;
    int64_t most = row < MZ_LAYOUT_ALIGN ? MZ_LAYOUT_ALIGN : row; /* of each rank's slices in one collective */
    bucket b = {0};
    mz_status status = MZ_OK;
    z->updater.n_marked = z->updater.n_waited = 0;
    for (int i = 0; !status && i < z->layout->n_segments; i++) {
        const mz_zero_segment *s = &z->segments[i];
        int64_t slice = z->stage == 3 && !s->at.persistent ? 0 : s->at.slice;
        for (int64_t begin = 0, n; !status && begin < slice; begin += n) {
            if (b.elements == most * z->shard_size)
                status = send(z, &b);
            n = most - b.elements / z->shard_size < slice - begin ? most - b.elements / z->shard_size
                                                                  : slice - begin;
            if (b.n == 0)
                b.label = z->labels[s->at.unit];
            z->updater.segments[b.n++] = (mz_segment){
                .send = s->own + (size_t)begin * size,
                .recv = s->full + (size_t)begin * size,
                .count = n,
                .stride = slice,
            };
            b.elements += n * z->shard_size;
        }
        if (!status && (b.elements >= MZ_ZERO_BUCKET_ELEMENTS || i + 1 == z->layout->n_segments))
            status = send(z, &b);
        if (!status && b.n == 0)
            status = mark_sent(z, i);
    }
    return status;
}

mz_status mz_zero_refresh(mz_zero *z)
{
    mz_zero_fetch_stale(z);
    if (!mz_zero_talks(z) || z->stage == 0)
        return MZ_OK;
    mz_status status = mz_zero_transfer_begin(z, z->updater.ready);
    if (!status)
        status = mz_comm_publish(z->shard_comm, "updated parameters", z->transfer);
    if (!status)
        status = send_all(z);
    return status ? status : mz_zero_transfer_end(z, NULL);
}

/* Who has waited for one event has waited for those before it. */
mz_status mz_zero_refresh_wait(mz_zero *z, int unit)
{
    mz_updater *u = &z->updater;
    if (unit >= u->n_marked || u->mark[unit] < u->n_waited)
        return MZ_OK;
    u->n_waited = u->mark[unit] + 1;
    return mz_zero_wait(z, u->refreshed[u->mark[unit]]);
}

mz_status mz_zero_refresh_wait_all(mz_zero *z)
{
    return z->updater.n_marked ? mz_zero_refresh_wait(z, z->updater.n_marked - 1) : MZ_OK;
}
