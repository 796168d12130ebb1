/* 16-bit floating point storage and fp32 arithmetic: conversions, round to nearest even. */
#ifndef MZ_CORE_HALF_H
#define MZ_CORE_HALF_H

#include <stdint.h>
#include <string.h>

#include "mpizero/dtype.h"

static inline float mz_bf16_to_f32(uint16_t h)
{
    uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static inline uint16_t mz_f32_to_bf16(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    if ((u & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)((u >> 16) | 0x40u); /* keep a NaN a NaN */
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

/* Stochastic rounding: the neighbour farther from zero with the probability of f's share of the way to it, which
 * 16 random bits decide; the upper half of `random` is not looked at. What bf16 holds stays as it is. */
static inline uint16_t mz_f32_to_bf16_stochastic(float f, uint32_t random)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    if ((u & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)((u >> 16) | 0x40u);
    return (uint16_t)((u + (random & 0xffffu)) >> 16);
}

float mz_f16_to_f32(uint16_t h);
uint16_t mz_f32_to_f16(float f);

/* One element of any floating dtype, for reference code and tests. */
float mz_load_f32(const void *p, mz_dtype dtype, int64_t i);
void mz_store_f32(void *p, mz_dtype dtype, int64_t i, float value);

/* dst[i] = src[i] between any two floating dtypes, vectorised; the ranges may not overlap unless equal. */
void mz_convert(void *dst, mz_dtype dst_dtype, const void *src, mz_dtype src_dtype, int64_t n);

#endif
