/* Sums over the rows or columns of a matrix, in two stages and a fixed order; the stream's workspace holds what is
 * between. Also the bias gradients of matrix products. */
#ifndef MZ_KERNELS_CUDA_SUMS_CUH
#define MZ_KERNELS_CUDA_SUMS_CUH

#include "kernels/cuda/common.cuh"

typedef struct matrix_sum {
    const void *x; /* [rows][cols] */
    mz_dtype dtype;
    int64_t rows, cols, ld;
    void *out; /* fp32 or 16 bits */
    mz_dtype dtype_out;
    bool accumulate;
} matrix_sum;

/* out[c] (+)= sum over rows of x[r][c]; no rows make a sum of 0. */
mz_status mz_cuda_sum_columns(const matrix_sum *s, mz_stream *stream);
/* out[r] (+)= sum over columns of x[r][c]. */
mz_status mz_cuda_sum_rows(const matrix_sum *s, mz_stream *stream);
/* out[o][c] (+)= sum over i < n_chunks of partial[o][i][c]: the second stage alone, of one or two sums. */
typedef struct column_sums {
    const float *partial; /* [n_outputs][n_chunks][cols] */
    int64_t n_chunks, cols;
    int n_outputs;
    void *out[2];
    bool accumulate[2];
    mz_dtype dtype_out;
} column_sums;
mz_status mz_cuda_sum_chunks(const column_sums *s, mz_stream *stream);
/* Chunks of rows to cut a matrix into, so that n_outputs partial rows of `cols` each fit the workspace. */
int64_t mz_cuda_row_chunks(int64_t rows, int64_t cols, int n_outputs, mz_stream *stream);

#endif
