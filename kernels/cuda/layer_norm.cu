/* Layer normalisation, a warp to a row. Rows of whole 16-byte vectors that lie in a warp's registers are read once;
 * others go element by element and are read again from the caches. */
#include <cuda_pipeline_primitives.h>

#include "kernels/cuda/sums.cuh"

enum { WARPS = 8, THREADS = 32 * WARPS };
/* Of the kernels that keep rows in registers. */
enum { NORM_THREADS = 128, NORM_WARPS = NORM_THREADS / 32, MOST_GRAD_VECTORS = 8 };

/* Vectors that each lane of a warp takes of a row; 0 when the row is not made of vectors. */
template <typename T> static int vectors_per_lane(int64_t cols)
{
    return cols % lanes<T>() == 0 ? (int)div_up(cols / lanes<T>(), 32) : 0;
}

/* A row's vectors, P to a lane; zeros behind its end. */
template <int P, typename T, typename V>
__device__ __forceinline__ void load_row(const T *row, int n_vectors, int lane, V (&v)[P])
{
#pragma unroll
    for (int p = 0; p < P; p++) {
        v[p] = {};
        if (p * 32 + lane < n_vectors)
            v[p] = ((const V *)row)[p * 32 + lane];
    }
}

template <int P, typename T, typename V>
__device__ __forceinline__ void store_row(T *row, int n_vectors, int lane, const V (&v)[P])
{
#pragma unroll
    for (int p = 0; p < P; p++)
        if (p * 32 + lane < n_vectors)
            ((V *)row)[p * 32 + lane] = v[p];
}

/* Makes the compiler take the vectors for new ones, so that it converts them again (and reads the weights again)
 * rather than keep the converted numbers, which would not fit the registers. */
template <int P, typename V> __device__ __forceinline__ void convert_again(V (&v)[P])
{
#pragma unroll
    for (int p = 0; p < P; p++) {
        uint4 &words = *(uint4 *)&v[p];
        asm volatile("" : "+r"(words.x), "+r"(words.y), "+r"(words.z), "+r"(words.w) : : "memory");
    }
}

/* ---- forward ---- */

template <int P, bool RESIDUAL, typename T>
__global__ void __launch_bounds__(NORM_THREADS)
    layer_norm_kernel(int64_t rows, int cols, float eps, const T *x, const T *residual, const T *weight,
                      const T *bias, T *sum, T *y, float *means, float *rstds)
{
    constexpr int N = lanes<T>();
    typedef pack<T, N> vector;
    const int lane = threadIdx.x % 32, n_vectors = cols / N;
    const int64_t r = (int64_t)blockIdx.x * NORM_WARPS + threadIdx.x / 32;
    if (r >= rows)
        return;
    vector v[P];
    load_row(x + r * cols, n_vectors, lane, v);
    if (RESIDUAL) {
        vector other[P];
        load_row(residual + r * cols, n_vectors, lane, other);
#pragma unroll
        for (int p = 0; p < P; p++)
#pragma unroll
            for (int j = 0; j < N; j++)
                v[p].at[j] = from_float<T>(to_float(v[p].at[j]) + to_float(other[p].at[j]));
        store_row(sum + r * cols, n_vectors, lane, v);
    }
    float mean = 0.0f, variance = 0.0f;
#pragma unroll
    for (int p = 0; p < P; p++)
#pragma unroll
        for (int j = 0; j < N; j++)
            mean += to_float(v[p].at[j]);
    mean = lane_sum<32>(mean) / (float)cols;
#pragma unroll
    for (int p = 0; p < P; p++)
        if (p * 32 + lane < n_vectors)
#pragma unroll
            for (int j = 0; j < N; j++) {
                const float d = to_float(v[p].at[j]) - mean;
                variance += d * d;
            }
    variance = lane_sum<32>(variance) / (float)cols;
    const float rstd = 1.0f / sqrtf(variance + eps);
#pragma unroll
    for (int p = 0; p < P; p++) {
        const int i = p * 32 + lane;
        if (i >= n_vectors)
            break;
        const vector w = ((const vector *)weight)[i], b = ((const vector *)bias)[i];
#pragma unroll
        for (int j = 0; j < N; j++)
            v[p].at[j] =
                from_float<T>((to_float(v[p].at[j]) - mean) * rstd * to_float(w.at[j]) + to_float(b.at[j]));
    }
    store_row(y + r * cols, n_vectors, lane, v);
    if (means && lane == 0) {
        means[r] = mean;
        rstds[r] = rstd;
    }
}

