/* The epilogue of a matrix product, on a tile that is still in the first-level cache. */
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/storage.h"
#include "kernels/cpu/vmath.h"

/* A tile: mr x n at (i, j); its sums lie at `from`, row stride ld. */
typedef struct tile {
    const mz_gemm *g;
    int64_t i, j;
    int mr;
    int64_t n;
    const float *from;
    int64_t ld;
} tile;

/* C = or += activation(sums), or sums * activation's slope at aux. Inlined with constants for the other arguments.
 */
MZ_INLINE void finish(const tile *t, mz_activation activation, bool slope, mz_dtype dtype, mz_dtype dtype_c,
                      bool adds, bool keeps_aux)
{
    const mz_matmul_args *a = t->g->args;
    for (int r = 0; r < t->mr; r++) {
        const int64_t row = (t->i + r) * a->ldc + t->j, aux_row = (t->i + r) * a->n + t->j;
        for (int64_t v = 0; v < t->n; v += VF_N) {
            const int64_t left = t->n - v;
            vf x = mz_load_n(t->from, MZ_F32, r * t->ld + v, left);
            if (keeps_aux)
                mz_store_n(a->aux, dtype, aux_row + v, x, left);
            if (slope)
                x *= vf_activation_slope(mz_load_n(a->aux, dtype, aux_row + v, left), activation);
            else
                x = vf_activation(x, activation);
            if (adds)
                x += mz_load_n(t->g->c, dtype_c, row + v, left);
            mz_store_n(t->g->c, dtype_c, row + v, x, left);
        }
    }
}

static void finish_plain(const tile *t)
{
    const mz_matmul_args *a = t->g->args;
    if (a->accumulate && t->g->sink != MZ_SINK_C)
        MZ_FOR_DTYPE(a->dtype_c, finish(t, MZ_ACT_NONE, false, D, D, true, false));
    else
        MZ_FOR_DTYPE(a->dtype_c, finish(t, MZ_ACT_NONE, false, D, D, false, false));
}

/* Whether it adds, and what it keeps, is looked up element by element: the activation takes longer. */
MZ_INLINE void finish_activation(const tile *t, mz_activation activation, mz_dtype dtype)
{
    const mz_matmul_args *a = t->g->args;
    const mz_dtype dtype_c = a->dtype_c == MZ_F32 ? MZ_F32 : dtype;
    const bool adds = a->accumulate && t->g->sink != MZ_SINK_C;
    if (a->epilogue == MZ_EPI_DACT)
        finish(t, activation, true, dtype, dtype_c, adds, false);
    else
        finish(t, activation, false, dtype, dtype_c, adds, a->aux && t->g->sink != MZ_SINK_AUX);
}

void MZ_CPU(finish_tile)(const mz_gemm *g, int64_t i, int64_t j, int mr, int64_t n, const float *from, int64_t ld)
{
    const tile t = {g, i, j, mr, n, from, ld};
    if (g->args->epilogue != MZ_EPI_ACT && g->args->epilogue != MZ_EPI_DACT) {
        finish_plain(&t);
        return;
    }
    switch (g->args->activation) {
#define CASE(kind)                                                                                                 \
    case kind:                                                                                                     \
        MZ_FOR_DTYPE(g->args->dtype, finish_activation(&t, kind, D));                                              \
        break;
        CASE(MZ_ACT_GELU_TANH)
        CASE(MZ_ACT_GELU_ERF)
        CASE(MZ_ACT_RELU)
        CASE(MZ_ACT_TANH)
        CASE(MZ_ACT_SIGMOID)
        CASE(MZ_ACT_SILU)
#undef CASE
    default:
        MZ_FOR_DTYPE(g->args->dtype, finish_activation(&t, MZ_ACT_NONE, D));
    }
}
