#include "comm/all_reduce.h"

#include "comm/cursor.h"
#include "comm/sum.h"
#include "core/memory.h"

enum { MOST_BLOCK_BYTES = 16 << 10, LEAST_BLOCK_BYTES = 1 << 10, GATHERED_BYTES = 1 << 20 };

mz_status mz_all_reduce_plan_create(int rank, int size, mz_all_reduce_plan *plan)
{
    int64_t block = GATHERED_BYTES / size / 64 * 64;
    block = block > MOST_BLOCK_BYTES ? MOST_BLOCK_BYTES : block;
    *plan = (mz_all_reduce_plan){
        .rank = rank, .size = size, .block_bytes = block < LEAST_BLOCK_BYTES ? LEAST_BLOCK_BYTES : block};
    plan->gathered = mz_alloc_aligned((size_t)size * (size_t)plan->block_bytes);
    plan->sources = mz_calloc((size_t)size, sizeof *plan->sources);
    return plan->gathered && plan->sources ? MZ_OK : MZ_ERR_MEMORY;
}

void mz_all_reduce_plan_free(mz_all_reduce_plan *plan)
{
    mz_free(plan->gathered);
    mz_free(plan->sources);
    *plan = (mz_all_reduce_plan){0};
}

/* The parts that every rank reduces one of: the first size * (count / size) elements of each segment. */
static mz_status reduce_even(mz_hier *hier, const mz_all_reduce_plan *plan, const mz_op_info *op,
                             const mz_segment *segments, int n, mz_dtype dtype, float scale, mz_segment *parts)
{
    size_t element = mz_dtype_size(dtype);
    for (int i = 0; i < n; i++) {
        int64_t count = segments[i].count / plan->size;
        char *own = (char *)segments[i].recv + (size_t)(count * plan->rank) * element;
        parts[i] = (mz_segment){segments[i].send, own, count, count};
    }
    mz_status status = mz_hier_reduce_scatter(hier, op, parts, n, dtype, dtype, scale, false);
    for (int i = 0; i < n; i++) {
        parts[i].send = parts[i].recv;
        parts[i].recv = segments[i].recv;
    }
    return status ? status : mz_hier_all_gather(hier, op, parts, n, dtype);
}

/* As many elements of `rest` as the plan's blocks hold at a time. parts: room for n. */
static mz_status reduce_rest(mz_hier *hier, const mz_all_reduce_plan *plan, const mz_op_info *op,
                             const mz_segment *rest, int n, mz_dtype dtype, float scale, mz_segment *parts)
{
    size_t element = mz_dtype_size(dtype);
    int64_t room = plan->block_bytes / (int64_t)element, filled;
    mz_cursor cursor = {rest, n, 0, 0};
    mz_piece piece;
    for (;;) {
        mz_cursor begin = cursor;
        int n_parts = 0;
        for (filled = 0; mz_cursor_next(&cursor, room - filled, &piece); filled += piece.count)
            parts[n_parts++] = (mz_segment){.send = mz_piece_send(&piece, 0, element),
                                            .recv = plan->gathered + (size_t)filled * element,
                                            .count = piece.count,
                                            .stride = room};
        if (!n_parts)
            return MZ_OK;
        mz_status status = mz_hier_all_gather(hier, op, parts, n_parts, dtype);
        if (status)
            return status;
        for (filled = 0; mz_cursor_next(&begin, room - filled, &piece); filled += piece.count) {
            for (int r = 0; r < plan->size; r++)
                plan->sources[r] = plan->gathered + (size_t)(r * room + filled) * element;
            mz_comm_sum(mz_piece_recv(&piece, 0, element), dtype, plan->sources, plan->size, dtype, piece.count,
                        scale, false);
        }
    }
}

mz_status mz_hier_all_reduce(mz_hier *hier, const mz_all_reduce_plan *plan, const mz_op_info *op,
                             const mz_segment *segments, int n, mz_dtype dtype, float scale, mz_segment *work)
{
    size_t element = mz_dtype_size(dtype);
    int64_t total = mz_segments_count(segments, n);
    if (!total)
        return mz_hier_barrier(hier, op); /* without elements all still meet */
    bool is_small = total * (int64_t)element <= plan->block_bytes;
    mz_status status = MZ_OK;
    if (!is_small)
        status = reduce_even(hier, plan, op, segments, n, dtype, scale, work);
    for (int i = 0; i < n; i++) {
        int64_t done = is_small ? 0 : segments[i].count - segments[i].count % plan->size;
        work[i] = (mz_segment){.send = (const char *)segments[i].send + (size_t)done * element,
                               .recv = (char *)segments[i].recv + (size_t)done * element,
                               .count = segments[i].count - done};
    }
    return status ? status : reduce_rest(hier, plan, op, work, n, dtype, scale, work + n);
}