template <typename T>
__global__ void plain_norm_kernel(int64_t rows, int64_t cols, float eps, const T *x, const T *residual,
                                  const T *weight, const T *bias, T *sum, T *y, float *means, float *rstds)
{
    const int lane = threadIdx.x % 32;
    const int64_t r = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
    if (r >= rows)
        return;
    const T *row = x + r * cols;
    float mean = 0.0f, variance = 0.0f;
    if (residual) {
        /* What is normalised is the stored sum, and each lane reads back only what it wrote. */
        for (int64_t c = lane; c < cols; c += 32)
            sum[r * cols + c] = from_float<T>(to_float(row[c]) + to_float(residual[r * cols + c]));
        row = sum + r * cols;
    }
    for (int64_t c = lane; c < cols; c += 32)
        mean += to_float(row[c]);
    mean = lane_sum<32>(mean) / (float)cols;
    for (int64_t c = lane; c < cols; c += 32) {
        const float d = to_float(row[c]) - mean;
        variance += d * d;
    }
    variance = lane_sum<32>(variance) / (float)cols;
    const float rstd = 1.0f / sqrtf(variance + eps);
    for (int64_t c = lane; c < cols; c += 32)
        y[r * cols + c] = from_float<T>((to_float(row[c]) - mean) * rstd * to_float(weight[c]) + to_float(bias[c]));
    if (means && lane == 0) {
        means[r] = mean;
        rstds[r] = rstd;
    }
}

template <int P, typename T> static void launch_norm(const mz_layer_norm_args *a, mz_stream *stream)
{
    const unsigned grid = blocks_for(a->rows, NORM_WARPS);
    if (a->residual)
        layer_norm_kernel<P, true><<<grid, NORM_THREADS, 0, stream->stream>>>(
            a->rows, (int)a->cols, a->eps, (const T *)a->x, (const T *)a->residual, (const T *)a->weight,
            (const T *)a->bias, (T *)a->sum, (T *)a->y, a->mean, a->rstd);
    else
        layer_norm_kernel<P, false><<<grid, NORM_THREADS, 0, stream->stream>>>(
            a->rows, (int)a->cols, a->eps, (const T *)a->x, (const T *)nullptr, (const T *)a->weight,
            (const T *)a->bias, (T *)nullptr, (T *)a->y, a->mean, a->rstd);
}

template <typename T> static void layer_norm(const mz_layer_norm_args *a, mz_stream *stream)
{
    const bool aligned = is_aligned(a->x, 16) && is_aligned(a->residual, 16) && is_aligned(a->weight, 16) &&
                         is_aligned(a->bias, 16) && is_aligned(a->sum, 16) && is_aligned(a->y, 16);
    const int p = aligned ? vectors_per_lane<T>(a->cols) : 0;
    if (p == 1)
        launch_norm<1, T>(a, stream);
    else if (p == 2 || p == 3)
        launch_norm<3, T>(a, stream);
    else if (p == 4)
        launch_norm<4, T>(a, stream);
    else if (p >= 5 && p <= 7)
        launch_norm<7, T>(a, stream);
    else if (p >= 8 && p <= 16)
        launch_norm<16, T>(a, stream);
    else
        plain_norm_kernel<T><<<blocks_for(a->rows, WARPS), THREADS, 0, stream->stream>>>(
            a->rows, a->cols, a->eps, (const T *)a->x, (const T *)a->residual, (const T *)a->weight,
            (const T *)a->bias, (T *)a->sum, (T *)a->y, a->mean, a->rstd);
}

extern "C" mz_status mz_cuda_layer_norm(const mz_layer_norm_args *a, mz_stream *stream)
{
    mz_status status = mz_check_layer_norm(a);
    if (status || a->rows == 0)
        return status;
    FOR_DTYPE(a->dtype, T, layer_norm<T>(a, stream));
    return mz_cuda_launched("layer_norm");
}

/* ---- backward ---- */

/* The gradient kernel's threads, and its blocks on a processor: as many warps as the registers of P vectors allow.
 */
template <int P> __host__ __device__ constexpr int grad_threads()
{
    return P <= 3 ? 512 : P == 4 ? 128 : 256;
}
template <int P> __host__ __device__ constexpr int grad_blocks()
{
    return P == 1 ? 2 : P == 4 ? 3 : 1;
}

/* Rows of dy, x and dresidual on their way to a warp's shared memory; each lane copies what it will read. */
enum { DY = 0, X, DRESIDUAL, N_COPIED };
template <int P, typename T> struct row_copies {
    uint4 *room; /* [N_COPIED][n_vectors] */
    int n_vectors, lane;

    __device__ __forceinline__ void fetch(int which, const T *row)
    {
#pragma unroll
        for (int p = 0; p < P; p++) {
            const int i = p * 32 + lane;
            if (i < n_vectors)
                __pipeline_memcpy_async(room + which * n_vectors + i, (const uint4 *)row + i, sizeof(uint4));
        }
    }
    template <typename V> __device__ __forceinline__ void take(int which, V (&v)[P])
    {
        load_row((const T *)(room + which * n_vectors), n_vectors, lane, v);
    }
};

