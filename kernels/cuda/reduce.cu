/* Reductions: columns and rows of matrices, the gradient norm, sums over ranks' buffers. */
#include "kernels/cuda/sums.cuh"

enum { LANES = 32, ROWS_AT_ONCE = 8, THREADS = 256, MAX_CHUNKS = 256, MAX_SOURCES = 256, MAX_PARTIALS = 1024 };

/* ---- columns and rows ---- */

/* A block sums 32 columns of one chunk of rows. */
template <typename T>
__global__ void column_chunk_kernel(const T *x, int64_t rows, int64_t cols, int64_t ld, int64_t chunk,
                                    float *partial)
{
    __shared__ float sums[ROWS_AT_ONCE][LANES + 1];
    const int64_t c = (int64_t)blockIdx.x * LANES + threadIdx.x, first = blockIdx.y * chunk;
    const int64_t end = first + chunk < rows ? first + chunk : rows;
    float sum = 0.0f;
    if (c < cols)
        for (int64_t r = first + threadIdx.y; r < end; r += ROWS_AT_ONCE)
            sum += to_float(x[r * ld + c]);
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y || c >= cols)
        return;
    for (int i = 1; i < ROWS_AT_ONCE; i++)
        sum += sums[i][threadIdx.x];
    partial[blockIdx.y * cols + c] = sum;
}

template <typename T>
__global__ void chunk_sum_kernel(const float *partial, int64_t n_chunks, int64_t cols, T *out, bool accumulate)
{
    GRID_LOOP(c, cols)
    {
        float sum = 0.0f;
        for (int64_t i = 0; i < n_chunks; i++)
            sum += partial[i * cols + c];
        put_sum(out + c, sum, accumulate);
    }
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

mz_status mz_cuda_sum_chunks(const float *partial, int64_t n_chunks, int64_t cols, void *out, mz_dtype dtype_out,
                             bool accumulate, mz_stream *stream)
{
    FOR_DTYPE(dtype_out, T,
              chunk_sum_kernel<T><<<grid_for(stream, cols, THREADS), THREADS, 0, stream->stream>>>(
                  partial, n_chunks, cols, (T *)out, accumulate));
    return mz_cuda_launched("sum of chunks");
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
        const int64_t chunk = div_up(s->rows, n_chunks);
        n_chunks = div_up(s->rows, chunk);
        const dim3 grid((unsigned)div_up(s->cols, LANES), (unsigned)n_chunks), block(LANES, ROWS_AT_ONCE);
        FOR_DTYPE(s->dtype, T,
                  column_chunk_kernel<T>
                  <<<grid, block, 0, stream->stream>>>((const T *)s->x, s->rows, s->cols, s->ld, chunk, partial));
        mz_status status = mz_cuda_launched("column_sum");
        if (status)
            return status;
    }
    return mz_cuda_sum_chunks(partial, n_chunks, s->cols, s->out, s->dtype_out, s->accumulate, stream);
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

template <typename T>
__global__ void squares_kernel(int64_t n, const T *x, float scale, double *sums, uint64_t *counts)
{
    double sum = 0.0;
    uint64_t nonfinite = 0;
    GRID_LOOP(i, n)
    {
        const float value = to_float(x[i]);
        const double scaled = (double)scale * (double)value;
        sum += scaled * scaled;
        nonfinite += !isfinite(value);
    }
    sum = block_sum(sum);
    nonfinite = block_sum(nonfinite);
    if (threadIdx.x == 0) {
        sums[blockIdx.x] = sum;
        counts[blockIdx.x] = nonfinite;
    }
}

/* One block. */
__global__ void squares_total_kernel(int n, const double *sums, const uint64_t *counts, double *sum,
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
        *sum += s;
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
    const int64_t wanted = div_up(a->n, THREADS * 8);
    const int n_blocks = (int)(wanted < MAX_PARTIALS ? wanted : (int64_t)MAX_PARTIALS);
    double *sums = (double *)stream->workspace;
    uint64_t *counts = (uint64_t *)(sums + MAX_PARTIALS);
    FOR_DTYPE(a->dtype, T,
              squares_kernel<T>
              <<<n_blocks, THREADS, 0, stream->stream>>>(a->n, (const T *)a->x, a->scale, sums, counts));
    squares_total_kernel<<<1, THREADS, 0, stream->stream>>>(n_blocks, sums, counts, a->sum, a->nonfinite);
    return mz_cuda_launched("sum_squares");
}

/* ---- over ranks ---- */

typedef struct source_list {
    const void *at[MAX_SOURCES];
} source_list;

/* `dst` may be a source: each element is read by the thread that writes it, before it writes. */
template <typename T, typename TD>
__global__ void sum_kernel(int64_t n, int n_sources, const __grid_constant__ source_list sources, TD *dst,
                           float scale)
{
    GRID_LOOP(i, n)
    {
        float sum = 0.0f;
        for (int s = 0; s < n_sources; s++)
            sum += to_float(((const T *)sources.at[s])[i]);
        dst[i] = from_float<TD>(scale * sum);
    }
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
    for (int s = 0; s < a->n_sources; s++)
        sources.at[s] = a->sources[s];
    FOR_DTYPE(a->dtype, T,
              FOR_DTYPE(a->dst_dtype, TD,
                        sum_kernel<T, TD><<<grid_for(stream, a->n, THREADS), THREADS, 0, stream->stream>>>(
                            a->n, a->n_sources, sources, (TD *)a->dst, a->scale)));
    return mz_cuda_launched("sum");
}
