/* Embedding tables. The gradient of a table's row is the sum of its lookups in the order of position, so the
 * positions are put in order of their rows first. Integer atomics only count and fill lists whose order changes
 * nothing. */
#include "kernels/cuda/common.cuh"

enum { THREADS = 256, WARPS = THREADS / 32, FEW = 32, MOST_TABLE_BLOCKS = 1024 };

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

/* A warp to a row of y. */
template <int N, typename T>
__global__ void __launch_bounds__(THREADS)
    embedding_kernel(int64_t n, int64_t cols, lookups tokens, const T *table, const int32_t *position_ids,
                     int64_t period, int64_t offset, const T *positions, T *y)
{
    typedef pack<T, N> vector;
    const int64_t i = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
    if (i >= n)
        return;
    const vector *token = (const vector *)(table + row_of(tokens, i) * cols), *place = nullptr;
    if (positions)
        place = (const vector *)(positions + (position_ids ? position_ids[i] : i % period + offset) * cols);
    vector *out = (vector *)(y + i * cols);
#pragma unroll 4
    for (int64_t c = threadIdx.x % 32; c < cols / N; c += 32) {
        vector v = token[c];
        if (place) {
            const vector p = place[c];
#pragma unroll
            for (int j = 0; j < N; j++)
                v.at[j] = from_float<T>(to_float(v.at[j]) + to_float(p.at[j]));
        }
        out[c] = v;
    }
}

extern "C" mz_status mz_cuda_embedding(const mz_embedding_args *a, mz_stream *stream)
{
    mz_status status = mz_check_embedding(a);
    if (status || a->n == 0)
        return status;
    const lookups tokens = {a->ids, a->vocab, 0, 0};
    const unsigned grid = blocks_for(a->n, WARPS);
    const bool aligned = is_aligned(a->table, 16) && is_aligned(a->positions, 16) && is_aligned(a->y, 16);
    FOR_DTYPE(
        a->dtype, T,
        if (aligned && a->cols % lanes<T>() == 0) embedding_kernel<lanes<T>(), T>
        <<<grid, THREADS, 0, stream->stream>>>(a->n, a->cols, tokens, (const T *)a->table, a->position_ids,
                                               a->period, a->position_offset, (const T *)a->positions, (T *)a->y);
        else embedding_kernel<1, T>
        <<<grid, THREADS, 0, stream->stream>>>(a->n, a->cols, tokens, (const T *)a->table, a->position_ids,
                                               a->period, a->position_offset, (const T *)a->positions, (T *)a->y));
    return mz_cuda_launched("embedding");
}

/* ---- positions by row ---- */

/* In the stream's workspace. Row r's positions are order[begin[r]] .. order[begin[r + 1] - 1], ascending for the
 * rows of `many`, those with more than FEW; in no order for the others. */
typedef struct ordering {
    int32_t *begin;       /* [n_rows + 1] */
    int32_t *cursor;      /* [n_rows]: first the counts */
    int32_t *n_many;      /* [1], behind cursor */
    int32_t *many;        /* [n / FEW] */
    int32_t *sums;        /* [MOST_TABLE_BLOCKS]: counts of each part of the table */
    int32_t *order;       /* [n] */
    int64_t n_rows, part; /* rows of a part */
} ordering;

__global__ void count_kernel(int64_t n, lookups l, int32_t *counts)
{
    GRID_LOOP(i, n)
    atomicAdd(&counts[row_of(l, i)], 1);
}

/* A block adds up the counts of its part of the table. */
__global__ void part_sums_kernel(ordering o)
{
    const int64_t first = blockIdx.x * o.part, end = first + o.part < o.n_rows ? first + o.part : o.n_rows;
    int32_t sum = 0;
    for (int64_t r = first + threadIdx.x; r < end; r += THREADS)
        sum += o.cursor[r];
    sum = block_sum(sum);
    if (threadIdx.x == 0)
        o.sums[blockIdx.x] = sum;
}

