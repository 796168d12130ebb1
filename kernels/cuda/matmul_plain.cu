/* The matrix product of our own, for what cuBLASLt does not take: rows off their alignment, epilogues that add. */
#include "kernels/cuda/act.cuh"
#include "kernels/cuda/matmul.cuh"

enum { TILE = 64, DEPTH = 16, SIDE = 16, EACH = TILE / SIDE };

/* The epilogue of x = alpha (AB)[i][j]. */
template <typename T> __device__ float finished(const mz_matmul_args &a, int64_t i, int64_t j, float x)
{
    const int64_t e = i * a.n + j;
    if (a.epilogue == MZ_EPI_DACT)
        return x * activate_grad(a.activation, to_float(((const T *)a.aux)[e]));
    if (a.epilogue != MZ_EPI_BIAS && a.epilogue != MZ_EPI_ACT)
        return x;
    if (a.bias)
        x += to_float(((const T *)a.bias)[j]);
    if (a.epilogue == MZ_EPI_BIAS)
        return x;
    if (a.aux)
        ((T *)a.aux)[e] = from_float<T>(x);
    return activate(a.activation, x);
}

/* A block of 16 x 16 threads makes 64 x 64 elements of C; blockIdx.z strides over the batch. */
template <typename T, typename TC> __global__ void matmul_kernel(const __grid_constant__ mz_matmul_args a)
{
    __shared__ float left[DEPTH][TILE + 1], right[DEPTH][TILE + 1];
    const int x = threadIdx.x % SIDE, y = threadIdx.x / SIDE;
    const int64_t i0 = (int64_t)blockIdx.x * TILE, j0 = (int64_t)blockIdx.y * TILE;
    for (int64_t batch = blockIdx.z; batch < a.batch; batch += gridDim.z) {
        const T *A = (const T *)a.a + batch * a.stride_a, *B = (const T *)a.b + batch * a.stride_b;
        TC *C = (TC *)a.c + batch * a.stride_c;
        float sums[EACH][EACH] = {};
        for (int64_t p0 = 0; p0 < a.k; p0 += DEPTH) {
            __syncthreads();
            for (int e = threadIdx.x; e < TILE * DEPTH; e += SIDE * SIDE) {
                /* Neighbouring threads read neighbouring elements of what is stored. */
                const int pa = a.trans_a ? e / TILE : e % DEPTH, ia = a.trans_a ? e % TILE : e / DEPTH;
                const int pb = a.trans_b ? e % DEPTH : e / TILE, jb = a.trans_b ? e / DEPTH : e % TILE;
                const int64_t i = i0 + ia, j = j0 + jb;
                left[pa][ia] = i < a.m && p0 + pa < a.k
                                   ? to_float(A[a.trans_a ? (p0 + pa) * a.lda + i : i * a.lda + p0 + pa])
                                   : 0.0f;
                right[pb][jb] = j < a.n && p0 + pb < a.k
                                    ? to_float(B[a.trans_b ? j * a.ldb + p0 + pb : (p0 + pb) * a.ldb + j])
                                    : 0.0f;
            }
            __syncthreads();
#pragma unroll
            for (int p = 0; p < DEPTH; p++)
#pragma unroll
                for (int i = 0; i < EACH; i++)
#pragma unroll
                    for (int j = 0; j < EACH; j++)
                        sums[i][j] += left[p][y + i * SIDE] * right[p][x + j * SIDE];
        }
#pragma unroll
        for (int i = 0; i < EACH; i++)
#pragma unroll
            for (int j = 0; j < EACH; j++) {
                const int64_t row = i0 + y + i * SIDE, column = j0 + x + j * SIDE;
                if (row < a.m && column < a.n)
                    put_sum(C + row * a.ldc + column, finished<T>(a, row, column, a.alpha * sums[i][j]),
                            a.accumulate);
            }
    }
}

mz_status mz_cuda_plain_matmul(const mz_matmul_args *a, mz_stream *stream)
{
    const int64_t columns = div_up(a->n, TILE), matrices = a->batch < 65535 ? a->batch : 65535;
    if (columns > 65535)
        return mz_fail(MZ_ERR_ARGUMENT, "kernel matmul: n is %lld, CUDA takes %d where cuBLASLt has no algorithm",
                       (long long)a->n, 65535 * TILE);
    const dim3 grid((unsigned)div_up(a->m, TILE), (unsigned)columns, (unsigned)matrices);
    FOR_DTYPE(a->dtype, T,
              FOR_DTYPE(a->dtype_c, TC, matmul_kernel<T, TC><<<grid, SIDE * SIDE, 0, stream->stream>>>(*a)));
    return mz_cuda_launched("matmul");
}
