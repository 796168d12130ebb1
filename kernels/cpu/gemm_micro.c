#include "kernels/cpu/gemm_micro.h"

#define DEFINE(mr, nv)                                                                                             \
    MZ_DEFINE_MICRO(panel, mr, nv, vf_fma, 1, a_k, false)                                                          \
    MZ_DEFINE_MICRO(block, mr, nv, vf_fma, VF_N, 1, true)                                                          \
    MZ_DEFINE_MICRO(strip, mr, nv, vf_fma, MZ_NR, 1, false)

MZ_MICRO_ROWS(DEFINE)

#define PANEL(mr, nv) [mr][nv] = panel_##mr##_##nv,
#define BLOCK(mr, nv) [mr][nv] = block_##mr##_##nv,
#define STRIP(mr, nv) [mr][nv] = strip_##mr##_##nv,

const mz_micro_fn MZ_CPU(micro_panel)[MZ_MR + 1][MZ_NV + 1] = {MZ_MICRO_ROWS(PANEL)};
const mz_micro_fn MZ_CPU(micro_block)[MZ_MR + 1][MZ_NV + 1] = {MZ_MICRO_ROWS(BLOCK)};
const mz_micro_fn MZ_CPU(micro_strip)[MZ_MR + 1][MZ_NV + 1] = {MZ_MICRO_ROWS(STRIP)};
