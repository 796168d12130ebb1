#include "kernels/check.h"
#include "kernels/cpu/family.h"
#include "kernels/cpu/storage.h"

/* Rows worked on together: each is a chain of dependent sums, and the chains run side by side. */
enum { ROWS = 4 };

MZ_INLINE void normalise_rows(const mz_layer_norm_args *a, mz_dtype dtype, int64_t first, int n)
{
    const int64_t cols = a->cols, row = first * cols;
    const void *x = a->residual ? a->sum : a->x;
    vf sum[ROWS], squares[ROWS];
    float mean[ROWS], rstd[ROWS];
    for (int r = 0; r < n; r++)
        sum[r] = squares[r] = vf_set1(0.0f);
    for (int64_t c = 0; c < cols; c += VF_N)
        for (int r = 0; r < n; r++) {
            const int64_t at = row + r * cols + c;
            vf v = mz_load_n(a->x, dtype, at, cols - c);
            if (a->residual) {
                v += mz_load_n(a->residual, dtype, at, cols - c);
                mz_store_n(a->sum, dtype, at, v, cols - c);
                if (dtype != MZ_F32) /* what is normalised is the stored sum */
                    v = mz_load_n(a->sum, dtype, at, cols - c);
            }
            sum[r] += v;
        }
    for (int r = 0; r < n; r++)
        mean[r] = vf_sum(sum[r]) / (float)cols;
    for (int64_t c = 0; c < cols; c += VF_N)
        for (int r = 0; r < n; r++) {
            const vf d = mz_load_n(x, dtype, row + r * cols + c, cols - c) - mean[r];
            squares[r] = vf_fma(d, vf_select(vm_first(cols - c), d, vf_set1(0.0f)), squares[r]);
        }
    for (int r = 0; r < n; r++)
        rstd[r] = 1.0f / sqrtf(vf_sum(squares[r]) / (float)cols + a->eps);
    for (int64_t c = 0; c < cols; c += VF_N) {
        const int64_t left = cols - c;
        const vf weight = mz_load_n(a->weight, dtype, c, left), bias = mz_load_n(a->bias, dtype, c, left);
        for (int r = 0; r < n; r++) {
            const vf hat = (mz_load_n(x, dtype, row + r * cols + c, left) - mean[r]) * rstd[r];
            mz_store_n(a->y, dtype, row + r * cols + c, vf_fma(hat, weight, bias), left);
        }
    }
    for (int r = 0; a->mean && r < n; r++) {
        a->mean[first + r] = mean[r];
        a->rstd[first + r] = rstd[r];
    }
}

MZ_INLINE void normalise_range(const mz_layer_norm_args *a, mz_dtype dtype, int64_t begin, int64_t end)
{
    int64_t r = begin;
    for (; r + ROWS <= end; r += ROWS)
        normalise_rows(a, dtype, r, ROWS);
    for (; r < end; r++)
        normalise_rows(a, dtype, r, 1);
}

static void normalise_part(void *arg, int64_t begin, int64_t end, int thread)
{
    const mz_layer_norm_args *a = arg;
    (void)thread;
    MZ_FOR_DTYPE(a->dtype, normalise_range(a, D, begin, end));
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
MZ_INLINE void input_grad_rows(const mz_layer_norm_grad_args *a, mz_dtype dtype, int64_t first, int n)
{
    const int64_t cols = a->cols, row = first * cols;
    const float *mean = a->mean + first, *rstd = a->rstd + first;
    vf sum_g[ROWS], sum_g_hat[ROWS];
    float mean_g[ROWS], mean_g_hat[ROWS];
    for (int r = 0; r < n; r++)
        sum_g[r] = sum_g_hat[r] = vf_set1(0.0f);
    for (int64_t c = 0; c < cols; c += VF_N) {
        const int64_t left = cols - c; /* g is 0 in lanes beyond the row */
        const vf weight = mz_load_n(a->weight, dtype, c, left);
        for (int r = 0; r < n; r++) {
            const vf g = mz_load_n(a->dy, dtype, row + r * cols + c, left) * weight;
            const vf hat = (mz_load_n(a->x, dtype, row + r * cols + c, left) - mean[r]) * rstd[r];
            sum_g[r] += g;
            sum_g_hat[r] = vf_fma(g, hat, sum_g_hat[r]);
        }
    }
    for (int r = 0; r < n; r++) {
        mean_g[r] = vf_sum(sum_g[r]) / (float)cols;
        mean_g_hat[r] = vf_sum(sum_g_hat[r]) / (float)cols;
    }
    for (int64_t c = 0; c < cols; c += VF_N) {
        const int64_t left = cols - c;
        const vf weight = mz_load_n(a->weight, dtype, c, left);
        for (int r = 0; r < n; r++) {
            const int64_t at = row + r * cols + c;
            const vf g = mz_load_n(a->dy, dtype, at, left) * weight;
            const vf hat = (mz_load_n(a->x, dtype, at, left) - mean[r]) * rstd[r];
            vf dx = (g - mean_g[r] - hat * mean_g_hat[r]) * rstd[r];
            if (a->dresidual)
                dx += mz_load_n(a->dresidual, dtype, at, left);
            mz_store_n(a->dx, dtype, at, dx, left);
        }
    }
}

MZ_INLINE void input_grad_range(const mz_layer_norm_grad_args *a, mz_dtype dtype, int64_t begin, int64_t end)
{
    int64_t r = begin;
    for (; r + ROWS <= end; r += ROWS)
        input_grad_rows(a, dtype, r, ROWS);
    for (; r < end; r++)
        input_grad_rows(a, dtype, r, 1);
}

static void input_grad_part(void *arg, int64_t begin, int64_t end, int thread)
{
    const mz_layer_norm_grad_args *a = arg;
    (void)thread;
    MZ_FOR_DTYPE(a->dtype, input_grad_range(a, D, begin, end));
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
