#include "kernels/check.h"
#include "kernels/cpu/family.h"
#include "kernels/cpu/storage.h"

/* A block at a time passes through fp32 and int32 on the stack; the loops over these are the compiler's to
 * vectorise. */

#define LEAST 0x1p-100f
enum { GRAIN = 16 }; /* blocks */

MZ_INLINE int64_t block_size(int64_t n, int64_t block)
{
    int64_t left = n - block * MZ_QUANT_BLOCK;
    return left < MZ_QUANT_BLOCK ? left : MZ_QUANT_BLOCK;
}

MZ_INLINE int64_t block_offset(int64_t n, int bits, int64_t block)
{
    return (n + MZ_QUANT_BLOCK - 1) / MZ_QUANT_BLOCK * (int64_t)sizeof(float) + block * MZ_QUANT_BLOCK * bits / 8;
}

/* The largest magnitude of a block of floats, as bits: of what is not finite they are the largest. */
static uint32_t largest_bits(const float *x)
{
    uint32_t most = 0;
    for (int i = 0; i < MZ_QUANT_BLOCK; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        bits &= 0x7fffffff;
        most = bits > most ? bits : most;
    }
    return most;
}

/* x becomes whole numbers; returns the scale. What lies behind the block's end is 0. */
static float round_block(const float *x, float limit, int32_t *q)
{
    const uint32_t bits = largest_bits(x);
    float most, scale, inverse = 0;
    memcpy(&most, &bits, sizeof most);
    if (bits >= 0x7f800000)
        scale = NAN;
    else if (most < LEAST)
        scale = 0;
    else {
        scale = most / limit;
        inverse = limit / most;
    }
    if (inverse == 0) {
        memset(q, 0, MZ_QUANT_BLOCK * sizeof *q);
        return scale;
    }
    for (int i = 0; i < MZ_QUANT_BLOCK; i += VF_N) {
        const vi rounded = vf_to_vi(vf_round(vf_load(x + i) * inverse));
        memcpy(q + i, &rounded, sizeof rounded);
    }
    return scale;
}

static void pack_bytes(const int32_t *q, int64_t count, uint8_t *out)
{
    for (int64_t i = 0; i < count; i++)
        out[i] = (uint8_t)q[i];
}

static void pack_halves(const int32_t *q, int64_t count, uint8_t *out)
{
    const int64_t half = (count + 1) / 2; /* q[count] is 0 */
    for (int64_t i = 0; i < half; i++)
        out[i] = (uint8_t)((q[i] & 15) | (q[half + i] & 15) << 4);
}

MZ_INLINE void quantize_blocks(const mz_quantize_args *a, mz_dtype dtype, int64_t begin, int64_t end)
{
    float x[MZ_QUANT_BLOCK] __attribute__((aligned(64)));
    int32_t q[MZ_QUANT_BLOCK + 1];
    q[MZ_QUANT_BLOCK] = 0;
    for (int64_t block = begin; block < end; block++) {
        const int64_t count = block_size(a->n, block);
        for (int64_t i = 0; i < MZ_QUANT_BLOCK; i += VF_N)
            vf_store(x + i, i < count ? mz_load_n(a->src, dtype, block * MZ_QUANT_BLOCK + i, count - i) : (vf){0});
        ((float *)a->packed)[block] = round_block(x, a->bits == 8 ? 127.0f : 7.0f, q);
        uint8_t *out = (uint8_t *)a->packed + block_offset(a->n, a->bits, block);
        if (a->bits == 8)
            pack_bytes(q, count, out);
        else
            pack_halves(q, count, out);
    }
}

static void quantize_part(void *arg, int64_t begin, int64_t end, int thread)
{
    const mz_quantize_args *a = arg;
    (void)thread;
    MZ_FOR_DTYPE(a->dtype, quantize_blocks(a, D, begin, end));
}

mz_status MZ_CPU(quantize)(const mz_quantize_args *args, mz_stream *stream)
{
    mz_quantize_args a = *args;
    mz_status status = mz_check_quantize(args);
    if (!status)
        mz_threads_for(mz_threads_if_worth(stream, a.n), (a.n + MZ_QUANT_BLOCK - 1) / MZ_QUANT_BLOCK, GRAIN,
                       quantize_part, &a);
    return status;
}

static void unpack_bytes(const uint8_t *in, int64_t count, float scale, float *x)
{
    for (int64_t i = 0; i < count; i++)
        x[i] = (float)(int8_t)in[i] * scale;
}

/* x has room for one element more than an odd count. */
static void unpack_halves(const uint8_t *in, int64_t count, float scale, float *x)
{
    const int64_t half = (count + 1) / 2;
    for (int64_t i = 0; i < half; i++) {
        x[i] = (float)(((in[i] & 15) ^ 8) - 8) * scale;
        x[half + i] = (float)(((in[i] >> 4) ^ 8) - 8) * scale;
    }
}

MZ_INLINE void dequantize_blocks(const mz_dequantize_args *a, mz_dtype dtype, int64_t begin, int64_t end)
{
    float x[MZ_QUANT_BLOCK] __attribute__((aligned(64)));
    for (int64_t block = begin; block < end; block++) {
        const int64_t count = block_size(a->n, block);
        const uint8_t *in = (const uint8_t *)a->packed + block_offset(a->n, a->bits, block);
        const float scale = ((const float *)a->packed)[block];
        if (a->bits == 8)
            unpack_bytes(in, count, scale, x);
        else
            unpack_halves(in, count, scale, x);
        for (int64_t i = 0; i < count; i += VF_N)
            mz_store_n(a->dst, dtype, block * MZ_QUANT_BLOCK + i, vf_load(x + i), count - i);
    }
}

static void dequantize_part(void *arg, int64_t begin, int64_t end, int thread)
{
    const mz_dequantize_args *a = arg;
    (void)thread;
    MZ_FOR_DTYPE(a->dtype, dequantize_blocks(a, D, begin, end));
}

mz_status MZ_CPU(dequantize)(const mz_dequantize_args *args, mz_stream *stream)
{
    mz_dequantize_args a = *args;
    mz_status status = mz_check_dequantize(args);
    if (!status)
        mz_threads_for(mz_threads_if_worth(stream, a.n), (a.n + MZ_QUANT_BLOCK - 1) / MZ_QUANT_BLOCK, GRAIN,
                       dequantize_part, &a);
    return status;
}
