/* Products of 16-bit tiles on the tensor cores, with fp32 sums: wgmma where the code is compiled for sm_90a,
 * mma.sync (sm_80 and later) elsewhere. Both hold the left operand and the sums in registers in the same places, so
 * kernels are written once:
 *
 *     Four warps multiply 64 rows, warp w of them rows 16w .. 16w + 15. With g = lane / 4 and t = lane % 4, a lane
 *     holds of a sum of N columns, in sum[n][0..3]: rows g, g, g + 8, g + 8 at columns 8n + 2t, + 1, + 0, + 1.
 *     Of a left operand of K columns, in a[k][0..3], it holds pairs of columns: (row g, 16k + 2t), (g + 8, 16k +
 * 2t), (g, 16k + 8 + 2t), (g + 8, 16k + 8 + 2t). So sums 2k and 2k + 1, packed, are operand k of the next product.
 *
 * Tiles lie in shared memory as rows of panels of 64 columns (32 where D is not a multiple of 64), [D /
 * width][rows] [width], the 16-byte pieces of a row exchanged so that eight rows of one column meet all banks.
 * These are wgmma's swizzles of 128 and 64 bytes; tiles start at a multiple of 1024 bytes. */
#ifndef MZ_KERNELS_CUDA_TENSOR_CORE_CUH
#define MZ_KERNELS_CUDA_TENSOR_CORE_CUH

#include "kernels/cuda/common.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL) && !defined(MZ_NO_WGMMA)
#define USE_WGMMA 1
static constexpr bool HAS_WGMMA = true;
#else
static constexpr bool HAS_WGMMA = false;
#endif

template <int D> struct tile_of {
    static constexpr int WIDTH = D % 64 == 0 ? 64 : 32, PIECES = WIDTH / 8;
    static constexpr int ROW_BYTES = WIDTH * 2, GROUP_BYTES = 8 * ROW_BYTES;

    /* Bytes from the tile's begin to columns 8 * piece .. of a row. */
    static __device__ __forceinline__ uint32_t place(int rows, int row, int piece)
    {
        const int swizzle = WIDTH == 64 ? row & 7 : row >> 1 & 3;
        return piece / PIECES * rows * ROW_BYTES + row * ROW_BYTES + ((piece % PIECES) ^ swizzle) * 16;
    }
};

/* ---- 16-bit pairs ---- */

template <typename T> __device__ __forceinline__ uint32_t pack_pair(float low, float high);
template <> __device__ __forceinline__ uint32_t pack_pair<__half>(float low, float high)
{
    const __half2 pair = __floats2half2_rn(low, high);
    return *(const uint32_t *)&pair;
}
template <> __device__ __forceinline__ uint32_t pack_pair<__nv_bfloat16>(float low, float high)
{
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *(const uint32_t *)&pair;
}

template <typename T> __device__ __forceinline__ float2 unpack_pair(uint32_t pair);
template <> __device__ __forceinline__ float2 unpack_pair<__half>(uint32_t pair)
{
    return __half22float2(*(const __half2 *)&pair);
}
template <> __device__ __forceinline__ float2 unpack_pair<__nv_bfloat16>(uint32_t pair)
{
    return __bfloat1622float2(*(const __nv_bfloat162 *)&pair);
}

/* Sums as the left operand of the next product. */
template <typename T, int N>
__device__ __forceinline__ void to_operand(const float (&sum)[N][4], uint32_t (&a)[N / 2][4])
{
#pragma unroll
    for (int k = 0; k < N / 2; k++) {
        a[k][0] = pack_pair<T>(sum[2 * k][0], sum[2 * k][1]);
        a[k][1] = pack_pair<T>(sum[2 * k][2], sum[2 * k][3]);
        a[k][2] = pack_pair<T>(sum[2 * k + 1][0], sum[2 * k + 1][1]);
        a[k][3] = pack_pair<T>(sum[2 * k + 1][2], sum[2 * k + 1][3]);
    }
}

/* ---- shared memory ---- */

__device__ __forceinline__ void load_matrices(uint32_t address, uint32_t (&r)[4])
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}

__device__ __forceinline__ void load_matrices_transposed(uint32_t address, uint32_t (&r)[4])
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}

/* Columns 16k .. of the 16 rows from `row` on of a tile of `rows` rows, as a left operand. */
template <int D>
__device__ __forceinline__ void load_operand(uint32_t tile, int rows, int row, int k, uint32_t (&a)[4])
{
    const int lane = threadIdx.x % 32;
    load_matrices(tile + tile_of<D>::place(rows, row + lane % 16, 2 * k + lane / 16), a);
}

