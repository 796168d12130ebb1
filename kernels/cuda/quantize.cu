/* Blocks of numbers of few bits: a warp per block. */
#include "kernels/cuda/common.cuh"

enum { THREADS = 256, WARPS = THREADS / 32, EACH = MZ_QUANT_BLOCK / 32 };

static int64_t n_blocks(int64_t n)
{
    return div_up(n, MZ_QUANT_BLOCK);
}

/* Element i of a lane is element lane + 32 * i of the block. */
template <typename T>
__global__ void __launch_bounds__(THREADS)
    quantize_kernel(const T *src, int64_t n, int64_t blocks, int bits, uint8_t *packed)
{
    const int lane = threadIdx.x % 32;
    const float limit = bits == 8 ? 127.0f : 7.0f;
    for (int64_t block = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32; block < blocks;
         block += (int64_t)gridDim.x * WARPS) {
        const int64_t left = n - block * MZ_QUANT_BLOCK;
        const int count = left < MZ_QUANT_BLOCK ? (int)left : MZ_QUANT_BLOCK, half = (count + 1) / 2;
        float x[EACH];
        unsigned most_bits = 0;
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            const int at = lane + 32 * i;
            x[i] = at < count ? to_float(src[block * MZ_QUANT_BLOCK + at]) : 0.0f;
            most_bits = max(most_bits, __float_as_uint(x[i]) & 0x7fffffffu);
        }
#pragma unroll
        for (int offset = 16; offset > 0; offset /= 2)
            most_bits = max(most_bits, __shfl_xor_sync(0xffffffffu, most_bits, offset));
        const float most = __uint_as_float(most_bits);
        const bool finite = most_bits < 0x7f800000u, zero = finite && most < 0x1p-100f;
        const float inverse = finite && !zero ? __fdiv_rn(limit, most) : 0.0f;
        if (lane == 0)
            ((float *)packed)[block] = !finite ? __uint_as_float(0x7fc00000u) : zero ? 0.0f : __fdiv_rn(most, limit);
        uint8_t *out = packed + blocks * sizeof(float) + block * (MZ_QUANT_BLOCK / 8 * bits);
        if (bits == 8) {
#pragma unroll
            for (int i = 0; i < EACH; i++)
                if (lane + 32 * i < count)
                    out[lane + 32 * i] = (uint8_t)(inverse > 0 ? (int)rintf(__fmul_rn(x[i], inverse)) : 0);
            continue;
        }
        /* The partner of an element lies `half` further on, which is another lane's unless the block is whole. */
        for (int at = lane; at < half; at += 32) {
            const float low = to_float(src[block * MZ_QUANT_BLOCK + at]);
            const float high = half + at < count ? to_float(src[block * MZ_QUANT_BLOCK + half + at]) : 0.0f;
            const int q0 = inverse > 0 ? (int)rintf(__fmul_rn(low, inverse)) : 0;
            const int q1 = inverse > 0 ? (int)rintf(__fmul_rn(high, inverse)) : 0;
            out[at] = (uint8_t)((q0 & 15) | (q1 & 15) << 4);
        }
    }
}

template <typename T>
__global__ void __launch_bounds__(THREADS)
    dequantize_kernel(const uint8_t *packed, int64_t n, int64_t blocks, int bits, T *dst)
{
    const uint8_t *values = packed + blocks * sizeof(float);
    GRID_LOOP(i, n)
    {
        const int64_t block = i / MZ_QUANT_BLOCK, left = n - block * MZ_QUANT_BLOCK;
        const int at = (int)(i % MZ_QUANT_BLOCK);
        const uint8_t *in = values + block * (MZ_QUANT_BLOCK / 8 * bits);
        int q;
        if (bits == 8) {
            q = (int8_t)in[at];
        } else {
            const int count = left < MZ_QUANT_BLOCK ? (int)left : MZ_QUANT_BLOCK, half = (count + 1) / 2;
            q = ((in[at < half ? at : at - half] >> (at < half ? 0 : 4) & 15) ^ 8) - 8;
        }
        dst[i] = from_float<T>(__fmul_rn((float)q, ((const float *)packed)[block]));
    }
}

extern "C" mz_status mz_cuda_quantize(const mz_quantize_args *a, mz_stream *stream)
{
    mz_status status = mz_check_quantize(a);
    if (status || a->n == 0)
        return status;
    const int64_t blocks = n_blocks(a->n);
    FOR_DTYPE(a->dtype, T,
              quantize_kernel<T><<<grid_for(stream, blocks, WARPS), THREADS, 0, stream->stream>>>(
                  (const T *)a->src, a->n, blocks, a->bits, (uint8_t *)a->packed));
    return mz_cuda_launched("quantize");
}

extern "C" mz_status mz_cuda_dequantize(const mz_dequantize_args *a, mz_stream *stream)
{
    mz_status status = mz_check_dequantize(a);
    if (status || a->n == 0)
        return status;
    FOR_DTYPE(a->dtype, T,
              dequantize_kernel<T><<<grid_for(stream, a->n, THREADS), THREADS, 0, stream->stream>>>(
                  (const uint8_t *)a->packed, a->n, n_blocks(a->n), a->bits, (T *)a->dst));
    return mz_cuda_launched("dequantize");
}
