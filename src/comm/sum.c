#include "comm/sum.h"

#include <string.h>

#include "core/half.h"

/* A tile of fp32 sums that stays in the first-level cache. */
enum { TILE = 1024 };

static const void *element(const void *p, mz_dtype dtype, int64_t i)
{
    return (const char *)p + (size_t)i * mz_dtype_size(dtype);
}

/* A source's tile as fp32: in place when it is fp32 already, else converted into `buffer`. */
static const float *as_f32(const void *source, mz_dtype dtype, int64_t first, int n, float *buffer)
{
    if (dtype == MZ_F32)
        return (const float *)source + first;
    mz_convert(buffer, MZ_F32, element(source, dtype, first), dtype, n);
    return buffer;
}

static void add_two(float *restrict sum, const float *a, const float *b, int n)
{
    for (int i = 0; i < n; i++)
        sum[i] = a[i] + b[i];
}

static void add_one(float *restrict sum, const float *a, int n)
{
    for (int i = 0; i < n; i++)
        sum[i] += a[i];
}

static void finish_tile(float *dst, const float *sum, int n, float scale, bool accumulate)
{
    if (accumulate)
        for (int i = 0; i < n; i++)
            dst[i] += scale * sum[i];
    else if (scale != 1.0f)
        for (int i = 0; i < n; i++)
            dst[i] = scale * sum[i];
    else
        memmove(dst, sum, (size_t)n * sizeof *dst); /* dst may be the only source */
}

void mz_comm_sum(void *dst, mz_dtype dst_dtype, const void *const *sources, int n_sources, mz_dtype dtype,
                 int64_t n, float scale, bool accumulate)
{
    float sum[TILE], left[TILE], right[TILE];
    for (int64_t first = 0; first < n; first += TILE) {
        int m = n - first < TILE ? (int)(n - first) : TILE;
        const float *total = as_f32(sources[0], dtype, first, m, left);
        for (int s = 1; s < n_sources; s++) {
            const float *next = as_f32(sources[s], dtype, first, m, right);
            if (s == 1)
                add_two(sum, total, next, m);
            else
                add_one(sum, next, m);
            total = sum;
        }
        if (dst_dtype == MZ_F32) {
            finish_tile((float *)dst + first, total, m, scale, accumulate);
        } else {
            void *out = (char *)dst + (size_t)first * mz_dtype_size(dst_dtype);
            if (accumulate)
                mz_convert(right, MZ_F32, out, dst_dtype, m);
            finish_tile(right, total, m, scale, accumulate);
            mz_convert(out, dst_dtype, right, MZ_F32, m);
        }
    }
}
