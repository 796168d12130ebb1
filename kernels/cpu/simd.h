/* One vocabulary of vectors for all instruction sets, so that a kernel is written once and built several
 * times (local.mk): VF_N lanes of fp32 (vf), int32 (vi) and uint32 (vu), and a lane mask (vm).
 *
 * vf, vi and vu are vector types of GCC and Clang: + - * / << >> & | ^ work lane by lane and a scalar
 * operand is spread over the lanes. What operators cannot say is a function here:
 *     vf_set1 vf_load vf_store vf_load_n vf_store_n   (n valid lanes, the others 0 or left alone)
 *     vf_fma(a, b, c) = a * b + c      vf_min vf_max  (the second operand when either is NaN)
 *     vf_reciprocal (1 / a within one unit in the last place, for a and 1 / a normal numbers)
 *     vf_sqrt vf_round (to nearest even) vf_to_vi vi_to_vf  vf_lt vf_le vu_lt ->
 * vm vf_select(m, a, b) = m ? a : b   vm_first(n): lanes below n   vm_count   vf_ldexp(x, n) vf_from_f16
 * vf_from_bf16 vf_to_f16 vf_to_bf16 and the _n forms, on VF_N uint16_t in memory; vf_stream vf_stream_f16
 * vf_stream_bf16: stores past the caches, which keep no copy; p is aligned to what is stored, and other threads
 * may read after vf_stream_end; vf_zip_low vf_zip_high: interleave
 * the lower (upper) halves of two vectors vu_mul_wide: both halves of the 64-bit products */
#ifndef MZ_KERNELS_CPU_SIMD_H
#define MZ_KERNELS_CPU_SIMD_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "core/half.h"

#define MZ_INLINE static inline __attribute__((always_inline, unused))

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#define VF_N 16
#ifdef __AVX512BF16__
#define MZ_ISA       avx512_bf16
#define MZ_HAS_PAIRS /* of bf16: simd_pairs.h */
#else
#define MZ_ISA avx512
#endif
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define VF_N   8
#define MZ_ISA avx2
#else
#define VF_N   4
#define MZ_ISA generic
#endif

/* Each instruction set has its own copy of every external symbol: MZ_CPU(gemm) is mz_cpu_gemm_avx512. */
#define MZ_CPU_JOIN_(name, isa) mz_cpu_##name##_##isa
#define MZ_CPU_JOIN(name, isa)  MZ_CPU_JOIN_(name, isa)
#define MZ_CPU(name)            MZ_CPU_JOIN(name, MZ_ISA)

typedef float vf __attribute__((vector_size(4 * VF_N), aligned(4 * VF_N)));
typedef int32_t vi __attribute__((vector_size(4 * VF_N), aligned(4 * VF_N)));
typedef uint32_t vu __attribute__((vector_size(4 * VF_N), aligned(4 * VF_N)));

#if VF_N == 16
#include "kernels/cpu/simd_avx512.h"
#elif VF_N == 8
#include "kernels/cpu/simd_avx2.h"
#else
#include "kernels/cpu/simd_generic.h"
#endif

#ifdef MZ_HAS_PAIRS
#include "kernels/cpu/simd_pairs.h"
#endif

MZ_INLINE vu vu_set1(uint32_t x)
{
    return (vu){0} + x;
}

/* 0, 1, 2, ... */
MZ_INLINE vu vu_iota(void)
{
    vu v = {0};
    for (int i = 0; i < VF_N; i++)
        v[i] = (uint32_t)i;
    return v;
}

/* Transposes the square whose rows are v: log2 VF_N rounds of zipping row i with row i + VF_N / 2. */
MZ_INLINE void vf_transpose(vf v[VF_N])
{
    vf w[VF_N];
#pragma GCC unroll 4
    for (int n = 1; n < VF_N; n *= 2) {
#pragma GCC unroll 8
        for (int i = 0; i < VF_N / 2; i++) {
            w[2 * i] = vf_zip_low(v[i], v[i + VF_N / 2]);
            w[2 * i + 1] = vf_zip_high(v[i], v[i + VF_N / 2]);
        }
#pragma GCC unroll 16
        for (int i = 0; i < VF_N; i++)
            v[i] = w[i];
    }
}

/* The upper half of the first 2 * half lanes, moved to the front; the other lanes are of no use. */
#if VF_N == 16
#define VF_UPPER(v, half)                                                                                          \
    __builtin_shufflevector(v, v, (half), (half) + 1 % (half), (half) + 2 % (half), (half) + 3 % (half),           \
                            (half) + 4 % (half), (half) + 5 % (half), (half) + 6 % (half), (half) + 7 % (half), 0, \
                            0, 0, 0, 0, 0, 0, 0)
#elif VF_N == 8
#define VF_UPPER(v, half)                                                                                          \
    __builtin_shufflevector(v, v, (half), (half) + 1 % (half), (half) + 2 % (half), (half) + 3 % (half), 0, 0, 0, 0)
#else
#define VF_UPPER(v, half) __builtin_shufflevector(v, v, (half), (half) + 1 % (half), 0, 0)
#endif

/* Sums lanes pairwise, halves first: the same order for every caller. */
MZ_INLINE float vf_sum(vf v)
{
#if VF_N == 16
    v += VF_UPPER(v, 8);
#endif
#if VF_N >= 8
    v += VF_UPPER(v, 4);
#endif
    v += VF_UPPER(v, 2);
    return v[0] + v[1];
}

MZ_INLINE float vf_hmax(vf v)
{
#if VF_N == 16
    v = vf_max(v, VF_UPPER(v, 8));
#endif
#if VF_N >= 8
    v = vf_max(v, VF_UPPER(v, 4));
#endif
    v = vf_max(v, VF_UPPER(v, 2));
    return v[0] > v[1] ? v[0] : v[1];
}

#endif
