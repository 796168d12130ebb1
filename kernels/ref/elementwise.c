#include "core/half.h"
#include "kernels/check.h"
#include "kernels/dropout.h"
#include "kernels/ref/ref.h"

mz_status mz_ref_add(const mz_add_args *a, mz_stream *stream)
{
    (void)stream;
    mz_status status = mz_check_add(a);
    if (status)
        return status;
    for (int64_t i = 0; i < a->n; i++) {
        float y = a->alpha * mz_load_f32(a->a, a->dtype, i);
        if (a->b)
            y += a->beta * mz_load_f32(a->b, a->dtype, i);
        mz_store_f32(a->y, a->dtype, i, y);
    }
    return MZ_OK;
}

mz_status mz_ref_mul(const mz_mul_args *a, mz_stream *stream)
{
    (void)stream;
    mz_status status = mz_check_mul(a);
    if (status)
        return status;
    for (int64_t i = 0; i < a->n; i++) {
        float y = mz_load_f32(a->a, a->dtype, i) * mz_load_f32(a->b, a->dtype, i);
        if (a->accumulate)
            y += mz_load_f32(a->y, a->dtype, i);
        mz_store_f32(a->y, a->dtype, i, y);
    }
    return MZ_OK;
}

mz_status mz_ref_dropout(const mz_dropout_args *a, mz_stream *stream)
{
    (void)stream;
    mz_status status = mz_check_dropout(a);
    if (status)
        return status;
    for (int64_t i = 0; i < a->n; i++) {
        float y = (float)((double)mz_load_f32(a->x, a->dtype, i) * mz_dropout_factor(&a->dropout, i));
        if (a->residual)
            y += mz_load_f32(a->residual, a->dtype, i);
        mz_store_f32(a->y, a->dtype, i, y);
    }
    return MZ_OK;
}

mz_status mz_ref_cast(const mz_cast_args *a, mz_stream *stream)
{
    (void)stream;
    mz_status status = mz_check_cast(a);
    if (status || a->n == 0)
        return status;
    float scale = a->scale_device ? a->scale * *a->scale_device : a->scale;
    for (int64_t i = 0; i < a->n; i++) {
        float y = scale * mz_load_f32(a->src, a->src_dtype, i);
        if (a->accumulate)
            y += mz_load_f32(a->dst, a->dst_dtype, i);
        mz_store_f32(a->dst, a->dst_dtype, i, y);
    }
    return MZ_OK;
}