/* Adds up what the warps of a block hold, by halves; warp 0 has the sum. `room`: cols numbers for half the warps.
 */
template <int WARPS_IN_BLOCK, int P, int N>
__device__ __forceinline__ void sum_warps(float (&sum)[P][N], int cols, float *room)
{
    typedef pack<float, 4> quad;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (int half = WARPS_IN_BLOCK / 2; half > 0; half /= 2) {
        __syncthreads();
#pragma unroll
        for (int p = 0; p < P; p++) {
            const int c = (p * 32 + lane) * N;
            if (c < cols && warp >= half && warp < 2 * half)
#pragma unroll
                for (int j = 0; j < N; j += 4)
                    *(quad *)(room + (warp - half) * cols + c + j) = *(const quad *)&sum[p][j];
        }
        __syncthreads();
#pragma unroll
        for (int p = 0; p < P; p++) {
            const int c = (p * 32 + lane) * N;
            if (c < cols && warp < half)
#pragma unroll
                for (int j = 0; j < N; j += 4) {
                    const quad more = *(const quad *)(room + warp * cols + c + j);
#pragma unroll
                    for (int k = 0; k < 4; k++)
                        sum[p][j + k] += more.at[k];
                }
        }
    }
}

/* dx = rstd * (g - mean(g) - hat * mean(g * hat)) with g = dy * weight, and in the same pass the block's share of
 * dweight and dbias: each lane adds up its columns over the warp's rows. The next row arrives
 * while the present one is worked on. partial: [2][blocks][cols]. */
template <int P, typename T>
__global__ void __launch_bounds__(grad_threads<P>(), grad_blocks<P>())
    layer_norm_grad_kernel(int64_t rows, int cols, const T *dy, const T *x, const T *weight, const T *dresidual,
                           const float *means, const float *rstds, T *dx, float *partial)
{
    constexpr int N = lanes<T>(), WARPS_IN_BLOCK = grad_threads<P>() / 32;
    typedef pack<T, N> vector;
    extern __shared__ uint4 shared[];
    vector *weights = (vector *)shared; /* [n_vectors], then the warps' rows, and in the end room for sums */
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, n_vectors = cols / N;
    const int64_t stride = (int64_t)gridDim.x * WARPS_IN_BLOCK;
    const float per_col = 1.0f / (float)cols;
    float dweight[P][N] = {}, dbias[P][N] = {};
    row_copies<P, T> copies = {shared + (1 + N_COPIED * warp) * n_vectors, n_vectors, lane};
    /* Two groups of copies per row, in turn; so that the oldest is there when at most one is under way. */
    auto fetch = [&](int64_t r) {
        if (r < rows) {
            copies.fetch(DY, dy + r * cols);
            copies.fetch(X, x + r * cols);
        }
        __pipeline_commit();
    };
    auto fetch_residual = [&](int64_t r) {
        if (r < rows && dresidual)
            copies.fetch(DRESIDUAL, dresidual + r * cols);
        __pipeline_commit();
    };
    int64_t r = (int64_t)blockIdx.x * WARPS_IN_BLOCK + warp;
    fetch(r);
    fetch_residual(r);
    for (int i = threadIdx.x; i < n_vectors; i += blockDim.x)
        weights[i] = ((const vector *)weight)[i];
    __syncthreads();
    for (; r < rows; r += stride) {
        vector g[P], v[P];
        const float mean = means[r], rstd = rstds[r];
        __pipeline_wait_prior(1);
        copies.take(DY, g);
        copies.take(X, v);
        __syncwarp();
        fetch(r + stride);
        float mean_g = 0.0f, mean_g_hat = 0.0f;
#pragma unroll
        for (int p = 0; p < P; p++) {
            const int i = p * 32 + lane;
            if (i >= n_vectors)
                break;
            const vector w = weights[i];
#pragma unroll
            for (int j = 0; j < N; j++) {
                const float d = to_float(g[p].at[j]), hat = (to_float(v[p].at[j]) - mean) * rstd;
                const float gw = d * to_float(w.at[j]);
                mean_g += gw;
                mean_g_hat += gw * hat;
                dweight[p][j] += d * hat;
                dbias[p][j] += d;
            }
        }
        mean_g = lane_sum<32>(mean_g) * per_col;
        mean_g_hat = lane_sum<32>(mean_g_hat) * per_col;
        convert_again(g);
        convert_again(v);
        __pipeline_wait_prior(1);
#pragma unroll
        for (int p = 0; p < P; p++) {
            const int i = p * 32 + lane;
            if (i >= n_vectors)
                break;
            const vector w = weights[i];
            vector more = {};
            if (dresidual)
                more = ((const vector *)copies.room)[DRESIDUAL * n_vectors + i];
#pragma unroll
            for (int j = 0; j < N; j++) {
                const float hat = (to_float(v[p].at[j]) - mean) * rstd;
                const float gw = to_float(g[p].at[j]) * to_float(w.at[j]);
                more.at[j] = from_float<T>(rstd * (gw - mean_g - hat * mean_g_hat) + to_float(more.at[j]));
            }
            ((vector *)(dx + r * cols))[i] = more;
        }
        __syncwarp();
        fetch_residual(r + stride);
    }
    sum_warps<WARPS_IN_BLOCK>(dweight, cols, (float *)(weights + n_vectors));
    sum_warps<WARPS_IN_BLOCK>(dbias, cols, (float *)(weights + n_vectors));
    if (warp != 0)
        return;
#pragma unroll
    for (int p = 0; p < P; p++) {
        const int64_t c = (p * 32 + lane) * N;
        if (c >= cols)
            break;
#pragma unroll
        for (int j = 0; j < N; j++) {
            partial[(int64_t)blockIdx.x * cols + c + j] = dweight[p][j];
            partial[((int64_t)gridDim.x + blockIdx.x) * cols + c + j] = dbias[p][j];
        }
    }
}

