/* The micro-kernel of matrix products: a tile of C in registers, one broadcast of A per row and one row of B
 * per step of k. Used by gemm.c and by attention. */
#ifndef MZ_KERNELS_CPU_GEMM_MICRO_H
#define MZ_KERNELS_CPU_GEMM_MICRO_H

#include <stdbool.h>

#include "kernels/cpu/simd.h"

/* Rows and vectors of the largest tile: accumulators, one row of B and a broadcast fill the registers. */
#if VF_N == 16
#define MZ_MR 12
#elif VF_N == 8
#define MZ_MR 6
#else
#define MZ_MR 4
#endif
#define MZ_NV 2
#define MZ_NR (MZ_NV * VF_N)

/* C[i][j] = init[j] + sum over p < k of A[i][p] B[p][j] for i < mr, j < nv * VF_N; with init NULL it adds to
 * what C holds. Row p of B lies at b + p * b_k. A has one of three forms:
 *     panel: A[i][p] at a + i + p * a_k, what packing makes of an A stored by columns;
 *     block: A[i][p] at a + (p / VF_N * MZ_MR + i) * VF_N + p % VF_N, what it makes of an A stored by rows;
 *     strip: A[i][p] at a + i * MZ_NR + p, a transposed B of another product (attention); a_k is not used. */
typedef void (*mz_micro_fn)(int64_t k, const float *a, int64_t a_k, const float *b, int64_t b_k, const float *init,
                            float *c, int64_t ldc);

/* c + the term or terms of a step of k. */
typedef vf (*mz_multiply_add)(vf a, vf b, vf c);

MZ_INLINE void mz_micro_step(int mr, int nv, mz_multiply_add multiply_add, const float *a, int64_t a_row,
                             const float *b, vf acc[MZ_MR][MZ_NV])
{
    vf row[MZ_NV];
#pragma GCC unroll 4
    for (int j = 0; j < nv; j++)
        row[j] = vf_load(b + j * VF_N);
#pragma GCC unroll 16
    for (int i = 0; i < mr; i++) {
        const vf x = vf_set1(a[i * a_row]);
#pragma GCC unroll 4
        for (int j = 0; j < nv; j++)
            acc[i][j] = multiply_add(x, row[j], acc[i][j]);
    }
}

/* Without a fused multiply-add, which rounds but once, k is summed in runs of this many steps, each from 0, so that
 * the sums being rounded are smaller. */
#if VF_N == 4
#define MZ_RUN (16 * VF_N)
#endif

/* a_row: distance of A's rows. blocked: whether the form is "block", else A's columns are a_k apart. adds: to what
 * C holds when all is summed. */
MZ_INLINE void mz_micro_run(int mr, int nv, mz_multiply_add multiply_add, int64_t k, const float *restrict a,
                            int64_t a_row, int64_t a_k, bool blocked, const float *restrict b, int64_t b_k,
                            const float *init, bool adds, float *restrict c, int64_t ldc)
{
    vf acc[MZ_MR][MZ_NV];
#pragma GCC unroll 16
    for (int i = 0; i < mr; i++) {
        const float *from = init ? init : c + i * ldc;
#pragma GCC unroll 4
        for (int j = 0; j < nv; j++)
            acc[i][j] = vf_load(from + j * VF_N);
    }
    for (; blocked && k >= VF_N; k -= VF_N) {
#pragma GCC unroll 4
        for (int p = 0; p < VF_N; p++, b += b_k)
            mz_micro_step(mr, nv, multiply_add, a + p, a_row, b, acc);
        a += MZ_MR * VF_N;
    }
    for (int64_t p = 0; p < k; p++, b += b_k, a += blocked ? 1 : a_k)
        mz_micro_step(mr, nv, multiply_add, a, a_row, b, acc);
#pragma GCC unroll 16
    for (int i = 0; i < mr; i++)
#pragma GCC unroll 4
        for (int j = 0; j < nv; j++)
            vf_store(c + i * ldc + j * VF_N, adds ? vf_load(c + i * ldc + j * VF_N) + acc[i][j] : acc[i][j]);
}

