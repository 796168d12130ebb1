/* AVX2 with FMA and F16C. Included by simd.h only. */
#ifndef MZ_KERNELS_CPU_SIMD_AVX2_H
#define MZ_KERNELS_CPU_SIMD_AVX2_H

#include <immintrin.h>

typedef vi vm; /* all bits of a lane set or none */

MZ_INLINE vm vm_first(int64_t n)
{
    const vi lane = {0, 1, 2, 3, 4, 5, 6, 7};
    return lane < (int32_t)(n < VF_N ? n : VF_N);
}

MZ_INLINE int vm_count(vm m)
{
    return __builtin_popcount((unsigned)_mm256_movemask_ps((__m256)m));
}

MZ_INLINE vf vf_set1(float x)
{
    return (vf)_mm256_set1_ps(x);
}

MZ_INLINE vf vf_load(const float *p)
{
    return (vf)_mm256_loadu_ps(p);
}

MZ_INLINE void vf_store(float *p, vf v)
{
    _mm256_storeu_ps(p, (__m256)v);
}

MZ_INLINE vf vf_load_n(const float *p, int64_t n)
{
    return (vf)_mm256_maskload_ps(p, (__m256i)vm_first(n));
}

MZ_INLINE void vf_store_n(float *p, vf v, int64_t n)
{
    _mm256_maskstore_ps(p, (__m256i)vm_first(n), (__m256)v);
}

MZ_INLINE vf vf_fma(vf a, vf b, vf c)
{
    return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}

MZ_INLINE vf vf_min(vf a, vf b)
{
    return (vf)_mm256_min_ps((__m256)a, (__m256)b);
}

MZ_INLINE vf vf_max(vf a, vf b)
{
    return (vf)_mm256_max_ps((__m256)a, (__m256)b);
}

MZ_INLINE vf vf_reciprocal(vf a)
{
    return 1.0f / a;
}

MZ_INLINE vf vf_sqrt(vf a)
{
    return (vf)_mm256_sqrt_ps((__m256)a);
}

MZ_INLINE vf vf_round(vf a)
{
    return (vf)_mm256_round_ps((__m256)a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

MZ_INLINE vi vf_to_vi(vf a)
{
    return (vi)_mm256_cvtps_epi32((__m256)a);
}

MZ_INLINE vf vi_to_vf(vi a)
{
    return (vf)_mm256_cvtepi32_ps((__m256i)a);
}

MZ_INLINE vm vf_lt(vf a, vf b)
{
    return (vm)_mm256_cmp_ps((__m256)a, (__m256)b, _CMP_LT_OQ);
}

MZ_INLINE vm vf_le(vf a, vf b)
{
    return (vm)_mm256_cmp_ps((__m256)a, (__m256)b, _CMP_LE_OQ);
}

MZ_INLINE vm vu_lt(vu a, vu b)
{
    return (vm)(a < b);
}

MZ_INLINE vf vf_select(vm m, vf a, vf b)
{
    return (vf)_mm256_blendv_ps((__m256)b, (__m256)a, (__m256)m);
}

/* x * 2^n for integral n, in two factors so that the result may be subnormal. */
MZ_INLINE vf vf_ldexp(vf x, vf n)
{
    const vi whole = vf_to_vi(n), half = whole >> 1;
    return x * (vf)((half + 127) << 23) * (vf)((whole - half + 127) << 23);
}

MZ_INLINE void vu_mul_wide(vu a, vu b, vu *low, vu *high)
{
    const __m256i even = _mm256_mul_epu32((__m256i)a, (__m256i)b);
    const __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64((__m256i)a, 32), _mm256_srli_epi64((__m256i)b, 32));
    *low = (vu)_mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa);
    *high = (vu)_mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
}

/* a0 b0 a1 b1 ... of the lower and the upper halves. */
MZ_INLINE vf vf_zip_low(vf a, vf b)
{
    return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
}

MZ_INLINE vf vf_zip_high(vf a, vf b)
{
    return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
}

MZ_INLINE __m128i mz_load_16_n(const uint16_t *p, int64_t n)
{
    uint16_t lanes[VF_N] = {0};
    memcpy(lanes, p, (size_t)(n < VF_N ? n : VF_N) * sizeof *p);
    return _mm_loadu_si128((const __m128i *)lanes);
}

MZ_INLINE void mz_store_16_n(uint16_t *p, __m128i v, int64_t n)
{
    uint16_t lanes[VF_N];
    _mm_storeu_si128((__m128i *)lanes, v);
    memcpy(p, lanes, (size_t)(n < VF_N ? n : VF_N) * sizeof *p);
}

MZ_INLINE vf mz_unpack_bf16(__m128i h)
{
    return (vf)_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16);
}

MZ_INLINE vf vf_from_f16(const uint16_t *p)
{
    return (vf)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}

MZ_INLINE vf vf_from_f16_n(const uint16_t *p, int64_t n)
{
    return (vf)_mm256_cvtph_ps(mz_load_16_n(p, n));
}

MZ_INLINE vf vf_from_bf16(const uint16_t *p)
{
    return mz_unpack_bf16(_mm_loadu_si128((const __m128i *)p));
}

MZ_INLINE vf vf_from_bf16_n(const uint16_t *p, int64_t n)
{
    return mz_unpack_bf16(mz_load_16_n(p, n));
}

MZ_INLINE __m128i mz_pack_f16(vf v)
{
    return _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* Rounds to nearest even; a NaN stays one. */
MZ_INLINE __m128i mz_pack_bf16(vf v)
{
    const vu u = (vu)v;
    const vf rounded = (vf)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16), quiet = (vf)((u >> 16) | 0x40u);
    const __m256i words = (__m256i)vf_select((vm)(v != v), quiet, rounded);
    return _mm_packus_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
}

MZ_INLINE void vf_to_f16(uint16_t *p, vf v)
{
    _mm_storeu_si128((__m128i *)p, mz_pack_f16(v));
}

MZ_INLINE void vf_to_f16_n(uint16_t *p, vf v, int64_t n)
{
    mz_store_16_n(p, mz_pack_f16(v), n);
}

MZ_INLINE void vf_to_bf16(uint16_t *p, vf v)
{
    _mm_storeu_si128((__m128i *)p, mz_pack_bf16(v));
}

MZ_INLINE void vf_to_bf16_n(uint16_t *p, vf v, int64_t n)
{
    mz_store_16_n(p, mz_pack_bf16(v), n);
}

MZ_INLINE void vf_stream(float *p, vf v)
{
    _mm256_stream_ps(p, (__m256)v);
}

MZ_INLINE void vf_stream_f16(uint16_t *p, vf v)
{
    _mm_stream_si128((__m128i *)p, mz_pack_f16(v));
}

MZ_INLINE void vf_stream_bf16(uint16_t *p, vf v)
{
    _mm_stream_si128((__m128i *)p, mz_pack_bf16(v));
}

MZ_INLINE void vf_stream_end(void)
{
    _mm_sfence();
}

#endif
