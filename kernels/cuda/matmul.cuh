/* Pieces of the matrix product, private to matmul*.cu. */
#ifndef MZ_KERNELS_CUDA_MATMUL_CUH
#define MZ_KERNELS_CUDA_MATMUL_CUH

#include "kernels/cuda/common.cuh"

/* Computes A B, with what cuBLASLt can do in its epilogue and as the contract says: the bias, for 16-bit types
 * GELU with its pre-activation kept, and the gradient of that. `plan_epilogue` is one of MZ_EPI_NONE, MZ_EPI_BIAS,
 * MZ_EPI_ACT and MZ_EPI_DACT. *found is false, and nothing is computed, where it has no algorithm. */
mz_status mz_cuda_blas_matmul(const mz_matmul_args *a, mz_epilogue plan_epilogue, mz_stream *stream, bool *found);
/* Whether it adds the bias before it rounds to C's type: in 16 bits only where all rows are aligned. */
bool mz_cuda_blas_adds_bias(const mz_matmul_args *a);
/* Whether what C held is added with no more than the product's own rounding in between. */
bool mz_cuda_blas_adds(const mz_matmul_args *a);
/* Whether mz_cuda_blas_matmul fuses the epilogue of these arguments. */
bool mz_cuda_blas_fuses(const mz_matmul_args *a);

/* cuBLASLt has the first half of the stream's workspace. */
static inline size_t mz_cuda_blas_room(mz_stream *stream)
{
    return stream->workspace_bytes / 2;
}

/* Any arguments, bias gradients left out: tiles in shared memory, fp32. */
mz_status mz_cuda_plain_matmul(const mz_matmul_args *a, mz_stream *stream);

#endif
