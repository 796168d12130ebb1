/* Layer normalisation, a warp to a row. */
#include "kernels/cuda/sums.cuh"

enum { WARPS = 8, THREADS = 32 * WARPS };

template <typename T>
__global__ void layer_norm_kernel(int64_t rows, int64_t cols, float eps, const T *x, const T *residual,
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

extern "C" mz_status mz_cuda_layer_norm(const mz_layer_norm_args *a, mz_stream *stream)
{
    mz_status status = mz_check_layer_norm(a);
    if (status || a->rows == 0)
        return status;
    FOR_DTYPE(a->dtype, T,
              layer_norm_kernel<T><<<(unsigned)div_up(a->rows, WARPS), THREADS, 0, stream->stream>>>(
                  a->rows, a->cols, a->eps, (const T *)a->x, (const T *)a->residual, (const T *)a->weight,
                  (const T *)a->bias, (T *)a->sum, (T *)a->y, a->mean, a->rstd));
    return mz_cuda_launched("layer_norm");
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

template <typename T>
static mz_status layer_norm_grad(const mz_layer_norm_grad_args *a, int64_t n_chunks, mz_stream *stream)
{
    const int64_t chunk = div_up(a->rows, n_chunks);
    n_chunks = div_up(a->rows, chunk);
    float *dweight = (float *)stream->workspace, *dbias = dweight + n_chunks * a->cols;
    const dim3 grid((unsigned)div_up(a->cols, 32), (unsigned)n_chunks);
    weight_grad_kernel<T><<<grid, THREADS, 0, stream->stream>>>(a->rows, a->cols, chunk, (const T *)a->dy,
                                                                (const T *)a->x, a->mean, a->rstd, dweight, dbias);
    input_grad_kernel<T><<<(unsigned)div_up(a->rows, WARPS), THREADS, 0, stream->stream>>>(
        a->rows, a->cols, (const T *)a->dy, (const T *)a->x, (const T *)a->weight, (const T *)a->dresidual, a->mean,
        a->rstd, (T *)a->dx);
    mz_status status = mz_cuda_launched("layer_norm_grad");
    if (!status)
        status = mz_cuda_sum_chunks(dweight, n_chunks, a->cols, a->dweight, a->dtype_grad, a->accumulate_dweight,
                                    stream);
    if (!status)
        status = mz_cuda_sum_chunks(dbias, n_chunks, a->cols, a->dbias, a->dtype_grad, a->accumulate_dbias, stream);
    return status;
}

extern "C" mz_status mz_cuda_layer_norm_grad(const mz_layer_norm_grad_args *a, mz_stream *stream)
{
    mz_status status = mz_check_layer_norm_grad(a);
    if (status || a->rows == 0)
        return status;
    const int64_t n_chunks = mz_cuda_row_chunks(a->rows, a->cols, 2, stream);
    if (n_chunks == 0)
        return need_workspace(stream, "layer_norm_grad", (size_t)a->cols * 2 * sizeof(float));
    FOR_DTYPE(a->dtype, T, status = layer_norm_grad<T>(a, n_chunks, stream));
    return status;
}
