#include "kernels/check.h"
#include "kernels/cpu/family.h"
#include "kernels/cpu/philox.h"
#include "kernels/cpu/storage.h"

/* Ranges are whole cache lines of 16-bit elements, so that threads never share a line. */
enum { GRAIN = 1024 };

MZ_INLINE void add_range(const mz_add_args *a, mz_dtype dtype, int64_t begin, int64_t end)
{
    for (int64_t i = begin; i < end; i += VF_N) {
        vf y = a->alpha * mz_load_n(a->a, dtype, i, end - i);
        if (a->b)
            y += a->beta * mz_load_n(a->b, dtype, i, end - i);
        mz_store_n(a->y, dtype, i, y, end - i);
    }
}

static void add_part(void *arg, int64_t begin, int64_t end, int thread)
{
    const mz_add_args *a = arg;
    (void)thread;
    MZ_FOR_DTYPE(a->dtype, add_range(a, D, begin, end));
}

mz_status MZ_CPU(add)(const mz_add_args *args, mz_stream *stream)
{
    mz_add_args a = *args;
    mz_status status = mz_check_add(args);
    if (!status)
        mz_threads_for(mz_threads_if_worth(stream, a.n), a.n, GRAIN, add_part, &a);
    return status;
}

MZ_INLINE void mul_range(const mz_mul_args *a, mz_dtype dtype, int64_t begin, int64_t end)
{
    for (int64_t i = begin; i < end; i += VF_N) {
        vf y = mz_load_n(a->a, dtype, i, end - i) * mz_load_n(a->b, dtype, i, end - i);
        if (a->accumulate)
            y += mz_load_n(a->y, dtype, i, end - i);
        mz_store_n(a->y, dtype, i, y, end - i);
    }
}

static void mul_part(void *arg, int64_t begin, int64_t end, int thread)
{
    const mz_mul_args *a = arg;
    (void)thread;
    MZ_FOR_DTYPE(a->dtype, mul_range(a, D, begin, end));
}

mz_status MZ_CPU(mul)(const mz_mul_args *args, mz_stream *stream)
{
    mz_mul_args a = *args;
    mz_status status = mz_check_mul(args);
    if (!status)
        mz_threads_for(mz_threads_if_worth(stream, a.n), a.n, GRAIN, mul_part, &a);
    return status;
}

/* Draws come in runs that start at a multiple of four elements of the global tensor. */
MZ_INLINE void dropout_range(const mz_dropout_args *a, mz_dtype dtype, int64_t begin, int64_t end)
{
    const mz_dropout *d = &a->dropout;
    const uint64_t first = (uint64_t)(d->state->first_sample * d->sample_elements);
    uint32_t draws[MZ_DRAWS];
    for (int64_t i = begin; i < end;) {
        const uint64_t element = first + (uint64_t)i;
        const int64_t skip = (int64_t)(element % 4);
        int64_t n = MZ_DRAWS - skip;
        n = n < end - i ? n : end - i;
        mz_philox_run(d, element / 4, draws);
        for (int64_t v = 0; v < n; v += VF_N) {
            const vu draw = (vu)vf_load_n((const float *)draws + skip + v, n - v);
            vf y = mz_load_n(a->x, dtype, i + v, n - v) * mz_keep_factor(d, draw);
            if (a->residual)
                y += mz_load_n(a->residual, dtype, i + v, n - v);
            mz_store_n(a->y, dtype, i + v, y, n - v);
        }
        i += n;
    }
}

static void dropout_part(void *arg, int64_t begin, int64_t end, int thread)
{
    const mz_dropout_args *a = arg;
    (void)thread;
    MZ_FOR_DTYPE(a->dtype, dropout_range(a, D, begin, end));
}

mz_status MZ_CPU(dropout)(const mz_dropout_args *args, mz_stream *stream)
{
    mz_dropout_args a = *args;
    mz_status status = mz_check_dropout(args);
    if (status)
        return status;
    if (a.dropout.p == 0.0f) /* a plain sum */
        return MZ_CPU(add)(
            &(mz_add_args){
                .n = a.n, .alpha = 1.0f, .beta = 1.0f, .a = a.x, .b = a.residual, .y = a.y, .dtype = a.dtype},
            stream);
    mz_threads_for(mz_threads_if_worth(stream, 4 * a.n), a.n, GRAIN, dropout_part, &a);
    return MZ_OK;
}

MZ_INLINE void cast_range(const mz_cast_args *a, mz_dtype from, mz_dtype to, int64_t begin, int64_t end)
{
    for (int64_t i = begin; i < end; i += VF_N) {
        vf y = a->scale * mz_load_n(a->src, from, i, end - i);
        if (a->accumulate)
            y += mz_load_n(a->dst, to, i, end - i);
        mz_store_n(a->dst, to, i, y, end - i);
    }
}

static void cast_from(const mz_cast_args *a, mz_dtype from, int64_t begin, int64_t end)
{
    if (from == MZ_F32)
        MZ_FOR_DTYPE(a->dst_dtype, cast_range(a, MZ_F32, D, begin, end));
    else if (from == MZ_F16)
        MZ_FOR_DTYPE(a->dst_dtype, cast_range(a, MZ_F16, D, begin, end));
    else
        MZ_FOR_DTYPE(a->dst_dtype, cast_range(a, MZ_BF16, D, begin, end));
}

static void cast_part(void *arg, int64_t begin, int64_t end, int thread)
{
    const mz_cast_args *a = arg;
    (void)thread;
    cast_from(a, a->src_dtype, begin, end);
}

mz_status MZ_CPU(cast)(const mz_cast_args *args, mz_stream *stream)
{
    mz_cast_args a = *args;
    mz_status status = mz_check_cast(args);
    if (status || a.n == 0)
        return status;
    if (a.scale_device)
        a.scale *= *a.scale_device;
    mz_threads_for(mz_threads_if_worth(stream, a.n), a.n, GRAIN, cast_part, &a);
    return MZ_OK;
}

MZ_INLINE void sum_range(const mz_sum_args *a, mz_dtype from, mz_dtype to, int64_t begin, int64_t end)
{
    for (int64_t i = begin; i < end; i += VF_N) {
        vf y = vf_set1(0.0f);
        for (int s = 0; s < a->n_sources; s++)
            y += mz_load_n(a->sources[s], from, i, end - i);
        mz_store_n(a->dst, to, i, y * a->scale, end - i);
    }
}

static void sum_part(void *arg, int64_t begin, int64_t end, int thread)
{
    const mz_sum_args *a = arg;
    (void)thread;
    if (a->dst_dtype == MZ_F32)
        MZ_FOR_DTYPE(a->dtype, sum_range(a, D, MZ_F32, begin, end));
    else if (a->dst_dtype == MZ_F16)
        MZ_FOR_DTYPE(a->dtype, sum_range(a, D, MZ_F16, begin, end));
    else
        MZ_FOR_DTYPE(a->dtype, sum_range(a, D, MZ_BF16, begin, end));
}

mz_status MZ_CPU(sum)(const mz_sum_args *args, mz_stream *stream)
{
    mz_sum_args a = *args;
    mz_status status = mz_check_sum(args);
    if (!status)
        mz_threads_for(mz_threads_if_worth(stream, a.n * a.n_sources), a.n, GRAIN, sum_part, &a);
    return status;
}
