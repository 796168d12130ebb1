#include "kernels/check.h"
#include "kernels/cpu/family.h"
#include "kernels/cpu/storage.h"

MZ_INLINE void normalise_row(const mz_layer_norm_args *a, mz_dtype dtype, int64_t r)
{
    const int64_t row = r * a->cols, cols = a->cols;
    const void *x = a->residual ? a->sum : a->x;
    vf sum = vf_set1(0.0f), squares = vf_set1(0.0f);
    for (int64_t c = 0; c < cols; c += VF_N) {
        vf v = mz_load_n(a->x, dtype, row + c, cols - c);
        if (a->residual) {
            v += mz_load_n(a->residual, dtype, row + c, cols - c);
            mz_store_n(a->sum, dtype, row + c, v, cols - c);
            if (dtype != MZ_F32) /* what is normalised is the stored sum */
                v = mz_load_n(a->sum, dtype, row + c, cols - c);
        }
        sum += v;
    }
    const float mean = vf_sum(sum) / (float)cols;
    for (int64_t c = 0; c < cols; c += VF_N) {
        const vf d = mz_load_n(x, dtype, row + c, cols - c) - mean;
        squares = vf_fma(d, vf_select(vm_first(cols - c), d, vf_set1(0.0f)), squares);
    }
    const float rstd = 1.0f / sqrtf(vf_sum(squares) / (float)cols + a->eps);
    for (int64_t c = 0; c < cols; c += VF_N) {
        const int64_t left = cols - c;
        const vf hat = (mz_load_n(x, dtype, row + c, left) - mean) * rstd;
        const vf weight = mz_load_n(a->weight, dtype, c, left), bias = mz_load_n(a->bias, dtype, c, left);
        mz_store_n(a->y, dtype, row + c, vf_fma(hat, weight, bias), left);
    }
    if (a->mean) {
        a->mean[r] = mean;
        a->rstd[r] = rstd;
    }
}

static void normalise_part(void *arg, int64_t begin, int64_t end, int thread)
{
    const mz_layer_norm_args *a = arg;
    (void)thread;
    for (int64_t r = begin; r < end; r++)
        MZ_FOR_DTYPE(a->dtype, normalise_row(a, D, r));
}

mz_status MZ_CPU(layer_norm)(const mz_layer_norm_args *args, mz_stream *stream)
{
    mz_layer_norm_args a = *args;
    mz_status status = mz_check_layer_norm(args);
    if (!status)
        mz_threads_for(mz_threads_if_worth(stream, a.rows * a.cols), a.rows, 1, normalise_part, &a);
    return status;
}

/* dx = rstd * (g - mean(g) - hat * mean(g * hat)) with g = dy * weight. */
MZ_INLINE void input_grad_row(const mz_layer_norm_grad_args *a, mz_dtype dtype, int64_t r)
{
    const int64_t row = r * a->cols, cols = a->cols;
    const float mean = a->mean[r], rstd = a->rstd[r];
    vf sum_g = vf_set1(0.0f), sum_g_hat = vf_set1(0.0f);
    for (int64_t c = 0; c < cols; c += VF_N) {
        const int64_t left = cols - c; /* g is 0 in lanes beyond the row */
        const vf g = mz_load_n(a->dy, dtype, row + c, left) * mz_load_n(a->weight, dtype, c, left);
        sum_g += g;
        sum_g_hat = vf_fma(g, (mz_load_n(a->x, dtype, row + c, left) - mean) * rstd, sum_g_hat);
    }
    const float mean_g = vf_sum(sum_g) / (float)cols, mean_g_hat = vf_sum(sum_g_hat) / (float)cols;
    for (int64_t c = 0; c < cols; c += VF_N) {
        const int64_t left = cols - c;
        const vf g = mz_load_n(a->dy, dtype, row + c, left) * mz_load_n(a->weight, dtype, c, left);
        const vf hat = (mz_load_n(a->x, dtype, row + c, left) - mean) * rstd;
        vf dx = (g - mean_g - hat * mean_g_hat) * rstd;
        if (a->dresidual)
            dx += mz_load_n(a->dresidual, dtype, row + c, left);
        mz_store_n(a->dx, dtype, row + c, dx, left);
    }
}

static void input_grad_part(void *arg, int64_t begin, int64_t end, int thread)
{
    const mz_layer_norm_grad_args *a = arg;
    (void)thread;
    for (int64_t r = begin; r < end; r++)
        MZ_FOR_DTYPE(a->dtype, input_grad_row(a, D, r));
}

/* Sums over rows are taken in blocks, so that rounding grows with the block and the number of blocks only. */
enum { ROW_BLOCK = 128, COLUMN_GRAIN = 32 };

MZ_INLINE void parameter_grad_columns(const mz_layer_norm_grad_args *a, mz_dtype dtype, int64_t c, int64_t left)
{
    vf dweight = vf_set1(0.0f), dbias = vf_set1(0.0f);
    for (int64_t begin = 0; begin < a->rows; begin += ROW_BLOCK) {
        const int64_t end = begin + ROW_BLOCK < a->rows ? begin + ROW_BLOCK : a->rows;
        vf w = vf_set1(0.0f), b = vf_set1(0.0f);
        for (int64_t r = begin; r < end; r++) {
            const vf dy = mz_load_n(a->dy, dtype, r * a->cols + c, left);
            const vf x = mz_load_n(a->x, dtype, r * a->cols + c, left);
            w = vf_fma(dy, (x - a->mean[r]) * a->rstd[r], w);
            b += dy;
        }
        dweight += w;
        dbias += b;
    }
    if (a->accumulate_dweight)
        dweight += mz_load_n(a->dweight, a->dtype_grad, c, left);
    if (a->accumulate_dbias)
        dbias += mz_load_n(a->dbias, a->dtype_grad, c, left);
    mz_store_n(a->dweight, a->dtype_grad, c, dweight, left);
    mz_store_n(a->dbias, a->dtype_grad, c, dbias, left);
}

static void parameter_grad_part(void *arg, int64_t begin, int64_t end, int thread)
{
    const mz_layer_norm_grad_args *a = arg;
    (void)thread;
    for (int64_t c = begin; c < end; c += VF_N)
        MZ_FOR_DTYPE(a->dtype, parameter_grad_columns(a, D, c, end - c));
}

/* The parameters' gradients first: dx may be written over dresidual, but reads of dy and x stay valid. */
mz_status MZ_CPU(layer_norm_grad)(const mz_layer_norm_grad_args *args, mz_stream *stream)
{
    mz_layer_norm_grad_args a = *args;
    mz_status status = mz_check_layer_norm_grad(args);
    if (status || a.rows == 0)
        return status;
    mz_threads *threads = mz_threads_if_worth(stream, a.rows * a.cols);
    mz_threads_for(threads, a.cols, COLUMN_GRAIN, parameter_grad_part, &a);
    mz_threads_for(threads, a.rows, 1, input_grad_part, &a);
    return MZ_OK;
}
