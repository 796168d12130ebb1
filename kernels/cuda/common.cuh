/* What the CUDA kernels share: storage types, 16-byte vectors, sums over warps and blocks, and choosing a
 * template's instance by dtype. */
#ifndef MZ_KERNELS_CUDA_COMMON_CUH
#define MZ_KERNELS_CUDA_COMMON_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <math_constants.h>
#include <stdint.h>

extern "C" {
#include "core/error.h"
#include "kernels/check.h"
}
#include "device/cuda/stream.h"
#include "kernels/cuda/cuda.h"

/* ---- storage types ---- */

__device__ __forceinline__ float to_float(float x)
{
    return x;
}
__device__ __forceinline__ float to_float(__half x)
{
    return __half2float(x);
}
__device__ __forceinline__ float to_float(__nv_bfloat16 x)
{
    return __bfloat162float(x);
}

template <typename T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x)
{
    return x;
}
template <> __device__ __forceinline__ __half from_float<__half>(float x)
{
    return __float2half_rn(x);
}
template <> __device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float x)
{
    return __float2bfloat16_rn(x);
}

/* *out = sum, or *out += sum. */
template <typename T> __device__ __forceinline__ void put_sum(T *out, float sum, bool accumulate)
{
    *out = from_float<T>(accumulate ? to_float(*out) + sum : sum);
}

/* Runs the statement with T standing for the type of a storage dtype. */
#define FOR_DTYPE(dtype, T, ...)                                                                                   \
    do {                                                                                                           \
        if ((dtype) == MZ_F32) {                                                                                   \
            typedef float T;                                                                                       \
            __VA_ARGS__;                                                                                           \
        } else if ((dtype) == MZ_F16) {                                                                            \
            typedef __half T;                                                                                      \
            __VA_ARGS__;                                                                                           \
        } else {                                                                                                   \
            typedef __nv_bfloat16 T;                                                                               \
            __VA_ARGS__;                                                                                           \
        }                                                                                                          \
    } while (0)

/* ---- vectors ---- */

template <typename T, int N> struct __align__(sizeof(T) * N) pack
{
    T at[N];
};

/* Elements of T in 16 bytes. */
template <typename T> __host__ __device__ constexpr int lanes()
{
    return 16 / (int)sizeof(T);
}

static inline bool is_aligned(const void *pointer, size_t bytes)
{
    return (uintptr_t)pointer % bytes == 0;
}

/* ---- sums in a fixed order ---- */

template <int WIDTH, typename T> __device__ __forceinline__ T lane_sum(T x)
{
#pragma unroll
    for (int offset = WIDTH / 2; offset > 0; offset /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, offset);
    return x;
}

template <int WIDTH> __device__ __forceinline__ float lane_max(float x)
{
#pragma unroll
    for (int offset = WIDTH / 2; offset > 0; offset /= 2)
        x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, offset));
    return x;
}

/* The sum over a block of up to 32 whole warps, in every thread. */
template <typename T> __device__ T block_sum(T x)
{
    __shared__ T partial[32];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, n_warps = blockDim.x / 32;
    x = lane_sum<32>(x);
    __syncthreads(); /* the previous call's readers are through */
    if (lane == 0)
        partial[warp] = x;
    __syncthreads();
    return lane_sum<32>(lane < n_warps ? partial[lane] : T(0));
}

__device__ inline float block_max(float x)
{
    __shared__ float partial[32];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, n_warps = blockDim.x / 32;
    x = lane_max<32>(x);
    __syncthreads();
    if (lane == 0)
        partial[warp] = x;
    __syncthreads();
    return lane_max<32>(lane < n_warps ? partial[lane] : -CUDART_INF_F);
}

/* ---- launching ---- */

static inline int64_t div_up(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* Blocks that take `each` of n units of work; at least one. */
static inline unsigned blocks_for(int64_t n, int64_t each)
{
    return n > each ? (unsigned)div_up(n, each) : 1u;
}

/* Blocks for a loop over n units of work that strides by the whole grid. */
static inline unsigned grid_for(mz_stream *stream, int64_t n, int threads)
{
    const int64_t blocks = div_up(n, threads), most = (int64_t)mz_cuda_of(stream)->n_processors * 16;
    return (unsigned)(blocks < 1 ? 1 : blocks < most ? blocks : most);
}

static inline mz_status need_workspace(mz_stream *stream, const char *kernel, size_t bytes)
{
    if (stream->workspace_bytes >= bytes)
        return MZ_OK;
    return mz_fail(MZ_ERR_ARGUMENT, "kernel %s: needs %zu bytes of work space, the stream has %zu", kernel, bytes,
                   stream->workspace_bytes);
}

/* Each thread's elements of a strided loop over the grid. */
#define GRID_LOOP(i, n)                                                                                            \
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < (n); i += (int64_t)gridDim.x * blockDim.x)

#endif
