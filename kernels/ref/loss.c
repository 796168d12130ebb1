#include <math.h>

#include "core/half.h"
#include "kernels/check.h"
#include "kernels/ref/ref.h"

/* The row's unscaled loss; its gradient overwrites dlogits, which may be the logits. */
static double row_loss(const mz_cross_entropy_args *a, int64_t r)
{
    int64_t row = r * a->ld;
    int32_t label = a->labels[r];
    double max = -INFINITY, sum = 0.0;
    for (int64_t c = 0; c < a->vocab; c++)
        max = fmax(max, (double)mz_load_f32(a->logits, a->dtype, row + c));
    for (int64_t c = 0; c < a->vocab; c++)
        sum += exp((double)mz_load_f32(a->logits, a->dtype, row + c) - max);
    double lse = max + log(sum);
    double loss = lse - (double)mz_load_f32(a->logits, a->dtype, row + label);

    for (int64_t c = 0; a->dlogits && c < a->vocab; c++) {
        double p = exp((double)mz_load_f32(a->logits, a->dtype, row + c) - lse);
        mz_store_f32(a->dlogits, a->dtype, row + c, (float)((p - (c == label)) * (double)*a->grad_scale));
    }
    return loss;
}

mz_status mz_ref_cross_entropy(const mz_cross_entropy_args *a, mz_stream *stream)
{
    (void)stream;
    mz_status status = mz_check_cross_entropy(a);
    if (status || a->rows == 0)
        return status;
    double total = 0.0;
    for (int64_t r = 0; r < a->rows; r++) {
        /* The data layer has refused labels outside the vocabulary; one that comes here is as good as none. */
        bool counts = a->labels[r] != a->ignore_index && a->labels[r] >= 0 && a->labels[r] < a->vocab;
        double loss = counts ? row_loss(a, r) : 0.0;
        for (int64_t c = counts ? a->vocab : 0; a->dlogits && c < a->ld; c++)
            mz_store_f32(a->dlogits, a->dtype, r * a->ld + c, 0.0f);
        if (a->row_loss)
            a->row_loss[r] = (float)loss;
        total += loss;
    }
    *a->loss += (float)(total * (double)*a->loss_scale);
    return MZ_OK;
}

mz_status mz_ref_mse(const mz_mse_args *a, mz_stream *stream)
{
    (void)stream;
    mz_status status = mz_check_mse(a);
    if (status || a->n == 0)
        return status;
    double total = 0.0;
    for (int64_t i = 0; i < a->n; i++) {
        double d = (double)mz_load_f32(a->x, a->dtype, i) - (double)mz_load_f32(a->target, a->dtype, i);
        total += d * d;
        if (a->dx)
            mz_store_f32(a->dx, a->dtype, i, (float)(2.0 * d * (double)*a->grad_scale));
    }
    *a->loss += (float)(total * (double)*a->loss_scale);
    return MZ_OK;
}