/* The running sum up to and with this thread's x over the block; *total over all of it. */
__device__ int32_t running_sum(int32_t x, int32_t *total)
{
    __shared__ int32_t ends[WARPS];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (int distance = 1; distance < 32; distance *= 2) {
        const int32_t below = __shfl_up_sync(0xffffffffu, x, distance);
        x += lane >= distance ? below : 0;
    }
    __syncthreads(); /* the previous call's readers are through */
    if (lane == 31)
        ends[warp] = x;
    __syncthreads();
    *total = 0;
    for (int w = 0; w < WARPS; w++) {
        x += w < warp ? ends[w] : 0;
        *total += ends[w];
    }
    return x;
}

/* begin and cursor of a part's rows from the counts, and the list of rows with many positions. */
__global__ void begins_kernel(ordering o)
{
    const int64_t first = blockIdx.x * o.part, end = first + o.part < o.n_rows ? first + o.part : o.n_rows;
    int32_t before = 0, total;
    for (int b = threadIdx.x; b < (int)blockIdx.x; b += THREADS)
        before += o.sums[b];
    before = block_sum(before);
    for (int64_t base = first; base < end; base += THREADS) {
        const int64_t r = base + threadIdx.x;
        const int32_t count = r < end ? o.cursor[r] : 0;
        const int32_t behind = before + running_sum(count, &total);
        if (r < end) {
            o.begin[r] = o.cursor[r] = behind - count;
            if (count > FEW)
                o.many[atomicAdd(o.n_many, 1)] = (int32_t)r;
            if (r == o.n_rows - 1)
                o.begin[r + 1] = behind;
        }
        before += total;
    }
}

/* Each position goes to some place of its row. */
__global__ void scatter_kernel(int64_t n, lookups l, ordering o)
{
    GRID_LOOP(i, n)
    o.order[atomicAdd(&o.cursor[row_of(l, i)], 1)] = (int32_t)i;
}

/* Rows with many positions: a block goes through all positions, EACH to a thread, and lists its row's, ascending.
 */
__global__ void order_many_kernel(int64_t n, lookups l, ordering o)
{
    enum { EACH = 8 };
    for (int k = blockIdx.x; k < *o.n_many; k += gridDim.x) {
        const int32_t row = o.many[k];
        int32_t *at = o.order + o.begin[row];
        for (int64_t base = 0; base < n; base += THREADS * EACH) {
            const int64_t first = base + threadIdx.x * EACH;
            uint32_t mine = 0;
            int32_t total;
#pragma unroll
            for (int j = 0; j < EACH; j++)
                if (first + j < n && row_of(l, first + j) == row)
                    mine |= 1u << j;
            const int32_t count = __popc(mine);
            int32_t *place = at + running_sum(count, &total) - count;
            for (; mine; mine &= mine - 1)
                *place++ = (int32_t)(first + __ffs((int)mine) - 1);
            at += total;
        }
    }
}

static mz_status order_positions(int64_t n, const lookups *l, ordering *o, mz_stream *stream)
{
    const int64_t n_many = n / FEW + 1;
    const size_t n_ints = (size_t)(2 * l->n_rows + 2 + n_many + MOST_TABLE_BLOCKS + n);
    mz_status status = need_workspace(stream, "embedding_grad", n_ints * sizeof(int32_t));
    if (status)
        return status;
    o->begin = (int32_t *)stream->workspace;
    o->cursor = o->begin + l->n_rows + 1;
    o->n_many = o->cursor + l->n_rows;
    o->many = o->n_many + 1;
    o->sums = o->many + n_many;
    o->order = o->sums + MOST_TABLE_BLOCKS;
    o->n_rows = l->n_rows;
    o->part = div_up(div_up(l->n_rows, MOST_TABLE_BLOCKS), THREADS) * THREADS;
    status =
        mz_cuda_check(cudaMemsetAsync(o->cursor, 0, (size_t)(l->n_rows + 1) * sizeof *o->cursor, stream->stream),
                      "cudaMemsetAsync");
    if (status)
        return status;
    const unsigned grid = grid_for(stream, n, THREADS), parts = (unsigned)div_up(l->n_rows, o->part);
    count_kernel<<<grid, THREADS, 0, stream->stream>>>(n, *l, o->cursor);
    part_sums_kernel<<<parts, THREADS, 0, stream->stream>>>(*o);
    begins_kernel<<<parts, THREADS, 0, stream->stream>>>(*o);
    scatter_kernel<<<grid, THREADS, 0, stream->stream>>>(n, *l, *o);
    order_many_kernel<<<(unsigned)mz_cuda_of(stream)->n_processors * 4, THREADS, 0, stream->stream>>>(n, *l, *o);
    return mz_cuda_launched("embedding_grad");
}

