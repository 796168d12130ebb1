/* Embedding tables. The gradient sums each row's lookups in the order of position: a counting sort on the device
 * gives the positions by row. Integer atomics only count, so their order changes nothing. */
#include "kernels/cuda/common.cuh"

enum { THREADS = 256, SCAN_THREADS = 1024, COLS = 32, SLICES = 8 };

/* Which row position i looks up: ids, or without them i % period + offset. Ids outside the table count as row 0. */
typedef struct lookups {
    const int32_t *ids;
    int64_t n_rows, period, offset;
} lookups;

__device__ __forceinline__ int64_t row_of(const lookups &l, int64_t i)
{
    const int64_t row = l.ids ? l.ids[i] : i % l.period + l.offset;
    return row >= 0 && row < l.n_rows ? row : 0;
}

template <typename T>
__global__ void embedding_kernel(int64_t n, int64_t cols, lookups tokens, const T *table,
                                 const int32_t *position_ids, int64_t period, int64_t offset, const T *positions,
                                 T *y)
{
    GRID_LOOP(e, n * cols)
    {
        const int64_t i = e / cols, c = e - i * cols;
        float value = to_float(table[row_of(tokens, i) * cols + c]);
        if (positions) {
            const int64_t position = position_ids ? position_ids[i] : i % period + offset;
            value += to_float(positions[position * cols + c]);
        }
        y[e] = from_float<T>(value);
    }
}

extern "C" mz_status mz_cuda_embedding(const mz_embedding_args *a, mz_stream *stream)
{
    mz_status status = mz_check_embedding(a);
    if (status || a->n == 0)
        return status;
    const lookups tokens = {a->ids, a->vocab, 0, 0};
    FOR_DTYPE(a->dtype, T,
              embedding_kernel<T><<<grid_for(stream, a->n * a->cols, THREADS), THREADS, 0, stream->stream>>>(
                  a->n, a->cols, tokens, (const T *)a->table, a->position_ids, a->period, a->position_offset,
                  (const T *)a->positions, (T *)a->y));
    return mz_cuda_launched("embedding");
}

/* ---- positions by row ---- */

/* In the stream's workspace. Row r's positions are order[begin[r]] .. order[begin[r + 1] - 1], ascending. */
typedef struct ordering {
    int32_t *begin;  /* [n_rows + 1] */
    int32_t *cursor; /* [n_rows] */
    int32_t *bag;    /* [n]: by row, in no order within it */
    int32_t *order;  /* [n] */
} ordering;

__global__ void count_kernel(int64_t n, lookups l, int32_t *counts)
{
    GRID_LOOP(i, n)
    atomicAdd(&counts[row_of(l, i)], 1);
}

/* begin = running sums of cursor's counts, and cursor becomes begin; one block. */
__global__ void scan_kernel(int64_t n, int32_t *cursor, int32_t *begin)
{
    __shared__ int32_t sums[SCAN_THREADS];
    const int64_t share = (n + SCAN_THREADS - 1) / SCAN_THREADS, first = threadIdx.x * share;
    const int64_t end = first + share < n ? first + share : n;
    int32_t sum = 0;
    for (int64_t r = first; r < end; r++)
        sum += cursor[r];
    sums[threadIdx.x] = sum;
    __syncthreads();
    for (int distance = 1; distance < SCAN_THREADS; distance *= 2) {
        const int32_t below = (int)threadIdx.x >= distance ? sums[threadIdx.x - distance] : 0;
        __syncthreads();
        sums[threadIdx.x] += below;
        __syncthreads();
    }
    int32_t at = sums[threadIdx.x] - sum;
    for (int64_t r = first; r < end; r++) {
        const int32_t count = cursor[r];
        begin[r] = cursor[r] = at;
        at += count;
    }
    if (threadIdx.x == SCAN_THREADS - 1)
        begin[n] = sums[threadIdx.x];
}

__global__ void scatter_kernel(int64_t n, lookups l, int32_t *cursor, int32_t *bag)
{
    GRID_LOOP(i, n)
    bag[atomicAdd(&cursor[row_of(l, i)], 1)] = (int32_t)i;
}