MZ_INLINE void mz_micro(int mr, int nv, mz_multiply_add multiply_add, int64_t k, const float *a, int64_t a_row,
                        int64_t a_k, bool blocked, const float *b, int64_t b_k, const float *init, float *c,
                        int64_t ldc)
{
#ifdef MZ_RUN
    static const float zeros[MZ_NR];
    for (; k > MZ_RUN; k -= MZ_RUN) {
        mz_micro_run(mr, nv, multiply_add, MZ_RUN, a, a_row, a_k, blocked, b, b_k, init ? init : zeros, !init, c,
                     ldc);
        a += MZ_RUN * (blocked ? MZ_MR : a_k);
        b += MZ_RUN * b_k;
        init = NULL;
    }
    mz_micro_run(mr, nv, multiply_add, k, a, a_row, a_k, blocked, b, b_k, init ? init : zeros, !init, c, ldc);
#else
    mz_micro_run(mr, nv, multiply_add, k, a, a_row, a_k, blocked, b, b_k, init, false, c, ldc);
#endif
}

#if MZ_MR == 12
#define MZ_MICRO_ROWS MZ_ROWS_TO_12
#elif MZ_MR == 6
#define MZ_MICRO_ROWS MZ_ROWS_TO_6
#else
#define MZ_MICRO_ROWS MZ_ROWS_TO_4
#endif

/* All tiles: X(rows, vectors). */
#define MZ_ROWS_TO_4(X) X(1, 1) X(1, 2) X(2, 1) X(2, 2) X(3, 1) X(3, 2) X(4, 1) X(4, 2)
#define MZ_ROWS_TO_6(X) MZ_ROWS_TO_4(X) X(5, 1) X(5, 2) X(6, 1) X(6, 2)
#define MZ_ROWS_TO_12(X)                                                                                           \
    MZ_ROWS_TO_6(X)                                                                                                \
    X(7, 1) X(7, 2) X(8, 1) X(8, 2) X(9, 1) X(9, 2) X(10, 1) X(10, 2) X(11, 1) X(11, 2) X(12, 1) X(12, 2)

/* A micro-kernel of type mz_micro_fn named form_MR_NV, from arguments of mz_micro. */
#define MZ_DEFINE_MICRO(form, mr, nv, multiply_add, a_row, a_k_, blocked)                                          \
    static void form##_##mr##_##nv(int64_t k, const float *a, int64_t a_k, const float *b, int64_t b_k,            \
                                   const float *init, float *c, int64_t ldc)                                       \
    {                                                                                                              \
        (void)a_k;                                                                                                 \
        mz_micro(mr, nv, multiply_add, k, a, a_row, a_k_, blocked, b, b_k, init, c, ldc);                          \
    }

/* [rows][vectors]; rows 1..MZ_MR, vectors 1..MZ_NV. */
extern const mz_micro_fn MZ_CPU(micro_panel)[MZ_MR + 1][MZ_NV + 1];
extern const mz_micro_fn MZ_CPU(micro_block)[MZ_MR + 1][MZ_NV + 1];
extern const mz_micro_fn MZ_CPU(micro_strip)[MZ_MR + 1][MZ_NV + 1];
#ifdef MZ_HAS_PAIRS /* a step of k is a word that holds a pair of bf16 */
extern const mz_micro_fn MZ_CPU(micro_pairs_panel)[MZ_MR + 1][MZ_NV + 1];
extern const mz_micro_fn MZ_CPU(micro_pairs_block)[MZ_MR + 1][MZ_NV + 1];
extern const mz_micro_fn MZ_CPU(micro_pairs_strip)[MZ_MR + 1][MZ_NV + 1];
#endif

/* A whole product by micro-kernels: C[m][n] = A B (add: += ), n a multiple of VF_N, with A in panel form over
 * all of m (a_k >= m) or in strip form (one strip of MZ_NR columns, k <= MZ_NR). */
MZ_INLINE void mz_tiles(const mz_micro_fn micro[MZ_MR + 1][MZ_NV + 1], bool strip, int64_t m, int64_t n, int64_t k,
                        const float *a, int64_t a_k, const float *b, int64_t b_k, bool add, float *c, int64_t ldc)
{
    static const float zeros[MZ_NR];
    for (int64_t j = 0; j < n; j += MZ_NR) {
        const int nv = n - j >= MZ_NR ? MZ_NV : (int)((n - j) / VF_N);
        for (int64_t i = 0; i < m; i += MZ_MR) {
            const int mr = m - i < MZ_MR ? (int)(m - i) : MZ_MR;
            micro[mr][nv](k, strip ? a + i * MZ_NR : a + i, a_k, b + j, b_k, add ? NULL : zeros, c + i * ldc + j,
                          ldc);
        }
    }
}

#endif