/* ---- sums of lookups ---- */

template <int N, typename T> __device__ __forceinline__ void add_pack(float (&sum)[N], const T *x)
{
    const pack<T, N> v = *(const pack<T, N> *)x;
#pragma unroll
    for (int j = 0; j < N; j++)
        sum[j] += to_float(v.at[j]);
}

/* Rows with up to FEW positions, a warp to each; its lanes put the positions in order. Rows with none are left. */
template <int N, typename T, typename TG>
__global__ void __launch_bounds__(THREADS, 5)
    sum_few_kernel(int64_t cols, ordering o, const T *dy, TG *out, bool accumulate)
{
    const int lane = threadIdx.x % 32;
    const int64_t row = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
    if (row >= o.n_rows)
        return;
    const int32_t first = o.begin[row], count = o.begin[row + 1] - first;
    if (count == 0 || count > FEW)
        return;
    const int32_t mine = lane < count ? o.order[first + lane] : 0;
    int32_t place = 0, position = 0;
    for (int k = 0; k < count; k++)
        place += __shfl_sync(0xffffffffu, mine, k) < mine;
    for (int k = 0; k < count; k++) { /* lane `place` gets `mine` */
        const int32_t to = __shfl_sync(0xffffffffu, place, k), what = __shfl_sync(0xffffffffu, mine, k);
        position = lane == to ? what : position;
    }
    for (int64_t base = 0; base < cols; base += 32 * N) {
        const int64_t c = base + lane * N;
        float sum[N] = {};
        pack<TG, N> old = {};
        if (accumulate && c < cols)
            old = *(const pack<TG, N> *)(out + row * cols + c);
#pragma unroll 4
        for (int k = 0; k < count; k++) {
            const int64_t i = __shfl_sync(0xffffffffu, position, k);
            if (c < cols)
                add_pack<N>(sum, dy + i * cols + c);
        }
#pragma unroll
        for (int j = 0; j < N; j++)
            old.at[j] = from_float<TG>(accumulate ? to_float(old.at[j]) + sum[j] : sum[j]);
        if (c < cols)
            *(pack<TG, N> *)(out + row * cols + c) = old;
    }
}

/* The warps' sums of 32 * N columns, added in their order and put to out[c..]. */
template <int N, typename TG>
__device__ __forceinline__ void put_warp_sums(const float (&sum)[N], TG *out, int64_t cols, int64_t base,
                                              bool accumulate)
{
    __shared__ float sums[WARPS][32 * N];
    __syncthreads(); /* the previous call's readers are through */
#pragma unroll
    for (int j = 0; j < N; j++)
        sums[threadIdx.x / 32][threadIdx.x % 32 * N + j] = sum[j];
    __syncthreads();
    for (int64_t c = threadIdx.x; c < 32 * N && base + c < cols; c += THREADS) {
        float total = sums[0][c];
        for (int w = 1; w < WARPS; w++)
            total += sums[w][c];
        put_sum(out + base + c, total, accumulate);
    }
}

/* Rows with more positions: a block to 32 * N columns of one; each warp takes every WARPS-th position. */
template <int N, typename T, typename TG>
__global__ void __launch_bounds__(THREADS, 4)
    sum_many_kernel(int64_t cols, ordering o, const T *dy, TG *out, bool accumulate)
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int n_parts = (int)((cols + 32 * N - 1) / (32 * N)), n_items = *o.n_many * n_parts;
    for (int item = blockIdx.x; item < n_items; item += gridDim.x) {
        const int32_t row = o.many[item / n_parts], end = o.begin[row + 1];
        const int64_t base = (int64_t)(item % n_parts) * 32 * N, c = base + lane * N;
        float sum[N] = {};
        if (c < cols)
#pragma unroll 8
            for (int32_t k = o.begin[row] + warp; k < end; k += WARPS)
                add_pack<N>(sum, dy + o.order[k] * cols + c);
        put_warp_sums<N>(sum, out + row * cols, cols, base, accumulate);
    }
}

