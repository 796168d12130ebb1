/* The vectorised, multi-threaded kernels of the CPU backend.
 *
 * Each instruction set has a table built from the same sources: "avx512_bf16", "avx512" (F, BW, DQ, VL), "avx2"
 * (with FMA and F16C) and "generic". "openblas" is "generic" with matrix products by OpenBLAS; it is in builds for
 * other processors than x86-64, where OpenBLAS was found, and in those configured --with-openblas=yes. The environment
 * variable MPIZERO_CPU_ISA=avx512_bf16|avx512|avx2|openblas|generic names the best one to use; without it, or when the
 * processor or the build lacks what it names, the best one that there is is used.
 *
 * "avx512_bf16" is "avx512" but for two things. Products of bf16 matrices with alpha = 1 multiply them as they are
 * (VDPBF16PS) where the others widen them to fp32: products of elements are exact in fp32 and sums rounded to nearest
 * as elsewhere, so the same bounds hold. And numbers are stored as bf16 by VCVTNEPS2BF16. Both take subnormal numbers
 * (below 2^-126) for 0. */
#ifndef MZ_KERNELS_CPU_CPU_H
#define MZ_KERNELS_CPU_CPU_H

#include "kernels/kernels.h"

/* Forwards to the chosen instruction set's table; the choice is made once per process. */
extern const mz_kernels mz_kernels_cpu;

/* The chosen instruction set's name. */
const char *mz_kernels_cpu_isa(void);

/* The table of an instruction set by name; NULL when this build or this processor lacks it. */
const mz_kernels *mz_kernels_cpu_table(const char *isa);

extern const mz_kernels mz_cpu_kernels_generic;
extern const mz_kernels mz_cpu_kernels_openblas; /* in builds with it */
/* Not in builds for other processors. */
extern const mz_kernels mz_cpu_kernels_avx2;
extern const mz_kernels mz_cpu_kernels_avx512;
extern const mz_kernels mz_cpu_kernels_avx512_bf16;

#endif
