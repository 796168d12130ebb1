#include "kernels/check.h"
#include "kernels/cpu/family.h"
#include "kernels/cpu/storage.h"
#include "kernels/cpu/vmath.h"

/* Columns whose maximum is taken before their exponentials: a block stays in the first-level cache. */
enum { BLOCK = 2048 };

typedef struct loss_work {
    const mz_cross_entropy_args *args;
    double *row_loss;
} loss_work;

/* log of the sum of e^x over the row, in one pass over memory (Milakov and Gimelshein, "Online normalizer
 * calculation for softmax", 2018, by blocks). */
MZ_INLINE double log_sum_exp(const void *x, mz_dtype dtype, int64_t row, int64_t n)
{
    float max = -INFINITY;
    double sum = 0.0;
    for (int64_t begin = 0; begin < n; begin += BLOCK) {
        const int64_t end = begin + BLOCK < n ? begin + BLOCK : n;
        vf top = vf_set1(-INFINITY), part = vf_set1(0.0f);
        for (int64_t c = begin; c < end; c += VF_N) {
            const vf v = mz_load_n(x, dtype, row + c, end - c);
            top = vf_max(top, end - c >= VF_N ? v : vf_select(vm_first(end - c), v, top));
        }
        const float block_max = vf_hmax(top);
        if (block_max > max) {
            sum *= exp((double)max - (double)block_max);
            max = block_max;
        }
        if (max == -INFINITY)
            continue;
        for (int64_t c = begin; c < end; c += VF_N) {
            const vf e = vf_exp(mz_load_n(x, dtype, row + c, end - c) - max);
            part += end - c >= VF_N ? e : vf_select(vm_first(end - c), e, vf_set1(0.0f));
        }
        sum += (double)vf_sum(part);
    }
    return (double)max + log(sum);
}

MZ_INLINE double row_loss(const mz_cross_entropy_args *a, mz_dtype dtype, int64_t r)
{
    const int64_t row = r * a->ld;
    const double lse = log_sum_exp(a->logits, dtype, row, a->vocab);
    const double target = (double)mz_load_f32(a->logits, dtype, row + a->labels[r]);
    if (a->dlogits) {
        const float scale = *a->grad_scale, shift = (float)lse;
        for (int64_t c = 0; c < a->vocab; c += VF_N) {
            const vf x = mz_load_n(a->logits, dtype, row + c, a->vocab - c);
            mz_store_n(a->dlogits, dtype, row + c, vf_exp(x - shift) * scale, a->vocab - c);
        }
        const double p = exp(target - lse);
        mz_store_f32(a->dlogits, dtype, row + a->labels[r], (float)((p - 1.0) * (double)scale));
    }
    return lse - target;
}

static void loss_part(void *arg, int64_t begin, int64_t end, int thread)
{
    const loss_work *w = arg;
    const mz_cross_entropy_args *a = w->args;
    const int64_t size = mz_storage_size(a->dtype);
    (void)thread;
    for (int64_t r = begin; r < end; r++) {
        /* The data layer has refused labels outside the vocabulary; one that comes here is as good as none. */
        const bool counts = a->labels[r] != a->ignore_index && a->labels[r] >= 0 && a->labels[r] < a->vocab;
        double loss = 0.0;
        if (counts)
            MZ_FOR_DTYPE(a->dtype, loss = row_loss(a, D, r));
        const int64_t keep = counts ? a->vocab : 0;
        if (a->dlogits)
            memset(mz_at(a->dlogits, a->dtype, r * a->ld + keep), 0, (size_t)((a->ld - keep) * size));
        if (a->row_loss)
            a->row_loss[r] = (float)loss;
        w->row_loss[r] = loss;
    }
}

mz_status MZ_CPU(cross_entropy)(const mz_cross_entropy_args *args, mz_stream *stream)
{
    mz_status status = mz_check_cross_entropy(args);
    if (status || args->rows == 0)
        return status;
    void *scratch;
    status = mz_cpu_scratch_take(stream, (size_t)args->rows * sizeof(double), &scratch);
    if (status)
        return status;
    loss_work w = {args, scratch};
    mz_threads_for(mz_threads_if_worth(stream, 4 * args->rows * args->vocab), args->rows, 1, loss_part, &w);
    double total = 0.0;
    for (int64_t r = 0; r < args->rows; r++)
        total += w.row_loss[r];
    mz_cpu_scratch_give(stream, scratch);
    *args->loss += (float)(total * (double)*args->loss_scale);
    return MZ_OK;
}
