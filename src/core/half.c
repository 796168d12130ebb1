#include "core/half.h"

#include <stddef.h>

#include "core/half_sets.h"

float mz_f16_to_f32(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    const uint32_t exponent = h >> 10 & 0x1fu, fraction = h & 0x3ffu;
    uint32_t u;
    float f;
    if (exponent == 0) { /* zero or subnormal: fraction * 2^-24 is exact */
        f = (float)fraction * 0x1p-24f;
        memcpy(&u, &f, sizeof u);
        u |= sign;
    } else if (exponent == 0x1fu) {
        u = sign | 0x7f800000u | fraction << 13 | (fraction ? 0x400000u : 0);
    } else {
        u = sign | (exponent + 112) << 23 | fraction << 13;
    }
    memcpy(&f, &u, sizeof f);
    return f;
}

uint16_t mz_f32_to_f16(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    const uint16_t sign = (uint16_t)(u >> 16 & 0x8000u);
    u &= 0x7fffffffu;
    if (u > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u | (u >> 13 & 0x3ffu));
    if (u >= 0x477ff000u) /* 65520 and more round to infinity */
        return sign | 0x7c00u;
    if (u >= 0x38800000u) /* normal: round the 13 bits that go, to nearest even */
        return (uint16_t)(sign | ((u - 0x38000000u + 0xfffu + (u >> 13 & 1u)) >> 13));
    if (u < 0x33000000u) /* below half of the smallest subnormal */
        return sign;
    const uint32_t shift = 126 - (u >> 23), fraction = (u & 0x7fffffu) | 0x800000u;
    const uint32_t half = 1u << (shift - 1), rest = fraction & ((1u << shift) - 1);
    uint32_t rounded = fraction >> shift;
    if (rest > half || (rest == half && (rounded & 1u)))
        rounded++;
    return (uint16_t)(sign | rounded);
}

float mz_load_f32(const void *p, mz_dtype dtype, int64_t i)
{
    switch (dtype) {
    case MZ_F32:
        return ((const float *)p)[i];
    case MZ_F16:
        return mz_f16_to_f32(((const uint16_t *)p)[i]);
    case MZ_BF16:
        return mz_bf16_to_f32(((const uint16_t *)p)[i]);
    case MZ_F64:
        return (float)((const double *)p)[i];
    case MZ_I32:
        return (float)((const int32_t *)p)[i];
    case MZ_I64:
        return (float)((const int64_t *)p)[i];
    default:
        return (float)((const uint8_t *)p)[i];
    }
}

void mz_store_f32(void *p, mz_dtype dtype, int64_t i, float value)
{
    switch (dtype) {
    case MZ_F32:
        ((float *)p)[i] = value;
        break;
    case MZ_F16:
        ((uint16_t *)p)[i] = mz_f32_to_f16(value);
        break;
    case MZ_BF16:
        ((uint16_t *)p)[i] = mz_f32_to_bf16(value);
        break;
    case MZ_F64:
        ((double *)p)[i] = value;
        break;
    case MZ_I32:
        ((int32_t *)p)[i] = (int32_t)value;
        break;
    case MZ_I64:
        ((int64_t *)p)[i] = (int64_t)value;
        break;
    default:
        ((uint8_t *)p)[i] = (uint8_t)value;
        break;
    }
}

/* Reads n elements of any floating dtype as fp32. */
static void widen(const mz_half_set *c, float *dst, const void *src, mz_dtype dtype, int64_t first, int64_t n)
{
    switch (dtype) {
    case MZ_F16:
        c->f16_to_f32(dst, (const uint16_t *)src + first, n);
        break;
    case MZ_BF16:
        c->bf16_to_f32(dst, (const uint16_t *)src + first, n);
        break;
    default:
        for (int64_t i = 0; i < n; i++)
            dst[i] = mz_load_f32(src, dtype, first + i);
    }
}

static void narrow(const mz_half_set *c, void *dst, mz_dtype dtype, const float *src, int64_t first, int64_t n)
{
    switch (dtype) {
    case MZ_F16:
        c->f32_to_f16((uint16_t *)dst + first, src, n);
        break;
    case MZ_BF16:
        c->f32_to_bf16((uint16_t *)dst + first, src, n);
        break;
    default:
        for (int64_t i = 0; i < n; i++)
            mz_store_f32(dst, dtype, first + i, src[i]);
    }
}

void mz_convert(void *dst, mz_dtype dst_dtype, const void *src, mz_dtype src_dtype, int64_t n)
{
    const mz_half_set *c = mz_half_set_at(0);
    if (n <= 0)
        return;
    if (dst_dtype == src_dtype) {
        memmove(dst, src, (size_t)n * mz_dtype_size(src_dtype));
    } else if (src_dtype == MZ_F32) {
        narrow(c, dst, dst_dtype, src, 0, n);
    } else if (dst_dtype == MZ_F32) {
        widen(c, dst, src, src_dtype, 0, n);
    } else {
        enum { PIECE = 512 };
        float piece[PIECE];
        for (int64_t first = 0; first < n; first += PIECE) {
            const int64_t m = n - first < PIECE ? n - first : PIECE;
            widen(c, piece, src, src_dtype, first, m);
            narrow(c, dst, dst_dtype, piece, first, m);
        }
    }
}