/* 16 bytes of global memory to shared, asynchronously; zeros when not `inside`. */
__device__ __forceinline__ void copy_16_async(uint32_t to, const void *from, bool inside)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(inside ? 16 : 0)
                 : "memory");
}

__device__ __forceinline__ void copy_8_async(uint32_t to, const void *from, bool inside)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(to), "l"(from), "r"(inside ? 8 : 0)
                 : "memory");
}

__device__ __forceinline__ void commit_copies()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* All but the last N groups of this thread's copies have arrived, and the tensor cores may read them after the next
 * barrier. */
template <int N> __device__ __forceinline__ void wait_copies()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#ifdef USE_WGMMA
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

/* ---- products ---- */

/* The sums are given to the tensor cores, or taken back: no access may move across. */
template <int N> __device__ __forceinline__ void pin(float (&sum)[N][4])
{
#ifdef USE_WGMMA
#pragma unroll
    for (int n = 0; n < N; n++)
        asm volatile("" : "+f"(sum[n][0]), "+f"(sum[n][1]), "+f"(sum[n][2]), "+f"(sum[n][3])::"memory");
#endif
}

__device__ __forceinline__ void begin_products()
{
#ifdef USE_WGMMA
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}

__device__ __forceinline__ void commit_products()
{
#ifdef USE_WGMMA
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}

/* All but the last N groups of products are done. Then pin their sums. */
template <int N> __device__ __forceinline__ void wait_products()
{
#ifdef USE_WGMMA
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
#endif
}

#ifdef USE_WGMMA

#include "kernels/cuda/wgmma.cuh"

#else

template <typename T>
__device__ __forceinline__ void multiply_16x8x16(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
template <>
__device__ __forceinline__ void multiply_16x8x16<__half>(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0,
                                                         uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <>
__device__ __forceinline__ void multiply_16x8x16<__nv_bfloat16>(float (&sum)[4], const uint32_t (&a)[4],
                                                                uint32_t b0, uint32_t b1)
{
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* sum = columns 16k .. of the product a tile^T, added to sum unless k is 0. */
template <typename T, int D, int N>
__device__ __forceinline__ void multiply_step(float (&sum)[N][4], const uint32_t (&a)[4], uint32_t tile, int k)
{
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int n = 0; n < N; n += 2) {
        uint32_t b[4];
        load_matrices(tile + tile_of<D>::place(8 * N, 8 * n + lane % 8 + lane / 16 * 8, 2 * k + lane / 8 % 2), b);
        multiply_16x8x16<T>(sum[n], a, b[0], b[1]);
        multiply_16x8x16<T>(sum[n + 1], a, b[2], b[3]);
    }
}

template <int N> __device__ __forceinline__ void clear(float (&sum)[N][4])
{
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            sum[n][i] = 0.0f;
}

/* sum[64][64] = a[64][D] tile^T, the tile being of 64 rows and D columns. */
template <typename T, int D>
__device__ __forceinline__ void multiply_rows(float (&sum)[8][4], const uint32_t (&a)[D / 16][4], uint32_t tile)
{
    clear(sum);
#pragma unroll
    for (int k = 0; k < D / 16; k++)
        multiply_step<T, D>(sum, a[k], tile, k);
}

/* The same with a being the 64 rows from `row` on of a tile of ROWS rows. */
template <typename T, int D, int ROWS>
__device__ __forceinline__ void multiply_rows(float (&sum)[8][4], uint32_t left, int row, uint32_t tile)
{
    clear(sum);
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        uint32_t a[4];
        load_operand<D>(left, ROWS, row + threadIdx.x / 32 % 4 * 16, k, a);
        multiply_step<T, D>(sum, a, tile, k);
    }
}

/* sum[64][D] += a[64][16K] tile, the tile being of 16K rows and D columns. */
template <typename T, int D, int K>
__device__ __forceinline__ void add_product(float (&sum)[D / 8][4], const uint32_t (&a)[K][4], uint32_t tile)
{
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < K; k++)
#pragma unroll
        for (int n = 0; n < D / 8; n += 2) {
            uint32_t b[4];
            load_matrices_transposed(tile + tile_of<D>::place(16 * K, 16 * k + lane % 16, n + lane / 16), b);
            multiply_16x8x16<T>(sum[n], a[k], b[0], b[1]);
            multiply_16x8x16<T>(sum[n + 1], a[k], b[2], b[3]);
        }
}

#endif
#endif
