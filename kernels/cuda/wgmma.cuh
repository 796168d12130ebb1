/* The products of tensor_core.cuh by wgmma, which four warps issue together and wait for by groups. */
#ifndef MZ_KERNELS_CUDA_WGMMA_CUH
#define MZ_KERNELS_CUDA_WGMMA_CUH

#define PLACES_4(a, b, c, d) "%" #a ", %" #b ", %" #c ", %" #d
#define PLACES_16                                                                                                  \
    PLACES_4(0, 1, 2, 3) ", " PLACES_4(4, 5, 6, 7) ", " PLACES_4(8, 9, 10, 11) ", " PLACES_4(12, 13, 14, 15)
#define PLACES_32                                                                                                  \
    PLACES_16 ", " PLACES_4(16, 17, 18, 19) ", " PLACES_4(20, 21, 22, 23) ", " PLACES_4(                           \
        24, 25, 26, 27) ", " PLACES_4(28, 29, 30, 31)
#define PLACES_48                                                                                                  \
    PLACES_32 ", " PLACES_4(32, 33, 34, 35) ", " PLACES_4(36, 37, 38, 39) ", " PLACES_4(                           \
        40, 41, 42, 43) ", " PLACES_4(44, 45, 46, 47)
#define PLACES_64                                                                                                  \
    PLACES_48 ", " PLACES_4(48, 49, 50, 51) ", " PLACES_4(52, 53, 54, 55) ", " PLACES_4(                           \
        56, 57, 58, 59) ", " PLACES_4(60, 61, 62, 63)

#define SUMS_4(c, n)     c(sum[n][0]), c(sum[n][1]), c(sum[n][2]), c(sum[n][3])
#define SUMS_OF_16(c, n) SUMS_4(c, n), SUMS_4(c, n + 1), SUMS_4(c, n + 2), SUMS_4(c, n + 3)
#define SUMS_16(c)       SUMS_OF_16(c, 0)
#define SUMS_32(c)       SUMS_16(c), SUMS_OF_16(c, 4)
#define SUMS_48(c)       SUMS_32(c), SUMS_OF_16(c, 8)
#define SUMS_64(c)       SUMS_48(c), SUMS_OF_16(c, 12)

/* sum += a b over 16 columns of a. N columns of b make R = N / 2 sums in a lane; A0.. are the numbers of the asm
 * operands behind the sums. b is stored [k][n]. */
#define WGMMA_ADD(N, R, TYPE, A0, A1, A2, A3, A4)                                                                  \
    asm volatile("wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE "." TYPE " {" PLACES_##R                   \
                 "}, {" PLACES_4(A0, A1, A2, A3) "}, %" #A4 ", 1, 1, 1, 1;"                                        \
                 : SUMS_##R("+f")                                                                                  \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b)                                              \
                 : "memory")

/* sum = a b (ADD 0, CONSTRAINT "=f") or sum += a b (1, "+f") of 64 columns, a in shared memory; b is stored [n][k].
 */
#define WGMMA_ROWS(TYPE, ADD, CONSTRAINT)                                                                          \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " #ADD ", 0;\n"                                                 \
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32." TYPE "." TYPE " {" PLACES_32                        \
                 "}, %32, %33, p, 1, 1, 0, 0;\n}\n"                                                                \
                 : SUMS_32(CONSTRAINT)                                                                             \
                 : "l"(a), "l"(b)                                                                                  \
                 : "memory")

#define WGMMA_ROWS_OF_TYPE(ADD, CONSTRAINT)                                                                        \
    do {                                                                                                           \
        if constexpr (is_half<T>())                                                                                \
            WGMMA_ROWS("f16", ADD, CONSTRAINT);                                                                    \
        else                                                                                                       \
            WGMMA_ROWS("bf16", ADD, CONSTRAINT);                                                                   \
    } while (0)
#define WGMMA_ADD_OF_TYPE(N, R, ...)                                                                               \
    do {                                                                                                           \
        if constexpr (is_half<T>())                                                                                \
            WGMMA_ADD(N, R, "f16", __VA_ARGS__);                                                                   \
        else                                                                                                       \
            WGMMA_ADD(N, R, "bf16", __VA_ARGS__);                                                                  \
    } while (0)

