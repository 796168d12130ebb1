/* Reductions: columns and rows of matrices, the gradient norm, sums over ranks' buffers. */
#include "kernels/cuda/sums.cuh"

enum { LANES = 32, ROWS_AT_ONCE = 8, THREADS = 256, MAX_CHUNKS = 256, MAX_SOURCES = 256, MAX_PARTIALS = 1024 };

/* ---- columns and rows ---- */

/* A block sums LANES * N columns of one chunk of rows; each lane reads N columns at a time. */
template <int N, typename T>
__global__ void __launch_bounds__(THREADS)
    column_chunk_kernel(const T *x, int64_t rows, int64_t cols, int64_t ld, int64_t chunk, float *partial)
{
    __shared__ float sums[ROWS_AT_ONCE][LANES * N];
    const int64_t block_c = (int64_t)blockIdx.x * LANES * N, c = block_c + threadIdx.x * N;
    const int64_t first = blockIdx.y * chunk, end = first + chunk < rows ? first + chunk : rows;
    float sum[N] = {};
    if (c < cols)
#pragma unroll 4
        for (int64_t r = first + threadIdx.y; r < end; r += ROWS_AT_ONCE) {
            const pack<T, N> v = *(const pack<T, N> *)(x + r * ld + c);
#pragma unroll
            for (int j = 0; j < N; j++)
                sum[j] += to_float(v.at[j]);
        }
#pragma unroll
    for (int j = 0; j < N; j++)
        sums[threadIdx.y][threadIdx.x * N + j] = sum[j];
    __syncthreads();
    const int mine = threadIdx.y * LANES + threadIdx.x;
    if (mine >= LANES * N || block_c + mine >= cols)
        return;
    float total = sums[0][mine];
    for (int i = 1; i < ROWS_AT_ONCE; i++)
        total += sums[i][mine];
    partial[blockIdx.y * cols + block_c + mine] = total;
}

/* A block's LANES columns: each of its warps takes every LANES-th chunk, then each adds up one column. */
template <typename T> __global__ void chunk_sum_kernel(const __grid_constant__ column_sums s)
{
    __shared__ float sums[LANES][LANES + 1];
    const int lane = threadIdx.x, warp = threadIdx.y, o = blockIdx.y;
    const int64_t c = (int64_t)blockIdx.x * LANES + lane, mine = (int64_t)blockIdx.x * LANES + warp;
    const float *partial = s.partial + o * s.n_chunks * s.cols;
    float sum = 0.0f;
    if (c < s.cols)
#pragma unroll 4
        for (int64_t i = warp; i < s.n_chunks; i += LANES)
            sum += partial[i * s.cols + c];
    sums[warp][lane] = sum;
    __syncthreads();
    sum = lane_sum<LANES>(sums[lane][warp]);
    if (lane == 0 && mine < s.cols)
        put_sum((T *)s.out[o] + mine, sum, s.accumulate[o]);
}

template <typename T, typename TO>
__global__ void row_sum_kernel(const T *x, int64_t cols, int64_t ld, TO *out, bool accumulate)
{
    const int64_t r = blockIdx.x;
    float sum = 0.0f;
    for (int64_t c = threadIdx.x; c < cols; c += blockDim.x)
        sum += to_float(x[r * ld + c]);
    sum = block_sum(sum);
    if (threadIdx.x == 0)
        put_sum(out + r, sum, accumulate);
}

int64_t mz_cuda_row_chunks(int64_t rows, int64_t cols, int n_outputs, mz_stream *stream)
{
    int64_t n = div_up(rows, 64), fit = (int64_t)(stream->workspace_bytes / sizeof(float)) / (cols * n_outputs);
    if (n > MAX_CHUNKS)
        n = MAX_CHUNKS;
    return n < fit ? n : fit;
}

mz_status mz_cuda_sum_chunks(const column_sums *s, mz_stream *stream)
{
    const dim3 grid((unsigned)div_up(s->cols, LANES), (unsigned)s->n_outputs), block(LANES, LANES);
    FOR_DTYPE(s->dtype_out, T, chunk_sum_kernel<T><<<grid, block, 0, stream->stream>>>(*s));
    return mz_cuda_launched("sum of chunks");
}

template <int N, typename T>
static void sum_column_chunks(const matrix_sum *s, int64_t *n_chunks, float *partial, mz_stream *stream)
{
    const int64_t col_blocks = div_up(s->cols, LANES * N);
    const int64_t enough = div_up((int64_t)mz_cuda_of(stream)->n_processors * 16, col_blocks);
    const int64_t chunk = div_up(s->rows, *n_chunks < enough ? *n_chunks : enough);
    *n_chunks = div_up(s->rows, chunk);
    const dim3 grid((unsigned)col_blocks, (unsigned)*n_chunks), block(LANES, ROWS_AT_ONCE);
    column_chunk_kernel<N>
        <<<grid, block, 0, stream->stream>>>((const T *)s->x, s->rows, s->cols, s->ld, chunk, partial);
}

