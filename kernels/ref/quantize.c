#include <math.h>
#include <string.h>

#include "core/half.h"
#include "kernels/check.h"
#include "kernels/ref/ref.h"

/* Below it a block is 0: the inverse of its scale would be out of range. */
#define LEAST 0x1p-100f

static int64_t n_blocks(int64_t n)
{
    return (n + MZ_QUANT_BLOCK - 1) / MZ_QUANT_BLOCK;
}

static int64_t block_size(int64_t n, int64_t block)
{
    int64_t left = n - block * MZ_QUANT_BLOCK;
    return left < MZ_QUANT_BLOCK ? left : MZ_QUANT_BLOCK;
}

static uint8_t *block_at(void *packed, int64_t n, int bits, int64_t block)
{
    return (uint8_t *)packed + n_blocks(n) * (int64_t)sizeof(float) + block * MZ_QUANT_BLOCK * bits / 8;
}

/* The largest magnitude; NaN when something is not finite. */
static float largest(const mz_quantize_args *a, int64_t begin, int64_t count)
{
    float most = 0;
    for (int64_t i = begin; i < begin + count; i++) {
        float x = fabsf(mz_load_f32(a->src, a->dtype, i));
        if (!isfinite(x))
            return NAN;
        most = x > most ? x : most;
    }
    return most;
}

mz_status mz_ref_quantize(const mz_quantize_args *a, mz_stream *stream)
{
    (void)stream;
    mz_status status = mz_check_quantize(a);
    const float limit = (float)((1 << (a->bits - 1)) - 1);
    for (int64_t block = 0; !status && block < n_blocks(a->n); block++) {
        const int64_t count = block_size(a->n, block), half = (count + 1) / 2;
        const float most = largest(a, block * MZ_QUANT_BLOCK, count);
        const float scale = isnan(most) ? NAN : most < LEAST ? 0.0f : most / limit;
        const float inverse = scale > 0 ? limit / most : 0.0f;
        uint8_t *out = block_at(a->packed, a->n, a->bits, block);
        ((float *)a->packed)[block] = scale;
        if (a->bits == 4)
            memset(out, 0, (size_t)half);
        for (int64_t i = 0; i < count; i++) {
            const float x = mz_load_f32(a->src, a->dtype, block * MZ_QUANT_BLOCK + i);
            const int q = inverse > 0 ? (int)rintf(x * inverse) : 0;
            if (a->bits == 8)
                out[i] = (uint8_t)q;
            else
                out[i < half ? i : i - half] |= (uint8_t)((q & 15) << (i < half ? 0 : 4));
        }
    }
    return status;
}

mz_status mz_ref_dequantize(const mz_dequantize_args *a, mz_stream *stream)
{
    (void)stream;
    mz_status status = mz_check_dequantize(a);
    for (int64_t block = 0; !status && block < n_blocks(a->n); block++) {
        const int64_t count = block_size(a->n, block), half = (count + 1) / 2;
        const float scale = ((const float *)a->packed)[block];
        const uint8_t *in = block_at((void *)a->packed, a->n, a->bits, block);
        for (int64_t i = 0; i < count; i++) {
            int q;
            if (a->bits == 8)
                q = (int8_t)in[i];
            else
                q = ((in[i < half ? i : i - half] >> (i < half ? 0 : 4) & 15) ^ 8) - 8;
            mz_store_f32(a->dst, a->dtype, block * MZ_QUANT_BLOCK + i, (float)q * scale);
        }
    }
    return status;
}
