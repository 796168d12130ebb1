/* Products of bf16 matrices without widening them: packed operands hold pairs of elements next to each other along
 * k, zero beside the last one of an odd k, and the micro-kernels multiply pairs. */
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/storage.h"

/* A is stored [m][k]: its rows are pairs already. */
static void pack_a_rows(const mz_gemm *g, int64_t i0, int64_t m, float *out)
{
    const int64_t ld = g->args->lda, n = g->args->k - 2 * g->p0 < 2 * g->k ? g->args->k - 2 * g->p0 : 2 * g->k;
    const uint16_t *from = (const uint16_t *)g->a + i0 * ld + 2 * g->p0;
    for (int64_t i = 0; i < m; i++, from += ld) {
        float *to = out + i / MZ_MR * g->a_panel + i % MZ_MR * VF_N;
        int64_t p = 0;
        for (; p + 2 * VF_N <= n; p += 2 * VF_N, to += MZ_MR * VF_N)
            vf_store(to, vf_pairs(from + p));
        if (p < n)
            vf_store(to, vf_pairs_n(from + p, n - p));
    }
}

/* A piece of one stored row, n elements at most. */
MZ_INLINE vf load_piece(const uint16_t *p, int64_t n)
{
    return n >= 2 * VF_N ? vf_pairs(p) : vf_pairs_n(p, n);
}

/* A is stored [k][m]: a row of a panel takes a piece of each of two stored rows, and two panels are packed at once.
 * Stores reach beyond the panel's row, into the next one, which comes later, or what follows the panel. */
static void pack_a_columns(const mz_gemm *g, int64_t i0, int64_t m, float *out)
{
    const int64_t ld = g->args->lda;
    for (int64_t p = 0; p < g->k; p++) {
        const uint16_t *from = (const uint16_t *)g->a + 2 * (g->p0 + p) * ld + i0;
        const bool two = 2 * (g->p0 + p) + 1 < g->args->k;
        float *to = out + p * MZ_MR;
        for (int64_t i = 0; i < m; i += 2 * MZ_MR, to += 2 * g->a_panel) {
            const vf even = load_piece(from + i, m - i),
                     odd = two ? load_piece(from + ld + i, m - i) : vf_set1(0.0f);
            vf_store(to, vf_zip_pairs(even, odd, 0));
            if (i + MZ_MR < m)
                vf_store(to + g->a_panel, vf_zip_pairs(even, odd, MZ_MR));
        }
    }
}

static void pack_a(const mz_gemm *g, int64_t i0, int64_t m, float *out)
{
    if (g->args->trans_a)
        pack_a_columns(g, i0, m, out);
    else
        pack_a_rows(g, i0, m, out);
}

/* B comes from memory as a rule, and in pieces too short for the processor to foresee the next one. */
enum { ROWS_AHEAD = 4 };

MZ_INLINE void add_pairs(float *sums, vf pairs)
{
    vf_store(sums, vf_load(sums) + vf_pairs_even(pairs) + vf_pairs_odd(pairs));
}

/* B is stored [k][n]: a row of a panel is woven from a piece of each of two stored rows. */
MZ_INLINE void pack_b_rows(const mz_gemm *g, int64_t j, int64_t n, float *out, float *sums)
{
    const int64_t ld = g->args->ldb;
    for (int64_t p = 0; p < g->k; p++) {
        const uint16_t *from = (const uint16_t *)g->b + 2 * (g->p0 + p) * ld + j;
        const bool two = 2 * (g->p0 + p) + 1 < g->args->k;
        float *to = out + p * MZ_NR;
        for (int64_t c = 0; c < n; c += MZ_NR, to += g->b_panel) {
            const int64_t left = n - c;
            __builtin_prefetch(from + c + ROWS_AHEAD * ld, 0, 2);
            __builtin_prefetch(from + c + (ROWS_AHEAD + 1) * ld, 0, 2);
            const vf even = load_piece(from + c, left), odd = two ? load_piece(from + ld + c, left) : vf_set1(0.0f);
            const vf low = vf_zip_pairs(even, odd, 0), high = vf_zip_pairs(even, odd, VF_N);
            vf_store(to, low);
            vf_store(to + VF_N, high);
            if (sums)
                add_pairs(sums + c, low);
            if (sums && left > VF_N)
                add_pairs(sums + c + VF_N, high);
        }
    }
}

