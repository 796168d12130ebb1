/* The arithmetic of reductions on the CPU, for the thread that runs the collectives. */
#ifndef MZ_COMM_SUM_H
#define MZ_COMM_SUM_H

#include <stdbool.h>
#include <stdint.h>

#include "mpizero/dtype.h"

/* dst[i] = scale * (sum over s of sources[s][i], in that order, in fp32) (+ dst[i]), rounded once to dst_dtype.
 * Types: MZ_F32, MZ_F16, MZ_BF16. dst may be one of the sources when the types are equal. Host memory. */
void mz_comm_sum(void *dst, mz_dtype dst_dtype, const void *const *sources, int n_sources, mz_dtype dtype,
                 int64_t n, float scale, bool accumulate);

#endif