mz_status mz_cuda_sum_columns(const matrix_sum *s, mz_stream *stream)
{
    if (s->cols == 0)
        return MZ_OK;
    int64_t n_chunks = mz_cuda_row_chunks(s->rows, s->cols, 1, stream);
    if (s->rows && n_chunks == 0)
        return need_workspace(stream, "column_sum", (size_t)s->cols * sizeof(float));
    float *partial = (float *)stream->workspace;
    if (n_chunks) {
        FOR_DTYPE(s->dtype, T,
                  if (s->cols % lanes<T>() == 0 && s->ld % lanes<T>() == 0 && is_aligned(s->x, 16))
                      sum_column_chunks<lanes<T>(), T>(s, &n_chunks, partial, stream);
                  else sum_column_chunks<1, T>(s, &n_chunks, partial, stream));
        mz_status status = mz_cuda_launched("column_sum");
        if (status)
            return status;
    }
    const column_sums sums = {.partial = partial,
                              .n_chunks = n_chunks,
                              .cols = s->cols,
                              .n_outputs = 1,
                              .out = {s->out},
                              .accumulate = {s->accumulate},
                              .dtype_out = s->dtype_out};
    return mz_cuda_sum_chunks(&sums, stream);
}

mz_status mz_cuda_sum_rows(const matrix_sum *s, mz_stream *stream)
{
    if (s->rows == 0)
        return MZ_OK;
    FOR_DTYPE(s->dtype, T,
              FOR_DTYPE(s->dtype_out, TO,
                        row_sum_kernel<T, TO><<<(unsigned)s->rows, THREADS, 0, stream->stream>>>(
                            (const T *)s->x, s->cols, s->ld, (TO *)s->out, s->accumulate)));
    return mz_cuda_launched("sum of rows");
}

extern "C" mz_status mz_cuda_column_sum(const mz_column_sum_args *a, mz_stream *stream)
{
    mz_status status = mz_check_column_sum(a);
    if (status || a->rows == 0)
        return status;
    const matrix_sum s = {a->x, a->dtype, a->rows, a->cols, a->cols, a->out, a->dtype_out, a->accumulate};
    return mz_cuda_sum_columns(&s, stream);
}

/* ---- the gradient norm ---- */

/* Squares of fp32 numbers do not overflow in fp64, nor do their sums; the scale waits for the end. */
template <typename T> __device__ __forceinline__ void add_square(T x, double &sum, uint32_t &nonfinite)
{
    const float value = to_float(x);
    sum += (double)value * (double)value;
    nonfinite += !isfinite(value);
}

/* Each thread reads DEPTH vectors of N before it adds them. */
template <int N, typename T>
__global__ void __launch_bounds__(THREADS) squares_kernel(int64_t n, const T *x, double *sums, uint64_t *counts)
{
    enum { DEPTH = 4 };
    const int64_t n_packs = n / N, stride = (int64_t)gridDim.x * THREADS * DEPTH;
    double sum = 0.0;
    uint64_t nonfinite = 0;
    for (int64_t first = (int64_t)blockIdx.x * (THREADS * DEPTH) + threadIdx.x; first < n_packs; first += stride) {
        pack<T, N> v[DEPTH];
        uint32_t bad = 0;
#pragma unroll
        for (int d = 0; d < DEPTH; d++) {
            v[d] = {};
            if (first + d * THREADS < n_packs)
                v[d] = ((const pack<T, N> *)x)[first + d * THREADS];
        }
#pragma unroll
        for (int d = 0; d < DEPTH; d++)
#pragma unroll
            for (int j = 0; j < N; j++)
                add_square(v[d].at[j], sum, bad);
        nonfinite += bad;
    }
    if (N > 1 && blockIdx.x == 0 && threadIdx.x < n % N) {
        uint32_t bad = 0;
        add_square(x[n_packs * N + threadIdx.x], sum, bad);
        nonfinite += bad;
    }
    sum = block_sum(sum);
    nonfinite = block_sum(nonfinite);
    if (threadIdx.x == 0) {
        sums[blockIdx.x] = sum;
        counts[blockIdx.x] = nonfinite;
    }
}

/* One block. */
__global__ void squares_total_kernel(int n, const double *sums, const uint64_t *counts, double scale, double *sum,
                                     uint64_t *nonfinite)
{
    double s = 0.0;
    uint64_t count = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        s += sums[i];
        count += counts[i];
    }
    s = block_sum(s);
    count = block_sum(count);
    if (threadIdx.x == 0) {
        *sum += scale * scale * s;
        *nonfinite += count;
    }
}

