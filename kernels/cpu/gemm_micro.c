#include "kernels/cpu/gemm_micro.h"

#define DEFINE(mr, nv)                                                                                             \
    static void panel_##mr##_##nv(int64_t k, const float *a, int64_t a_k, const float *b, int64_t b_k,             \
                                  const float *init, float *c, int64_t ldc)                                        \
    {                                                                                                              \
        mz_micro(mr, nv, k, a, 1, a_k, false, b, b_k, init, c, ldc);                                               \
    }                                                                                                              \
    static void block_##mr##_##nv(int64_t k, const float *a, int64_t a_k, const float *b, int64_t b_k,             \
                                  const float *init, float *c, int64_t ldc)                                        \
    {                                                                                                              \
        (void)a_k;                                                                                                 \
        mz_micro(mr, nv, k, a, VF_N, 1, true, b, b_k, init, c, ldc);                                               \
    }                                                                                                              \
    static void strip_##mr##_##nv(int64_t k, const float *a, int64_t a_k, const float *b, int64_t b_k,             \
                                  const float *init, float *c, int64_t ldc)                                        \
    {                                                                                                              \
        (void)a_k;                                                                                                 \
        mz_micro(mr, nv, k, a, MZ_NR, 1, false, b, b_k, init, c, ldc);                                             \
    }

#define ROWS_TO_4(X) X(1, 1) X(1, 2) X(2, 1) X(2, 2) X(3, 1) X(3, 2) X(4, 1) X(4, 2)
#define ROWS_TO_6(X) ROWS_TO_4(X) X(5, 1) X(5, 2) X(6, 1) X(6, 2)
#define ROWS_TO_12(X)                                                                                              \
    ROWS_TO_6(X)                                                                                                   \
    X(7, 1) X(7, 2) X(8, 1) X(8, 2) X(9, 1) X(9, 2) X(10, 1) X(10, 2) X(11, 1) X(11, 2) X(12, 1) X(12, 2)

#if MZ_MR == 12
#define ALL_TILES ROWS_TO_12
#elif MZ_MR == 6
#define ALL_TILES ROWS_TO_6
#else
#define ALL_TILES ROWS_TO_4
#endif

ALL_TILES(DEFINE)

#define PANEL(mr, nv) [mr][nv] = panel_##mr##_##nv,
#define BLOCK(mr, nv) [mr][nv] = block_##mr##_##nv,
#define STRIP(mr, nv) [mr][nv] = strip_##mr##_##nv,

const mz_micro_fn MZ_CPU(micro_panel)[MZ_MR + 1][MZ_NV + 1] = {ALL_TILES(PANEL)};
const mz_micro_fn MZ_CPU(micro_block)[MZ_MR + 1][MZ_NV + 1] = {ALL_TILES(BLOCK)};
const mz_micro_fn MZ_CPU(micro_strip)[MZ_MR + 1][MZ_NV + 1] = {ALL_TILES(STRIP)};