/* dx = rstd * (g - mean(g) - hat * mean(g * hat)) with g = dy * weight. */
template <typename T>
__global__ void input_grad_kernel(int64_t rows, int64_t cols, const T *dy, const T *x, const T *weight,
                                  const T *dresidual, const float *means, const float *rstds, T *dx)
{
    const int lane = threadIdx.x % 32;
    const int64_t r = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
    if (r >= rows)
        return;
    const int64_t row = r * cols;
    const float mean = means[r], rstd = rstds[r];
    float mean_g = 0.0f, mean_g_hat = 0.0f;
    for (int64_t c = lane; c < cols; c += 32) {
        const float g = to_float(dy[row + c]) * to_float(weight[c]);
        mean_g += g;
        mean_g_hat += g * (to_float(x[row + c]) - mean) * rstd;
    }
    mean_g = lane_sum<32>(mean_g) / (float)cols;
    mean_g_hat = lane_sum<32>(mean_g_hat) / (float)cols;
    for (int64_t c = lane; c < cols; c += 32) {
        const float g = to_float(dy[row + c]) * to_float(weight[c]);
        const float hat = (to_float(x[row + c]) - mean) * rstd;
        float d = rstd * (g - mean_g - hat * mean_g_hat);
        if (dresidual)
            d += to_float(dresidual[row + c]);
        dx[row + c] = from_float<T>(d);
    }
}

/* dweight and dbias of 32 columns over one chunk of rows. Launched before dx is written, which may lie on dresidual
 * but on nothing that is read here. */
template <typename T>
__global__ void weight_grad_kernel(int64_t rows, int64_t cols, int64_t chunk, const T *dy, const T *x,
                                   const float *means, const float *rstds, float *dweight, float *dbias)
{
    __shared__ float sums[2][WARPS][33];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int64_t c = (int64_t)blockIdx.x * 32 + lane, first = blockIdx.y * chunk;
    const int64_t end = first + chunk < rows ? first + chunk : rows;
    float weight_sum = 0.0f, bias_sum = 0.0f;
    if (c < cols)
        for (int64_t r = first + warp; r < end; r += WARPS) {
            const float g = to_float(dy[r * cols + c]);
            weight_sum += g * (to_float(x[r * cols + c]) - means[r]) * rstds[r];
            bias_sum += g;
        }
    sums[0][warp][lane] = weight_sum;
    sums[1][warp][lane] = bias_sum;
    __syncthreads();
    if (warp || c >= cols)
        return;
    for (int i = 1; i < WARPS; i++) {
        weight_sum += sums[0][i][lane];
        bias_sum += sums[1][i][lane];
    }
    dweight[blockIdx.y * cols + c] = weight_sum;
    dbias[blockIdx.y * cols + c] = bias_sum;
}

