#include <math.h>

#include "core/half.h"
#include "kernels/check.h"
#include "kernels/ref/ref.h"

mz_status mz_ref_layer_norm(const mz_layer_norm_args *a, mz_stream *stream)
{
    (void)stream;
    mz_status status = mz_check_layer_norm(a);
    if (status)
        return status;
    for (int64_t r = 0; r < a->rows; r++) {
        int64_t row = r * a->cols;
        for (int64_t c = 0; a->residual && c < a->cols; c++)
            mz_store_f32(a->sum, a->dtype, row + c,
                         mz_load_f32(a->x, a->dtype, row + c) + mz_load_f32(a->residual, a->dtype, row + c));

        /* What is normalised is the stored sum, so that the backward pass sees the same numbers. */
        const void *x = a->residual ? a->sum : a->x;
        double mean = 0.0, variance = 0.0;
        for (int64_t c = 0; c < a->cols; c++)
            mean += (double)mz_load_f32(x, a->dtype, row + c);
        mean /= (double)a->cols;
        for (int64_t c = 0; c < a->cols; c++) {
            double d = (double)mz_load_f32(x, a->dtype, row + c) - mean;
            variance += d * d;
        }
        variance /= (double)a->cols;
        double rstd = 1.0 / sqrt(variance + (double)a->eps);

        for (int64_t c = 0; c < a->cols; c++) {
            double hat = ((double)mz_load_f32(x, a->dtype, row + c) - mean) * rstd;
            double w = (double)mz_load_f32(a->weight, a->dtype, c), b = (double)mz_load_f32(a->bias, a->dtype, c);
            mz_store_f32(a->y, a->dtype, row + c, (float)(hat * w + b));
        }
        if (a->mean) {
            a->mean[r] = (float)mean;
            a->rstd[r] = (float)rstd;
        }
    }
    return MZ_OK;
}

/* The normalised input and the incoming gradient at [r][c]. */
static double hat_at(const mz_layer_norm_grad_args *a, int64_t r, int64_t c)
{
    return ((double)mz_load_f32(a->x, a->dtype, r * a->cols + c) - (double)a->mean[r]) * (double)a->rstd[r];
}

static double dy_at(const mz_layer_norm_grad_args *a, int64_t r, int64_t c)
{
    return (double)mz_load_f32(a->dy, a->dtype, r * a->cols + c);
}

/* dx = rstd * (g - mean(g) - hat * mean(g * hat)) with g = dy * weight. */
static void input_grad(const mz_layer_norm_grad_args *a, int64_t r)
{
    double mean_g = 0.0, mean_g_hat = 0.0;
    for (int64_t c = 0; c < a->cols; c++) {
        double g = dy_at(a, r, c) * (double)mz_load_f32(a->weight, a->dtype, c);
        mean_g += g;
        mean_g_hat += g * hat_at(a, r, c);
    }
    mean_g /= (double)a->cols;
    mean_g_hat /= (double)a->cols;
    for (int64_t c = 0; c < a->cols; c++) {
        double g = dy_at(a, r, c) * (double)mz_load_f32(a->weight, a->dtype, c);
        double dx = (double)a->rstd[r] * (g - mean_g - hat_at(a, r, c) * mean_g_hat);
        if (a->dresidual)
            dx += (double)mz_load_f32(a->dresidual, a->dtype, r * a->cols + c);
        mz_store_f32(a->dx, a->dtype, r * a->cols + c, (float)dx);
    }
}

mz_status mz_ref_layer_norm_grad(const mz_layer_norm_grad_args *a, mz_stream *stream)
{
    (void)stream;
    mz_status status = mz_check_layer_norm_grad(a);
    if (status || a->rows == 0)
        return status;
    for (int64_t r = 0; r < a->rows; r++)
        input_grad(a, r);
    for (int64_t c = 0; c < a->cols; c++) {
        double dweight = 0.0, dbias = 0.0;
        for (int64_t r = 0; r < a->rows; r++) {
            dweight += dy_at(a, r, c) * hat_at(a, r, c);
            dbias += dy_at(a, r, c);
        }
        mz_ref_store_sum(a->dweight, a->dtype_grad, c, dweight, a->accumulate_dweight);
        mz_ref_store_sum(a->dbias, a->dtype_grad, c, dbias, a->accumulate_dbias);
    }
    return MZ_OK;
}
