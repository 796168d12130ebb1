/* A product that cuBLASLt computes: its description, and how its algorithm is chosen. Private to matmul*.cu. */
#ifndef MZ_KERNELS_CUDA_MATMUL_PLAN_CUH
#define MZ_KERNELS_CUDA_MATMUL_PLAN_CUH

#include "kernels/cuda/matmul.cuh"

/* What an algorithm is chosen by. Compared as bytes: cleared before it is filled. */
typedef struct plan_key {
    int64_t m, n, k, batch, lda, ldb, ldc, stride_a, stride_b, stride_c;
    int trans_a, trans_b, dtype, dtype_c, epilogue, accumulate;
    int align_a, align_b, align_c;
    int tf32;
} plan_key;

typedef struct plan {
    plan_key key;
    bool found; /* false: cuBLASLt has no algorithm */
    cublasLtMatmulDesc_t what;
    cublasLtMatrixLayout_t a, b, c; /* ours */
    cublasLtMatmulAlgo_t algorithm;
    size_t workspace_bytes;
} plan;

mz_status mz_cuda_blas_check(cublasStatus_t status, const char *call);

/* One launch with p->algorithm; the description points to what `a` points to. */
cublasStatus_t mz_cuda_plan_launch(const plan *p, const mz_matmul_args *a, float alpha, mz_stream *stream);

/* Fills p->found, algorithm and workspace_bytes of a described plan. Large 16-bit products are timed, on the
 * operands of `a` and waiting for the device: that happens once per shape. What was measured is kept in the user's
 * cache (src/device/cuda/choices.h) and taken from there by later runs and other ranks, since another algorithm may
 * add in another order: a run repeated gives the same bits. */
mz_status mz_cuda_plan_choose(plan *p, const mz_matmul_args *a, mz_stream *stream);

#endif
