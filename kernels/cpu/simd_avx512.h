/* AVX-512 (F, BW, DQ, VL). Included by simd.h only. */
#ifndef MZ_KERNELS_CPU_SIMD_AVX512_H
#define MZ_KERNELS_CPU_SIMD_AVX512_H

#include <immintrin.h>

typedef __mmask16 vm;

MZ_INLINE vm vm_first(int64_t n)
{
    return n >= VF_N ? (vm)0xffff : (vm)((1u << n) - 1);
}

MZ_INLINE int vm_count(vm m)
{
    return __builtin_popcount(m);
}

MZ_INLINE vf vf_set1(float x)
{
    return (vf)_mm512_set1_ps(x);
}

MZ_INLINE vf vf_load(const float *p)
{
    return (vf)_mm512_loadu_ps(p);
}

MZ_INLINE void vf_store(float *p, vf v)
{
    _mm512_storeu_ps(p, (__m512)v);
}

MZ_INLINE vf vf_load_n(const float *p, int64_t n)
{
    return (vf)_mm512_maskz_loadu_ps(vm_first(n), p);
}

MZ_INLINE void vf_store_n(float *p, vf v, int64_t n)
{
    _mm512_mask_storeu_ps(p, vm_first(n), (__m512)v);
}

MZ_INLINE vf vf_fma(vf a, vf b, vf c)
{
    return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}

MZ_INLINE vf vf_min(vf a, vf b)
{
    return (vf)_mm512_min_ps((__m512)a, (__m512)b);
}

MZ_INLINE vf vf_max(vf a, vf b)
{
    return (vf)_mm512_max_ps((__m512)a, (__m512)b);
}

MZ_INLINE vf vf_sqrt(vf a)
{
    return (vf)_mm512_sqrt_ps((__m512)a);
}

/* An estimate to 2^-14 and a step of Newton's method, for a fifth of a division's time. */
MZ_INLINE vf vf_reciprocal(vf a)
{
    const vf y = (vf)_mm512_rcp14_ps((__m512)a);
    return vf_fma(y, (vf)_mm512_fnmadd_ps((__m512)a, (__m512)y, _mm512_set1_ps(1.0f)), y);
}

MZ_INLINE vf vf_round(vf a)
{
    return (vf)_mm512_roundscale_ps((__m512)a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

MZ_INLINE vi vf_to_vi(vf a)
{
    return (vi)_mm512_cvtps_epi32((__m512)a);
}

MZ_INLINE vf vi_to_vf(vi a)
{
    return (vf)_mm512_cvtepi32_ps((__m512i)a);
}

MZ_INLINE vm vf_lt(vf a, vf b)
{
    return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_LT_OQ);
}

MZ_INLINE vm vf_le(vf a, vf b)
{
    return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_LE_OQ);
}

MZ_INLINE vm vu_lt(vu a, vu b)
{
    return _mm512_cmplt_epu32_mask((__m512i)a, (__m512i)b);
}

MZ_INLINE vf vf_select(vm m, vf a, vf b)
{
    return (vf)_mm512_mask_blend_ps(m, (__m512)b, (__m512)a);
}

/* x * 2^n for integral n, gradual underflow included. */
MZ_INLINE vf vf_ldexp(vf x, vf n)
{
    return (vf)_mm512_scalef_ps((__m512)x, (__m512)n);
}

MZ_INLINE void vu_mul_wide(vu a, vu b, vu *low, vu *high)
{
    const __m512i even = _mm512_mul_epu32((__m512i)a, (__m512i)b);
    const __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64((__m512i)a, 32), _mm512_srli_epi64((__m512i)b, 32));
    *low = a * b;
    *high = (vu)_mm512_mask_blend_epi32(0xaaaa, _mm512_srli_epi64(even, 32), odd);
}

/* a0 b0 a1 b1 ... of the lower and the upper halves. */
MZ_INLINE vf vf_zip_low(vf a, vf b)
{
    return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}

MZ_INLINE vf vf_zip_high(vf a, vf b)
{
    return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}

MZ_INLINE vf vf_from_f16(const uint16_t *p)
{
    return (vf)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}

MZ_INLINE vf vf_from_f16_n(const uint16_t *p, int64_t n)
{
    return (vf)_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(vm_first(n), p));
}

MZ_INLINE vf vf_from_bf16(const uint16_t *p)
{
    return (vf)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16);
}

MZ_INLINE vf vf_from_bf16_n(const uint16_t *p, int64_t n)
{
    return (vf)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(vm_first(n), p)), 16);
}

MZ_INLINE __m256i mz_pack_f16(vf v)
{
    return _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* Rounds to nearest even; a NaN stays one. AVX512-BF16 takes subnormal numbers for 0. */
MZ_INLINE __m256i mz_pack_bf16(vf v)
{
#ifdef __AVX512BF16__
    return (__m256i)_mm512_cvtneps_pbh((__m512)v);
#else
    const vu u = (vu)v;
    const __m512i rounded = (__m512i)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
    const __m512i quiet = (__m512i)((u >> 16) | 0x40u);
    const __mmask16 nan = _mm512_cmp_ps_mask((__m512)v, (__m512)v, _CMP_UNORD_Q);
    return _mm512_cvtepi32_epi16(_mm512_mask_blend_epi32(nan, rounded, quiet));
#endif
}

MZ_INLINE void vf_to_f16(uint16_t *p, vf v)
{
    _mm256_storeu_si256((__m256i *)p, mz_pack_f16(v));
}

MZ_INLINE void vf_to_f16_n(uint16_t *p, vf v, int64_t n)
{
    _mm256_mask_storeu_epi16(p, vm_first(n), mz_pack_f16(v));
}

MZ_INLINE void vf_to_bf16(uint16_t *p, vf v)
{
    _mm256_storeu_si256((__m256i *)p, mz_pack_bf16(v));
}

MZ_INLINE void vf_to_bf16_n(uint16_t *p, vf v, int64_t n)
{
    _mm256_mask_storeu_epi16(p, vm_first(n), mz_pack_bf16(v));
}

MZ_INLINE void vf_stream(float *p, vf v)
{
    _mm512_stream_ps(p, (__m512)v);
}

MZ_INLINE void vf_stream_f16(uint16_t *p, vf v)
{
    _mm256_stream_si256((__m256i *)p, mz_pack_f16(v));
}

MZ_INLINE void vf_stream_bf16(uint16_t *p, vf v)
{
    _mm256_stream_si256((__m256i *)p, mz_pack_bf16(v));
}

MZ_INLINE void vf_stream_end(void)
{
    _mm_sfence();
}

#endif