/* B is stored [n][k]: its rows are pairs already, and are transposed as such. */
static void pack_b_columns(const mz_gemm *g, int64_t j, int64_t n, float *out)
{
    const int64_t ld = g->args->ldb, k = g->args->k - 2 * g->p0 < 2 * g->k ? g->args->k - 2 * g->p0 : 2 * g->k;
    const uint16_t *from = (const uint16_t *)g->b + j * ld + 2 * g->p0;
    for (int64_t c = 0; c < n; c += VF_N) {
        float *panel = out + c / MZ_NR * g->b_panel + c % MZ_NR;
        for (int64_t p = 0; p < k; p += 2 * VF_N) {
            const int64_t rows = (k - p + 1) / 2; /* of the panel */
            vf v[VF_N];
            if (n - c >= VF_N && rows >= VF_N) {
#pragma GCC unroll 16
                for (int r = 0; r < VF_N; r++)
                    v[r] = vf_pairs_n(from + (c + r) * ld + p, k - p);
            } else {
#pragma GCC unroll 16
                for (int r = 0; r < VF_N; r++)
                    v[r] = c + r < n ? vf_pairs_n(from + (c + r) * ld + p, k - p) : vf_set1(0.0f);
            }
            vf_transpose(v);
            if (rows >= VF_N) {
#pragma GCC unroll 16
                for (int q = 0; q < VF_N; q++)
                    vf_store(panel + (p / 2 + q) * MZ_NR, v[q]);
            } else {
                for (int q = 0; q < rows; q++)
                    vf_store(panel + (p / 2 + q) * MZ_NR, v[q]);
            }
        }
    }
}

static void pack_b(const mz_gemm *g, int64_t j, int64_t n, float *out, float *sums)
{
    if (g->args->trans_b)
        pack_b_columns(g, j, n, out);
    else if (sums)
        pack_b_rows(g, j, n, out, sums);
    else
        pack_b_rows(g, j, n, out, NULL);
}

#define DEFINE(mr, nv)                                                                                             \
    MZ_DEFINE_MICRO(panel, mr, nv, vf_dot_pairs, 1, a_k, false)                                                    \
    MZ_DEFINE_MICRO(block, mr, nv, vf_dot_pairs, VF_N, 1, true)                                                    \
    MZ_DEFINE_MICRO(strip, mr, nv, vf_dot_pairs, MZ_NR, 1, false)

MZ_MICRO_ROWS(DEFINE)

#define PANEL(mr, nv) [mr][nv] = panel_##mr##_##nv,
#define BLOCK(mr, nv) [mr][nv] = block_##mr##_##nv,
#define STRIP(mr, nv) [mr][nv] = strip_##mr##_##nv,

const mz_micro_fn MZ_CPU(micro_pairs_panel)[MZ_MR + 1][MZ_NV + 1] = {MZ_MICRO_ROWS(PANEL)};
const mz_micro_fn MZ_CPU(micro_pairs_block)[MZ_MR + 1][MZ_NV + 1] = {MZ_MICRO_ROWS(BLOCK)};
const mz_micro_fn MZ_CPU(micro_pairs_strip)[MZ_MR + 1][MZ_NV + 1] = {MZ_MICRO_ROWS(STRIP)};

const mz_gemm_form MZ_CPU(gemm_pairs) = {
    .elements = 2,
    .pack_a = pack_a,
    .pack_b = pack_b,
    .panel = MZ_CPU(micro_pairs_panel),
    .block = MZ_CPU(micro_pairs_block),
};