extern "C" mz_status mz_cuda_sum_squares(const mz_sum_squares_args *a, mz_stream *stream)
{
    mz_status status = mz_check_sum_squares(a);
    if (status || a->n == 0)
        return status;
    status = need_workspace(stream, "sum_squares", MAX_PARTIALS * (sizeof(double) + sizeof(uint64_t)));
    if (status)
        return status;
    double *sums = (double *)stream->workspace;
    uint64_t *counts = (uint64_t *)(sums + MAX_PARTIALS);
    const int64_t wanted = div_up(a->n, THREADS * 8), at_once = (int64_t)mz_cuda_of(stream)->n_processors * 6;
    const int64_t most = at_once < MAX_PARTIALS ? at_once : (int64_t)MAX_PARTIALS;
    const unsigned n_blocks = (unsigned)(wanted < most ? wanted : most);
    FOR_DTYPE(a->dtype, T,
              if (is_aligned(a->x, 16)) squares_kernel<lanes<T>()>
              <<<n_blocks, THREADS, 0, stream->stream>>>(a->n, (const T *)a->x, sums, counts);
              else squares_kernel<1>
              <<<n_blocks, THREADS, 0, stream->stream>>>(a->n, (const T *)a->x, sums, counts));
    squares_total_kernel<<<1, THREADS, 0, stream->stream>>>((int)n_blocks, sums, counts, (double)a->scale, a->sum,
                                                            a->nonfinite);
    return mz_cuda_launched("sum_squares");
}

/* One thread. Nothing is contracted: the bits are part of the definition. */
__global__ void clip_kernel(const __grid_constant__ mz_clip_args a)
{
    const double norm = __dmul_rn(__dsqrt_rn(*a.sum_squares), a.unscale);
    const double factor = a.clip > 0.0 ? __ddiv_rn(a.clip, __dadd_rn(norm, 1e-6)) : 1.0;
    *a.scale = __double2float_rn(__dmul_rn(a.unscale, factor < 1.0 ? factor : 1.0));
}

extern "C" mz_status mz_cuda_clip(const mz_clip_args *a, mz_stream *stream)
{
    mz_status status = mz_check_clip(a);
    if (status)
        return status;
    clip_kernel<<<1, 1, 0, stream->stream>>>(*a);
    return mz_cuda_launched("clip");
}

/* ---- over ranks ---- */

typedef struct source_list {
    const void *at[MAX_SOURCES];
} source_list;

/* `dst` may be a source: each element is read by the thread that writes it, before it writes. */
template <int N, typename T, typename TD>
__global__ void __launch_bounds__(THREADS)
    sum_kernel(int64_t n, int n_sources, const __grid_constant__ source_list sources, TD *dst, float scale)
{
    GRID_LOOP(v, n / N)
    {
        float sum[N] = {};
        pack<TD, N> out;
#pragma unroll 4
        for (int s = 0; s < n_sources; s++) {
            const pack<T, N> x = ((const pack<T, N> *)sources.at[s])[v];
#pragma unroll
            for (int j = 0; j < N; j++)
                sum[j] += to_float(x.at[j]);
        }
#pragma unroll
        for (int j = 0; j < N; j++)
            out.at[j] = from_float<TD>(scale * sum[j]);
        ((pack<TD, N> *)dst)[v] = out;
    }
    const int64_t e = n / N * N + threadIdx.x;
    if (N > 1 && blockIdx.x == 0 && e < n) {
        float sum = 0.0f;
        for (int s = 0; s < n_sources; s++)
            sum += to_float(((const T *)sources.at[s])[e]);
        dst[e] = from_float<TD>(scale * sum);
    }
}

template <typename T, typename TD>
static void sum_sources(const mz_sum_args *a, const source_list &sources, bool aligned, mz_stream *stream)
{
    constexpr int N = sizeof(T) == 2 && sizeof(TD) == 2 ? 8 : 4;
    if (aligned && is_aligned(a->dst, N * sizeof(TD)))
        sum_kernel<N, T><<<grid_for(stream, a->n / N, THREADS), THREADS, 0, stream->stream>>>(
            a->n, a->n_sources, sources, (TD *)a->dst, a->scale);
    else
        sum_kernel<1, T><<<grid_for(stream, a->n, THREADS), THREADS, 0, stream->stream>>>(
            a->n, a->n_sources, sources, (TD *)a->dst, a->scale);
}

extern "C" mz_status mz_cuda_sum(const mz_sum_args *a, mz_stream *stream)
{
    mz_status status = mz_check_sum(a);
    if (status || a->n == 0)
        return status;
    if (a->n_sources > MAX_SOURCES)
        return mz_fail(MZ_ERR_ARGUMENT, "kernel sum: %d sources, at most %d are taken on CUDA", a->n_sources,
                       MAX_SOURCES);
    source_list sources = {};
    bool aligned = true;
    for (int s = 0; s < a->n_sources; s++) {
        sources.at[s] = a->sources[s];
        aligned = aligned && is_aligned(a->sources[s], 16);
    }
    FOR_DTYPE(a->dtype, T, FOR_DTYPE(a->dst_dtype, TD, sum_sources<T, TD>(a, sources, aligned, stream)));
    return mz_cuda_launched("sum");
}
