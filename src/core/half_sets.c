#include "core/half_sets.h"

#include <stdbool.h>
#include <stddef.h>

#include "core/half.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

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

const mz_half_set mz_half_plain = {"plain C", f16_to_f32_plain, f32_to_f16_plain, bf16_to_f32_plain,
                                   f32_to_bf16_plain};

#if defined(__x86_64__)

#define AVX2 __attribute__((target("avx2,f16c")))

AVX2 static void f16_to_f32_avx2(float *dst, const uint16_t *src, int64_t n)
{
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(dst + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(src + i))));
    mz_half_plain.f16_to_f32(dst + i, src + i, n - i);
}

AVX2 static void f32_to_f16_avx2(uint16_t *dst, const float *src, int64_t n)
{
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm_storeu_si128((__m128i *)(dst + i),
                         _mm256_cvtps_ph(_mm256_loadu_ps(src + i), _MM_FROUND_TO_NEAREST_INT));
    mz_half_plain.f32_to_f16(dst + i, src + i, n - i);
}

AVX2 static void bf16_to_f32_avx2(float *dst, const uint16_t *src, int64_t n)
{
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256i u = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(src + i)));
        _mm256_storeu_si256((__m256i *)(dst + i), _mm256_slli_epi32(u, 16));
    }
    mz_half_plain.bf16_to_f32(dst + i, src + i, n - i);
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
    mz_half_plain.f32_to_bf16(dst + i, src + i, n - i);
}

static const mz_half_set avx2 = {"AVX2", f16_to_f32_avx2, f32_to_f16_avx2, bf16_to_f32_avx2, f32_to_bf16_avx2};

#define AVX512 __attribute__((target("avx512f")))

AVX512 static void f16_to_f32_avx512(float *dst, const uint16_t *src, int64_t n)
{
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        _mm512_storeu_ps(dst + i, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(src + i))));
    mz_half_plain.f16_to_f32(dst + i, src + i, n - i);
}

AVX512 static void f32_to_f16_avx512(uint16_t *dst, const float *src, int64_t n)
{
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        _mm256_storeu_si256((__m256i *)(dst + i),
                            _mm512_cvtps_ph(_mm512_loadu_ps(src + i), _MM_FROUND_TO_NEAREST_INT));
    mz_half_plain.f32_to_f16(dst + i, src + i, n - i);
}

AVX512 static void bf16_to_f32_avx512(float *dst, const uint16_t *src, int64_t n)
{
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        const __m512i u = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(src + i)));
        _mm512_storeu_si512(dst + i, _mm512_slli_epi32(u, 16));
    }
    mz_half_plain.bf16_to_f32(dst + i, src + i, n - i);
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
    mz_half_plain.f32_to_bf16(dst + i, src + i, n - i);
}

static const mz_half_set avx512 = {"AVX-512", f16_to_f32_avx512, f32_to_f16_avx512, bf16_to_f32_avx512,
                                   f32_to_bf16_avx512};

/* Not every compiler's __builtin_cpu_supports knows F16C. */
static bool has_f16c(void)
{
    unsigned a, b, c = 0, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

const mz_half_set *mz_half_set_at(int i)
{
    const mz_half_set *sets[4] = {NULL};
    int n = 0;
    if (__builtin_cpu_supports("avx512f"))
        sets[n++] = &avx512;
    if (__builtin_cpu_supports("avx2") && has_f16c())
        sets[n++] = &avx2;
    sets[n++] = &mz_half_plain;
    return i >= 0 && i < n ? sets[i] : NULL;
}

#else

const mz_half_set *mz_half_set_at(int i)
{
    return i == 0 ? &mz_half_plain : NULL;
}

#endif
