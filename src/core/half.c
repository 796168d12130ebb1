#include "core/half.h"

#include <stddef.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

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

/* ---- the four conversions between fp32 and 16 bits, each over a range ---- */

typedef struct converters {
    void (*f16_to_f32)(float *dst, const uint16_t *src, int64_t n);
    void (*f32_to_f16)(uint16_t *dst, const float *src, int64_t n);
    void (*bf16_to_f32)(float *dst, const uint16_t *src, int64_t n);
    void (*f32_to_bf16)(uint16_t *dst, const float *src, int64_t n);
} converters;

static void f16_to_f32_plain(float *dst, const uint16_t *src, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        dst[i] = mz_f16_to_f32(src[i]);
}

static void f32_to_f16_plain(uint16_t *dst, const float *src, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        dst[i] = mz_f32_to_f16(src[i]);
}

static void bf16_to_f32_plain(float *dst, const uint16_t *src, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        dst[i] = mz_bf16_to_f32(src[i]);
}

static void f32_to_bf16_plain(uint16_t *dst, const float *src, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        dst[i] = mz_f32_to_bf16(src[i]);
}

static const converters plain = {f16_to_f32_plain, f32_to_f16_plain, bf16_to_f32_plain, f32_to_bf16_plain};

#if defined(__x86_64__)

#define AVX2 __attribute__((target("avx2,f16c")))

AVX2 static void f16_to_f32_avx2(float *dst, const uint16_t *src, int64_t n)
{
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(dst + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(src + i))));
    f16_to_f32_plain(dst + i, src + i, n - i);
}

AVX2 static void f32_to_f16_avx2(uint16_t *dst, const float *src, int64_t n)
{
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm_storeu_si128((__m128i *)(dst + i),
                         _mm256_cvtps_ph(_mm256_loadu_ps(src + i), _MM_FROUND_TO_NEAREST_INT));
    f32_to_f16_plain(dst + i, src + i, n - i);
}

AVX2 static void bf16_to_f32_avx2(float *dst, const uint16_t *src, int64_t n)
{
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256i u = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(src + i)));
        _mm256_storeu_si256((__m256i *)(dst + i), _mm256_slli_epi32(u, 16));
    }
    bf16_to_f32_plain(dst + i, src + i, n - i);
}

/* Eight floats to bf16 in the low halves of eight words; the arithmetic of mz_f32_to_bf16. */
AVX2 static inline __m256i round_bf16_avx2(const float *src)
{
    const __m256i u = _mm256_loadu_si256((const __m256i *)src);
    const __m256i high = _mm256_srli_epi32(u, 16);
    const __m256i odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
    const __m256i rounded =
        _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), odd), 16);
    const __m256i nan =
        _mm256_cmpgt_epi32(_mm256_and_si256(u, _mm256_set1_epi32(0x7fffffff)), _mm256_set1_epi32(0x7f800000));
    return _mm256_blendv_epi8(rounded, _mm256_or_si256(high, _mm256_set1_epi32(0x40)), nan);
}

AVX2 static void f32_to_bf16_avx2(uint16_t *dst, const float *src, int64_t n)
{
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        const __m256i packed = _mm256_packus_epi32(round_bf16_avx2(src + i), round_bf16_avx2(src + i + 8));
        _mm256_storeu_si256((__m256i *)(dst + i), _mm256_permute4x64_epi64(packed, 0xd8));
    }
    f32_to_bf16_plain(dst + i, src + i, n - i);
}

static const converters avx2 = {f16_to_f32_avx2, f32_to_f16_avx2, bf16_to_f32_avx2, f32_to_bf16_avx2};

#define AVX512 __attribute__((target("avx512f")))

AVX512 static void f16_to_f32_avx512(float *dst, const uint16_t *src, int64_t n)
{
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        _mm512_storeu_ps(dst + i, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(src + i))));
    f16_to_f32_plain(dst + i, src + i, n - i);
}

AVX512 static void f32_to_f16_avx512(uint16_t *dst, const float *src, int64_t n)
{
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        _mm256_storeu_si256((__m256i *)(dst + i),
                            _mm512_cvtps_ph(_mm512_loadu_ps(src + i), _MM_FROUND_TO_NEAREST_INT));
    f32_to_f16_plain(dst + i, src + i, n - i);
}

AVX512 static void bf16_to_f32_avx512(float *dst, const uint16_t *src, int64_t n)
{
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        const __m512i u = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(src + i)));
        _mm512_storeu_si512(dst + i, _mm512_slli_epi32(u, 16));
    }
    bf16_to_f32_plain(dst + i, src + i, n - i);
}

AVX512 static void f32_to_bf16_avx512(uint16_t *dst, const float *src, int64_t n)
{
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        const __m512i u = _mm512_loadu_si512(src + i);
        const __m512i high = _mm512_srli_epi32(u, 16);
        const __m512i odd = _mm512_and_si512(high, _mm512_set1_epi32(1));
        const __m512i rounded =
            _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), odd), 16);
        const __mmask16 nan = _mm512_cmpgt_epi32_mask(_mm512_and_si512(u, _mm512_set1_epi32(0x7fffffff)),
                                                      _mm512_set1_epi32(0x7f800000));
        const __m512i result = _mm512_mask_or_epi32(rounded, nan, high, _mm512_set1_epi32(0x40));
        _mm256_storeu_si256((__m256i *)(dst + i), _mm512_cvtepi32_epi16(result));
    }
    f32_to_bf16_plain(dst + i, src + i, n - i);
}

static const converters avx512 = {f16_to_f32_avx512, f32_to_f16_avx512, bf16_to_f32_avx512, f32_to_bf16_avx512};

static const converters *best_converters(void)
{
    if (__builtin_cpu_supports("avx512f"))
        return &avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c"))
        return &avx2;
    return &plain;
}

#else

static const converters *best_converters(void)
{
    return &plain;
}

#endif

/* Reads n elements of any floating dtype as fp32. */
static void widen(const converters *c, float *dst, const void *src, mz_dtype dtype, int64_t first, int64_t n)
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

static void narrow(const converters *c, void *dst, mz_dtype dtype, const float *src, int64_t first, int64_t n)
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
    const converters *c = best_converters();
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