/* Positions that repeat with a period need no list: row offset + p has lookups p, p + period, ... */
template <int N, typename T, typename TG>
__global__ void __launch_bounds__(THREADS)
    sum_periodic_kernel(int64_t n, int64_t cols, lookups l, const T *dy, TG *out, bool accumulate)
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int64_t p = blockIdx.x, base = (int64_t)blockIdx.y * 32 * N, c = base + lane * N;
    float sum[N] = {};
    if (c < cols)
#pragma unroll 4
        for (int64_t i = p + warp * l.period; i < n; i += WARPS * l.period)
            add_pack<N>(sum, dy + i * cols + c);
    put_warp_sums<N>(sum, out + (l.offset + p) * cols, cols, base, accumulate);
}

template <int N, typename T, typename TG>
static mz_status sum_lookups(const mz_embedding_grad_args *a, const lookups *l, TG *out, bool accumulate,
                             mz_stream *stream)
{
    const T *dy = (const T *)a->dy;
    const unsigned n_parts = (unsigned)div_up(a->cols, 32 * N);
    mz_status status = MZ_OK;
    if (!accumulate)
        status = mz_cuda_check(cudaMemsetAsync(out, 0, (size_t)(l->n_rows * a->cols) * sizeof(TG), stream->stream),
                               "cudaMemsetAsync");
    if (status)
        return status;
    if (!l->ids && l->period + l->offset <= l->n_rows) {
        const dim3 grid((unsigned)(a->n < l->period ? a->n : l->period), n_parts);
        sum_periodic_kernel<N, T><<<grid, THREADS, 0, stream->stream>>>(a->n, a->cols, *l, dy, out, accumulate);
        return mz_cuda_launched("embedding_grad");
    }
    ordering o;
    status = order_positions(a->n, l, &o, stream);
    if (status)
        return status;
    sum_few_kernel<N, T>
        <<<blocks_for(l->n_rows, WARPS), THREADS, 0, stream->stream>>>(a->cols, o, dy, out, accumulate);
    sum_many_kernel<N, T><<<(unsigned)mz_cuda_of(stream)->n_processors * 4, THREADS, 0, stream->stream>>>(
        a->cols, o, dy, out, accumulate);
    return mz_cuda_launched("embedding_grad");
}

static mz_status table_grad(const mz_embedding_grad_args *a, const lookups *l, void *out, bool accumulate,
                            mz_stream *stream)
{
    mz_status status = MZ_OK;
    FOR_DTYPE(a->dtype, T, FOR_DTYPE(a->dtype_grad, TG, {
                  constexpr int N = lanes<T>();
                  if (a->cols % N == 0 && is_aligned(a->dy, 16) && is_aligned(out, N * sizeof(TG)))
                      status = sum_lookups<N, T, TG>(a, l, (TG *)out, accumulate, stream);
                  else
                      status = sum_lookups<1, T, TG>(a, l, (TG *)out, accumulate, stream);
              }));
    return status;
}

extern "C" mz_status mz_cuda_embedding_grad(const mz_embedding_grad_args *a, mz_stream *stream)
{
    mz_status status = mz_check_embedding_grad(a);
    if (status || a->n == 0)
        return status;
    if (a->dtable) {
        const lookups tokens = {a->ids, a->vocab, 0, 0};
        status = table_grad(a, &tokens, a->dtable, a->accumulate_dtable, stream);
    }
    if (!status && a->dpositions) {
        const lookups positions = {a->position_ids, a->n_positions, a->period, a->position_offset};
        status = table_grad(a, &positions, a->dpositions, a->accumulate_dpositions, stream);
    }
    return status;
}