/* Launches what leaves [2][*n_chunks][cols] partial sums in the workspace. */
template <typename T>
static void plain_grad(const mz_layer_norm_grad_args *a, float *partial, int64_t *n_chunks, mz_stream *stream)
{
    const int64_t chunk = div_up(a->rows, *n_chunks);
    *n_chunks = div_up(a->rows, chunk);
    const dim3 grid((unsigned)div_up(a->cols, 32), (unsigned)*n_chunks);
    weight_grad_kernel<T><<<grid, THREADS, 0, stream->stream>>>(a->rows, a->cols, chunk, (const T *)a->dy,
                                                                (const T *)a->x, a->mean, a->rstd, partial,
                                                                partial + *n_chunks * a->cols);
    input_grad_kernel<T><<<blocks_for(a->rows, WARPS), THREADS, 0, stream->stream>>>(
        a->rows, a->cols, (const T *)a->dy, (const T *)a->x, (const T *)a->weight, (const T *)a->dresidual, a->mean,
        a->rstd, (T *)a->dx);
}

template <int P, typename T>
static mz_status launch_grad(const mz_layer_norm_grad_args *a, float *partial, int64_t *n_chunks, mz_stream *stream)
{
    constexpr int THREADS_IN_BLOCK = grad_threads<P>(), WARPS_IN_BLOCK = THREADS_IN_BLOCK / 32;
    const int64_t at_once = (int64_t)mz_cuda_of(stream)->n_processors * grad_blocks<P>();
    const int64_t fit = (int64_t)(stream->workspace_bytes / sizeof(float)) / (2 * a->cols);
    const size_t shared = (size_t)a->cols * sizeof(T) * (1 + N_COPIED * WARPS_IN_BLOCK);
    mz_status status = mz_cuda_check(cudaFuncSetAttribute(layer_norm_grad_kernel<P, T>,
                                                          cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared),
                                     "cudaFuncSetAttribute");
    if (status)
        return status;
    *n_chunks = div_up(a->rows, WARPS_IN_BLOCK);
    *n_chunks = *n_chunks < at_once ? *n_chunks : at_once;
    *n_chunks = *n_chunks < fit ? *n_chunks : fit;
    layer_norm_grad_kernel<P><<<(unsigned)*n_chunks, THREADS_IN_BLOCK, shared, stream->stream>>>(
        a->rows, (int)a->cols, (const T *)a->dy, (const T *)a->x, (const T *)a->weight, (const T *)a->dresidual,
        a->mean, a->rstd, (T *)a->dx, partial);
    return MZ_OK;
}

template <typename T>
static mz_status layer_norm_grad(const mz_layer_norm_grad_args *a, float *partial, int64_t *n_chunks,
                                 mz_stream *stream)
{
    const bool aligned = is_aligned(a->dy, 16) && is_aligned(a->x, 16) && is_aligned(a->weight, 16) &&
                         is_aligned(a->dresidual, 16) && is_aligned(a->dx, 16);
    const int p = aligned ? vectors_per_lane<T>(a->cols) : 0;
    if (p == 1)
        return launch_grad<1, T>(a, partial, n_chunks, stream);
    if (p == 2 || p == 3)
        return launch_grad<3, T>(a, partial, n_chunks, stream);
    if (p == 4)
        return launch_grad<4, T>(a, partial, n_chunks, stream);
    if (p >= 5 && p <= 7)
        return launch_grad<7, T>(a, partial, n_chunks, stream);
    if (p == MOST_GRAD_VECTORS)
        return launch_grad<MOST_GRAD_VECTORS, T>(a, partial, n_chunks, stream);
    plain_grad<T>(a, partial, n_chunks, stream);
    return MZ_OK;
}

extern "C" mz_status mz_cuda_layer_norm_grad(const mz_layer_norm_grad_args *a, mz_stream *stream)
{
    mz_status status = mz_check_layer_norm_grad(a);
    if (status || a->rows == 0)
        return status;
    int64_t n_chunks = mz_cuda_row_chunks(a->rows, a->cols, 2, stream);
    if (n_chunks == 0)
        return need_workspace(stream, "layer_norm_grad", (size_t)a->cols * 2 * sizeof(float));
    float *partial = (float *)stream->workspace;
    FOR_DTYPE(a->dtype, T, status = layer_norm_grad<T>(a, partial, &n_chunks, stream));
    if (!status)
        status = mz_cuda_launched("layer_norm_grad");
    if (status)
        return status;
    const column_sums sums = {.partial = partial,
                              .n_chunks = n_chunks,
                              .cols = a->cols,
                              .n_outputs = 2,
                              .out = {a->dweight, a->dbias},
                              .accumulate = {a->accumulate_dweight, a->accumulate_dbias},
                              .dtype_out = a->dtype_grad};
    return mz_cuda_sum_chunks(&sums, stream);
}
