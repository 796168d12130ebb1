/* Packing: blocks of A and B are laid out in the order in which the micro-kernel reads them, here as fp32 whatever
 * their storage type (gemm_pairs.c: bf16 as it is). Goto and van de Geijn, "Anatomy of high-performance matrix
 * multiplication", 2008. */
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/storage.h"

/* A is stored [m][k]: rows are copied in pieces of VF_N, into the micro-kernel's block form. */
MZ_INLINE void pack_a_rows(const mz_gemm *g, int64_t i0, int64_t m, mz_dtype dtype, float *out)
{
    for (int64_t i = 0; i < m; i++) {
        const int64_t at = (i0 + i) * g->args->lda + g->p0;
        float *to = out + i / MZ_MR * g->a_panel + i % MZ_MR * VF_N;
        for (int64_t p = 0; p < g->k; p += VF_N, to += MZ_MR * VF_N)
            vf_store(to, mz_load_n(g->a, dtype, at + p, g->k - p) * g->args->alpha);
    }
}

/* A is stored [k][m]: a row of a panel is a piece of a stored row. */
MZ_INLINE void pack_a_columns(const mz_gemm *g, int64_t i0, int64_t m, mz_dtype dtype, float *out)
{
    const int64_t ld = g->args->lda;
    for (int64_t p = 0; p < g->k; p++) {
        const int64_t at = (g->p0 + p) * ld + i0;
        float *to = out + p * MZ_MR;
        int64_t i = 0;
        for (; i + MZ_MR <= m; i += MZ_MR, to += g->a_panel)
            vf_store_n(to, mz_load_n(g->a, dtype, at + i, MZ_MR) * g->args->alpha, MZ_MR);
        if (i < m)
            vf_store_n(to, mz_load_n(g->a, dtype, at + i, m - i) * g->args->alpha, MZ_MR);
    }
}

static void pack_a(const mz_gemm *g, int64_t i0, int64_t m, float *out)
{
    if (g->args->trans_a)
        MZ_FOR_DTYPE(g->args->dtype, pack_a_columns(g, i0, m, D, out));
    else
        MZ_FOR_DTYPE(g->args->dtype, pack_a_rows(g, i0, m, D, out));
}

/* B comes from memory as a rule, and in pieces too short for the processor to foresee the next one. */
enum { ROWS_AHEAD = 4 };

/* B is stored [k][n]. */
MZ_INLINE void pack_b_rows(const mz_gemm *g, int64_t j, int64_t n, mz_dtype dtype, float *out, float *sums)
{
    const int64_t ld = g->args->ldb;
    for (int64_t p = 0; p < g->k; p++) {
        const int64_t at = (g->p0 + p) * ld + j;
        for (int64_t c = 0; c < n; c += MZ_NR)
            for (int64_t v = c; v < c + MZ_NR && v < n; v += VF_N) {
                __builtin_prefetch(mz_at_const(g->b, dtype, at + v + ROWS_AHEAD * ld), 0, 2);
                const vf x = mz_load_n(g->b, dtype, at + v, n - v);
                vf_store(out + c / MZ_NR * g->b_panel + p * MZ_NR + (v - c), x);
                if (sums)
                    vf_store(sums + v, vf_load(sums + v) + x);
            }
    }
}

/* B is stored [n][k]. */
MZ_INLINE void pack_b_columns(const mz_gemm *g, int64_t j, int64_t n, mz_dtype dtype, float *out)
{
    const int64_t ld = g->args->ldb;
    for (int64_t c = 0; c < n; c += VF_N) {
        float *panel = out + c / MZ_NR * g->b_panel + c % MZ_NR;
        for (int64_t p = 0; p < g->k; p += VF_N) {
            const int64_t left = g->k - p;
            vf v[VF_N];
            mz_load_transposed(g->b, dtype, (j + c) * ld + g->p0 + p, ld, n - c, left, v);
            if (left >= VF_N) {
#pragma GCC unroll 16
                for (int q = 0; q < VF_N; q++)
                    vf_store(panel + (p + q) * MZ_NR, v[q]);
            } else {
                for (int q = 0; q < left; q++)
                    vf_store(panel + (p + q) * MZ_NR, v[q]);
            }
        }
    }
}

static void pack_b(const mz_gemm *g, int64_t j, int64_t n, float *out, float *sums)
{
    if (g->args->trans_b)
        MZ_FOR_DTYPE(g->args->dtype, pack_b_columns(g, j, n, D, out));
    else if (sums)
        MZ_FOR_DTYPE(g->args->dtype, pack_b_rows(g, j, n, D, out, sums));
    else
        MZ_FOR_DTYPE(g->args->dtype, pack_b_rows(g, j, n, D, out, NULL));
}

const mz_gemm_form MZ_CPU(gemm_floats) = {
    .elements = 1,
    .pack_a = pack_a,
    .pack_b = pack_b,
    .panel = MZ_CPU(micro_panel),
    .block = MZ_CPU(micro_block),
};