template <typename T> __device__ constexpr bool is_half()
{
    return false;
}
template <> __device__ constexpr bool is_half<__half>()
{
    return true;
}

/* sum += a b, b of 8N columns and stored [k][n]. */
template <typename T, int N>
__device__ __forceinline__ void wgmma_add(float (&sum)[N][4], const uint32_t (&a)[4], uint64_t b)
{
    static_assert(N == 4 || N == 8 || N == 12 || N == 16, "32, 64, 96 or 128 columns");
    if constexpr (N == 4)
        WGMMA_ADD_OF_TYPE(32, 16, 16, 17, 18, 19, 20);
    else if constexpr (N == 8)
        WGMMA_ADD_OF_TYPE(64, 32, 32, 33, 34, 35, 36);
    else if constexpr (N == 12)
        WGMMA_ADD_OF_TYPE(96, 48, 48, 49, 50, 51, 52);
    else
        WGMMA_ADD_OF_TYPE(128, 64, 64, 65, 66, 67, 68);
}

/* sum = a b, or sum += a b behind the first step; b stored [n][k]. A sum that starts anew is an output only: what
 * the registers held has no bearing, and earlier products may be in flight. */
template <typename T>
__device__ __forceinline__ void wgmma_rows(float (&sum)[8][4], uint64_t a, uint64_t b, bool first)
{
    if (first)
        WGMMA_ROWS_OF_TYPE(0, "=f");
    else
        WGMMA_ROWS_OF_TYPE(1, "+f");
}

/* Where a tile of D columns lies, for the tensor cores: its address, what lies between panels, what lies between
 * groups of eight rows, and the swizzle, each in units of 16 bytes. The address and `bytes` further on are added,
 * so that steps cost one addition: shared memory ends below 2^18. */
template <int D> __device__ __forceinline__ uint64_t describe(uint32_t address, uint32_t bytes, int panel_bytes)
{
    typedef tile_of<D> tile;
    const uint32_t low = (address >> 4 | (uint32_t)(panel_bytes >> 4) << 16) + (bytes >> 4);
    constexpr uint32_t high = tile::GROUP_BYTES >> 4 | (tile::WIDTH == 64 ? 1u : 2u) << 30;
    uint64_t description;
    asm("mov.b64 %0, {%1, %2};" : "=l"(description) : "r"(low), "r"(high));
    return description;
}

/* Bytes to columns 16k of a tile of `rows` rows. */
template <int D> __device__ __forceinline__ uint32_t columns_at(int rows, int k)
{
    typedef tile_of<D> tile;
    return 16 * k / tile::WIDTH * rows * tile::ROW_BYTES + 16 * k % tile::WIDTH * 2;
}

/* sum[64][64] = a[64][D] tile^T: a is the rows from `row` on of a tile of ROWS rows, `tile` of 64. (With a in
 * registers, ptxas 13.0 gave the same registers to the left operand of a later product.) */
template <typename T, int D, int ROWS>
__device__ __forceinline__ void multiply_rows(float (&sum)[8][4], uint32_t left, int row, uint32_t tile)
{
#pragma unroll
    for (int k = 0; k < D / 16; k++)
        wgmma_rows<T>(sum, describe<D>(left + row * tile_of<D>::ROW_BYTES, columns_at<D>(ROWS, k), 16),
                      describe<D>(tile, columns_at<D>(64, k), 16), k == 0);
}

/* sum[64][D] += a[64][16K] tile, the tile being of 16K rows and D columns. */
template <typename T, int D, int K>
__device__ __forceinline__ void add_product(float (&sum)[D / 8][4], const uint32_t (&a)[K][4], uint32_t tile)
{
    typedef tile_of<D> place;
#pragma unroll
    for (int k = 0; k < K; k++)
        wgmma_add<T>(sum, a[k], describe<D>(tile, k * 2 * place::GROUP_BYTES, 16 * K * place::ROW_BYTES));
}

#endif