/* A position's place is the number of lesser ones in its row. */
__global__ void rank_kernel(int64_t n, lookups l, ordering o)
{
    GRID_LOOP(k, n)
    {
        const int32_t i = o.bag[k];
        const int64_t row = row_of(l, i);
        int32_t below = 0;
        for (int32_t j = o.begin[row]; j < o.begin[row + 1]; j++)
            below += o.bag[j] < i;
        o.order[o.begin[row] + below] = i;
    }
}

/* A block's row and 32 columns. Slice s takes every eighth position; the slices are added in their order. */
template <typename T, typename TG>
__global__ void gather_kernel(int64_t n_rows, int64_t cols, const int32_t *begin, const int32_t *order, const T *dy,
                              TG *out, bool accumulate)
{
    __shared__ float sums[SLICES][COLS + 1];
    const int64_t n_col_blocks = (cols + COLS - 1) / COLS;
    const int64_t row = blockIdx.x / n_col_blocks, c = blockIdx.x % n_col_blocks * COLS + threadIdx.x;
    const int32_t first = begin[row], end = begin[row + 1];
    if (first == end && accumulate)
        return;
    float sum = 0.0f;
    if (c < cols)
        for (int32_t j = first + (int32_t)threadIdx.y; j < end; j += SLICES)
            sum += to_float(dy[order[j] * cols + c]);
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y || c >= cols)
        return;
    for (int s = 1; s < SLICES; s++)
        sum += sums[s][threadIdx.x];
    put_sum(out + row * cols + c, sum, accumulate);
}

static mz_status order_positions(int64_t n, const lookups *l, ordering *o, mz_stream *stream)
{
    const size_t n_ints = (size_t)(2 * l->n_rows + 1 + 2 * n);
    mz_status status = need_workspace(stream, "embedding_grad", n_ints * sizeof(int32_t));
    if (status)
        return status;
    o->begin = (int32_t *)stream->workspace;
    o->cursor = o->begin + l->n_rows + 1;
    o->bag = o->cursor + l->n_rows;
    o->order = o->bag + n;
    status = mz_cuda_check(cudaMemsetAsync(o->cursor, 0, (size_t)l->n_rows * sizeof *o->cursor, stream->stream),
                           "cudaMemsetAsync");
    if (status)
        return status;
    const unsigned grid = grid_for(stream, n, THREADS);
    count_kernel<<<grid, THREADS, 0, stream->stream>>>(n, *l, o->cursor);
    scan_kernel<<<1, SCAN_THREADS, 0, stream->stream>>>(l->n_rows, o->cursor, o->begin);
    scatter_kernel<<<grid, THREADS, 0, stream->stream>>>(n, *l, o->cursor, o->bag);
    rank_kernel<<<grid, THREADS, 0, stream->stream>>>(n, *l, *o);
    return mz_cuda_launched("embedding_grad");
}

static mz_status sum_lookups(const mz_embedding_grad_args *a, const lookups *l, void *out, bool accumulate,
                             mz_stream *stream)
{
    ordering o;
    mz_status status = order_positions(a->n, l, &o, stream);
    if (status)
        return status;
    const unsigned grid = (unsigned)(l->n_rows * div_up(a->cols, COLS));
    const dim3 block(COLS, SLICES);
    FOR_DTYPE(a->dtype, T,
              FOR_DTYPE(a->dtype_grad, TG,
                        gather_kernel<T, TG><<<grid, block, 0, stream->stream>>>(
                            l->n_rows, a->cols, o.begin, o.order, (const T *)a->dy, (TG *)out, accumulate)));
    return mz_cuda_launched("embedding_grad");
}

extern "C" mz_status mz_cuda_embedding_grad(const mz_embedding_grad_args *a, mz_stream *stream)
{
    mz_status status = mz_check_embedding_grad(a);
    if (status || a->n == 0)
        return status;
    if (a->dtable) {
        const lookups tokens = {a->ids, a->vocab, 0, 0};
        status = sum_lookups(a, &tokens, a->dtable, a->accumulate_dtable, stream);
    }
    if (!status && a->dpositions) {
        const lookups positions = {a->position_ids, a->n_positions, a->period, a->position_offset};
        status = sum_lookups(a, &positions, a->dpositions, a->accumulate_dpositions, stream);
    }
    return status;
}
