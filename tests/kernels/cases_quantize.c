/* Packing into blocks of few bits and back: the same bytes on every backend. */
#include <math.h>

#include "tests/kernels/harness.h"

static const int64_t sizes[] = {0, 1, 2, 3, 63, 255, 256, 257, 511, 768, 5000, 40000};
enum { N_SIZES = sizeof sizes / sizeof sizes[0] };

/* Of each kind one block, where there is room: with an infinity, with a NaN, tiny, zero, of ties. */
static void set_oddities(harness *h, buffer *src, int64_t n, mz_dtype dtype, int bits)
{
    if (n < 5 * MZ_QUANT_BLOCK)
        return;
    set_element(h, src, 3, -INFINITY);
    set_element(h, src, MZ_QUANT_BLOCK + 100, NAN);
    for (int i = 0; i < MZ_QUANT_BLOCK; i++) {
        set_element(h, src, 2 * MZ_QUANT_BLOCK + i, dtype == MZ_F16 ? 0 : 1e-35f);
        set_element(h, src, 3 * MZ_QUANT_BLOCK + i, 0);
        set_element(h, src, 4 * MZ_QUANT_BLOCK + i, (float)(i % 14 - 7) + 0.5f);
    }
    set_element(h, src, 4 * MZ_QUANT_BLOCK, bits == 8 ? 127 : 7);
}

static void quantize_case(harness *h, int64_t n, mz_dtype dtype, int bits)
{
    begin_case(h, "n=%ld %s %d bits", (long)n, mz_dtype_name(dtype), bits);
    buffer *src = random_buffer(h, dtype, n, -3, 3);
    set_oddities(h, src, n, dtype, bits);
    int64_t floats = (int64_t)((mz_quantized_bytes(n, bits) + sizeof(float) - 1) / sizeof(float));
    buffer *packed = output_buffer(h, MZ_F32, floats), *back = output_buffer(h, dtype, n);
    for (int side = 0; side < N_SIDES; side++) {
        mz_quantize_args args = {
            .n = n, .bits = bits, .src = at(src, side), .dtype = dtype, .packed = at(packed, side)};
        launched(h, h->kernels[side]->quantize(&args, h->streams[side]));
        mz_dequantize_args and_back = {
            .n = n, .bits = bits, .packed = at(packed, side), .dst = at(back, side), .dtype = dtype};
        launched(h, h->kernels[side]->dequantize(&and_back, h->streams[side]));
    }
    compare_bytes(h, packed, "packed");
    compare(h, back, "back", 0, 0);
    end_case(h);
}

/* What rounding to a block's scale costs: half of it at most, which the reference is held to here. */
static void error_case(harness *h, int bits)
{
    float x[MZ_QUANT_BLOCK], y[MZ_QUANT_BLOCK], packed[MZ_QUANT_BLOCK / 4 + 1], most = 0, worst = 0;
    begin_case(h, "error of %d bits", bits);
    for (int i = 0; i < MZ_QUANT_BLOCK; i++) {
        x[i] = sinf((float)(i * i));
        most = fmaxf(most, fabsf(x[i]));
    }
    const mz_quantize_args args = {MZ_QUANT_BLOCK, bits, x, MZ_F32, packed};
    const mz_dequantize_args back = {MZ_QUANT_BLOCK, bits, packed, y, MZ_F32};
    launched(h, h->kernels[REFERENCE]->quantize(&args, h->streams[REFERENCE]));
    launched(h, h->kernels[REFERENCE]->dequantize(&back, h->streams[REFERENCE]));
    for (int i = 0; i < MZ_QUANT_BLOCK; i++)
        worst = fmaxf(worst, fabsf(x[i] - y[i]));
    float allowed = 0.5001f * most / (bits == 8 ? 127 : 7);
    launched(h, worst <= allowed && worst > 0.8f * allowed ? MZ_OK : MZ_ERR_INTERNAL);
    end_case(h);
}

void test_quantize(harness *h)
{
    begin_slot(h, "quantize");
    for (int bits = 4; bits <= 8; bits += 4) {
        error_case(h, bits);
        for (int d = 0; d < N_STORAGE_DTYPES; d++)
            for (int i = 0; i < N_SIZES; i++)
                quantize_case(h, sizes[i], storage_dtypes[d], bits);
    }
    end_slot(h);
}
