#include <math.h>

#include "core/half.h"
#include "kernels/check.h"
#include "kernels/ref/ref.h"

void mz_ref_store_sum(void *out, mz_dtype dtype, int64_t i, double sum, bool accumulate)
{
    if (accumulate)
        sum += (double)mz_load_f32(out, dtype, i);
    mz_store_f32(out, dtype, i, (float)sum);
}

mz_status mz_ref_column_sum(const mz_column_sum_args *a, mz_stream *stream)
{
    (void)stream;
    mz_status status = mz_check_column_sum(a);
    if (status || a->rows == 0)
        return status;
    for (int64_t c = 0; c < a->cols; c++) {
        double sum = 0.0;
        for (int64_t r = 0; r < a->rows; r++)
            sum += (double)mz_load_f32(a->x, a->dtype, r * a->cols + c);
        mz_ref_store_sum(a->out, a->dtype_out, c, sum, a->accumulate);
    }
    return MZ_OK;
}

mz_status mz_ref_sum_squares(const mz_sum_squares_args *a, mz_stream *stream)
{
    (void)stream;
    mz_status status = mz_check_sum_squares(a);
    if (status || a->n == 0)
        return status;
    double sum = 0.0;
    uint64_t nonfinite = 0;
    for (int64_t i = 0; i < a->n; i++) {
        double x = (double)a->scale * (double)mz_load_f32(a->x, a->dtype, i);
        sum += x * x;
        nonfinite += !isfinite(mz_load_f32(a->x, a->dtype, i));
    }
    *a->sum += sum;
    *a->nonfinite += nonfinite;
    return MZ_OK;
}

mz_status mz_ref_clip(const mz_clip_args *a, mz_stream *stream)
{
    (void)stream;
    mz_status status = mz_check_clip(a);
    if (status)
        return status;
    double norm = sqrt(*a->sum_squares) * a->unscale;
    double factor = a->clip > 0 ? a->clip / (norm + 1e-6) : 1;
    *a->scale = (float)(a->unscale * (factor < 1 ? factor : 1));
    return MZ_OK;
}

mz_status mz_ref_sum(const mz_sum_args *a, mz_stream *stream)
{
    (void)stream;
    mz_status status = mz_check_sum(a);
    if (status)
        return status;
    for (int64_t i = 0; i < a->n; i++) {
        float sum = 0.0f; /* fp32 in the order of sources: the bits are part of the definition */
        for (int s = 0; s < a->n_sources; s++)
            sum += mz_load_f32(a->sources[s], a->dtype, i);
        mz_store_f32(a->dst, a->dst_dtype, i, a->scale * sum);
    }
    return MZ_OK;
}
