/* Pairs of bf16 in 32-bit lanes, the earlier element in the lower half (AVX512-BF16). Included by simd.h only. */
#ifndef MZ_KERNELS_CPU_SIMD_PAIRS_H
#define MZ_KERNELS_CPU_SIMD_PAIRS_H

#include <stdbool.h>

/* c + the products of both elements, lane by lane; each of the two sums is rounded. Subnormal numbers are 0. */
MZ_INLINE vf vf_dot_pairs(vf a, vf b, vf c)
{
    return (vf)_mm512_dpbf16_ps((__m512)c, (__m512bh)a, (__m512bh)b);
}

/* Consecutive elements of memory, n at most; the others are 0. */
MZ_INLINE vf vf_pairs_n(const uint16_t *p, int64_t n)
{
    return (vf)_mm512_maskz_loadu_epi16(n >= 2 * VF_N ? ~(__mmask32)0 : ((__mmask32)1 << n) - 1, p);
}

MZ_INLINE vf vf_pairs(const uint16_t *p)
{
    return (vf)_mm512_loadu_si512(p);
}

/* The pairs a[at] b[at], a[at + 1] b[at + 1], ... of vectors of 2 VF_N elements; `at` is a constant up to VF_N. */
MZ_INLINE vf vf_zip_pairs(vf a, vf b, int at)
{
    vu from; /* where the pair's elements lie in a and, 32 further on, in b */
    for (int i = 0; i < VF_N; i++)
        from[i] = (uint32_t)(at + i) | (uint32_t)(at + i + 32) << 16;
    return (vf)_mm512_permutex2var_epi16((__m512i)a, (__m512i)from, (__m512i)b);
}

/* Rounded to bf16: pairs of early[i] and late[i], and the elements of `first` followed by those of `second`. */
MZ_INLINE vf vf_pairs_of(vf early, vf late)
{
    vu where; /* lane by lane: of early, then of late */
    for (int i = 0; i < VF_N; i++)
        where[i] = (uint32_t)i | (uint32_t)(i + VF_N) << 16;
    return (vf)_mm512_permutexvar_epi16((__m512i)where, (__m512i)_mm512_cvtne2ps_pbh((__m512)late, (__m512)early));
}

MZ_INLINE vf vf_narrow(vf first, vf second)
{
    return (vf)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first);
}

/* The earlier and the later elements as fp32. */
MZ_INLINE vf vf_pairs_even(vf pairs)
{
    return (vf)((vu)pairs << 16);
}

MZ_INLINE vf vf_pairs_odd(vf pairs)
{
    return (vf)((vu)pairs & 0xffff0000u);
}

#endif
