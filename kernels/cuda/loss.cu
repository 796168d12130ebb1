/* Losses with their gradients. */
#include "kernels/cuda/common.cuh"

enum { THREADS = 512, MAX_PARTIALS = 1024 };

/* ---- cross-entropy ---- */

/* A block's row: two reads of the logits, the first for the softmax's sum, the second for the gradient. */
template <typename T>
__global__ void cross_entropy_kernel(const T *logits, const int32_t *labels, int64_t vocab, int64_t ld,
                                     int32_t ignore_index, const float *grad_scale, T *dlogits, float *row_loss,
                                     double *losses)
{
    const int64_t r = blockIdx.x;
    const int32_t label = labels[r];
    const bool counts = label != ignore_index && label >= 0 && label < vocab;
    const T *x = logits + r * ld;
    float max = -CUDART_INF_F, sum = 0.0f, lse = 0.0f, loss = 0.0f;
    if (counts) {
        for (int64_t c = threadIdx.x; c < vocab; c += THREADS)
            max = fmaxf(max, to_float(x[c]));
        max = block_max(max);
        for (int64_t c = threadIdx.x; c < vocab; c += THREADS)
            sum += expf(to_float(x[c]) - max);
        sum = block_sum(sum);
        lse = logf(sum);
        loss = lse + (max - to_float(x[label])); /* in this order: exact where the label's logit is the largest */
        lse += max;
    }
    __syncthreads(); /* the label's logit is read everywhere before the gradient may overwrite it */
    if (dlogits) {
        const float scale = counts ? *grad_scale : 0.0f;
        for (int64_t c = threadIdx.x; c < ld; c += THREADS) {
            float d = 0.0f;
            if (counts && c < vocab)
                d = (expf(to_float(x[c]) - lse) - (c == label ? 1.0f : 0.0f)) * scale;
            dlogits[r * ld + c] = from_float<T>(d);
        }
    }
    if (threadIdx.x == 0) {
        losses[r] = (double)loss;
        if (row_loss)
            row_loss[r] = loss;
    }
}

/* *loss += scale * sum of losses; one block. */
__global__ void loss_total_kernel(int64_t n, const double *losses, const float *scale, float *loss)
{
    double sum = 0.0;
    for (int64_t i = threadIdx.x; i < n; i += blockDim.x)
        sum += losses[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0)
        *loss += (float)(sum * (double)*scale);
}

extern "C" mz_status mz_cuda_cross_entropy(const mz_cross_entropy_args *a, mz_stream *stream)
{
    mz_status status = mz_check_cross_entropy(a);
    if (status || a->rows == 0)
        return status;
    status = need_workspace(stream, "cross_entropy", (size_t)a->rows * sizeof(double));
    if (status)
        return status;
    double *losses = (double *)stream->workspace;
    FOR_DTYPE(a->dtype, T,
              cross_entropy_kernel<T><<<(unsigned)a->rows, THREADS, 0, stream->stream>>>(
                  (const T *)a->logits, a->labels, a->vocab, a->ld, a->ignore_index, a->grad_scale, (T *)a->dlogits,
                  a->row_loss, losses));
    loss_total_kernel<<<1, THREADS, 0, stream->stream>>>(a->rows, losses, a->loss_scale, a->loss);
    return mz_cuda_launched("cross_entropy");
}

/* ---- squared differences ---- */

template <typename T>
__global__ void mse_kernel(int64_t n, const T *x, const T *target, const float *grad_scale, T *dx, double *losses)
{
    const float slope = dx ? 2.0f * *grad_scale : 0.0f;
    double sum = 0.0;
    GRID_LOOP(i, n)
    {
        const float d = to_float(x[i]) - to_float(target[i]);
        sum += (double)d * (double)d;
        if (dx)
            dx[i] = from_float<T>(slope * d);
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0)
        losses[blockIdx.x] = sum;
}

extern "C" mz_status mz_cuda_mse(const mz_mse_args *a, mz_stream *stream)
{
    mz_status status = mz_check_mse(a);
    if (status || a->n == 0)
        return status;
    status = need_workspace(stream, "mse", MAX_PARTIALS * sizeof(double));
    if (status)
        return status;
    const int64_t wanted = div_up(a->n, THREADS * 4);
    const int n_blocks = (int)(wanted < MAX_PARTIALS ? wanted : (int64_t)MAX_PARTIALS);
    double *losses = (double *)stream->workspace;
    FOR_DTYPE(a->dtype, T,
              mse_kernel<T><<<n_blocks, THREADS, 0, stream->stream>>>(a->n, (const T *)a->x, (const T *)a->target,
                                                                      a->grad_scale, (T *)a->dx, losses));
    loss_total_kernel<<<1, THREADS, 0, stream->stream>>>(n_blocks, losses, a->loss_scale, a->loss);
    return mz_cuda_launched("mse");
}
