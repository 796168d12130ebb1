/* The epilogue of a matrix product, on a tile that is still in the first-level cache. */
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/storage.h"
#include "kernels/cpu/vmath.h"

/* What the epilogue makes of the sums x at element `at` of [m][n]. */
MZ_INLINE vf apply(const mz_matmul_args *a, mz_activation activation, vf x, int64_t at, int64_t n, bool keeps_aux)
{
    if (a->epilogue == MZ_EPI_DACT)
        return x * vf_activation_slope(mz_load_n(a->aux, a->dtype, at, n), activation);
    if (a->epilogue != MZ_EPI_ACT)
        return x;
    if (keeps_aux)
        mz_store_n(a->aux, a->dtype, at, x, n);
    return vf_activation(x, activation);
}

MZ_INLINE void finish(const mz_gemm *g, mz_activation activation, int64_t i, int64_t j, int mr, int64_t n,
                      const float *from, int64_t ld)
{
    const mz_matmul_args *a = g->args;
    const bool keeps_aux = a->aux && g->sink != MZ_SINK_AUX;
    const bool adds = a->accumulate && g->sink != MZ_SINK_C;
    for (int r = 0; r < mr; r++)
        for (int64_t v = 0; v < n; v += VF_N) {
            const int64_t left = n - v, at = (i + r) * a->ldc + j + v;
            vf x = vf_load_n(from + r * ld + v, left);
            x = apply(a, activation, x, (i + r) * a->n + j + v, left, keeps_aux);
            if (adds)
                x += mz_load_n(g->c, a->dtype_c, at, left);
            mz_store_n(g->c, a->dtype_c, at, x, left);
        }
}

void MZ_CPU(finish_tile)(const mz_gemm *g, int64_t i, int64_t j, int mr, int64_t n, const float *from, int64_t ld)
{
    const bool activates = g->args->epilogue == MZ_EPI_ACT || g->args->epilogue == MZ_EPI_DACT;
    switch (activates ? g->args->activation : MZ_ACT_NONE) {
#define CASE(kind)                                                                                                 \
    case kind:                                                                                                     \
        finish(g, kind, i, j, mr, n, from, ld);                                                                    \
        break;
        CASE(MZ_ACT_GELU_TANH)
        CASE(MZ_ACT_GELU_ERF)
        CASE(MZ_ACT_RELU)
        CASE(MZ_ACT_TANH)
        CASE(MZ_ACT_SIGMOID)
        CASE(MZ_ACT_SILU)
#undef CASE
    default:
        finish(g, MZ_ACT_NONE, i, j, mr, n, from, ld);
        break;
    }
}
