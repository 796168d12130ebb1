/* What forward and backward attention share. A block of threads works on one sample and head and one block of
 * queries (or of keys), with tiles as fp32 in shared memory: after Dao et al., "FlashAttention", 2022, and Dao,
 * "FlashAttention-2", 2023. Threads form a grid of TY rows and TX columns; thread (y, x) has rows y, y + TY, ...
 * and columns x, x + TX, ... of every tile and product. */
#ifndef MZ_KERNELS_CUDA_ATTENTION_CUH
#define MZ_KERNELS_CUDA_ATTENTION_CUH

#include "kernels/cuda/draws.cuh"

/* Sizes for heads of up to D: tiles of BQ queries and BK keys. Rows of tiles are one element longer than D, so
 * that a warp reading down a column meets all banks. */
template <int D_, int BQ_, int BK_, int TY_, int TX_> struct tiling {
    static constexpr int D = D_, BQ = BQ_, BK = BK_, TY = TY_, TX = TX_;
    static constexpr int THREADS = TY * TX, PITCH = D + 1, SCORE_PITCH = BK + 1;
    static constexpr int Q_ROWS = BQ / TY, K_ROWS = BK / TY, K_COLS = (BK + TX - 1) / TX, D_COLS = D / TX;
    static constexpr int Q_TILE = BQ * PITCH, K_TILE = BK * PITCH, SCORES = BQ * SCORE_PITCH;
};
typedef tiling<64, 64, 64, 16, 16> tiling_64;
typedef tiling<128, 32, 32, 16, 16> tiling_128;
typedef tiling<256, 16, 16, 16, 16> tiling_256;
typedef tiling<1024, 8, 8, 8, 16> tiling_1024; /* the largest that the contract has: right, not fast */

/* A launch of KERNEL<tiling, T> by head size. */
#define FOR_TILING(shape, TILING, ...)                                                                             \
    do {                                                                                                           \
        if ((shape)->head_size <= 64) {                                                                            \
            typedef tiling_64 TILING;                                                                              \
            __VA_ARGS__;                                                                                           \
        } else if ((shape)->head_size <= 128) {                                                                    \
            typedef tiling_128 TILING;                                                                             \
            __VA_ARGS__;                                                                                           \
        } else if ((shape)->head_size <= 256) {                                                                    \
            typedef tiling_256 TILING;                                                                             \
            __VA_ARGS__;                                                                                           \
        } else {                                                                                                   \
            typedef tiling_1024 TILING;                                                                            \
            __VA_ARGS__;                                                                                           \
        }                                                                                                          \
    } while (0)

/* attention_tensor.cu and attention_tensor_grad.cu: 16-bit attention on the tensor cores, and whether they take it.
 */
bool mz_cuda_attention_takes_tensor(const mz_attention_args *a, mz_stream *stream);
mz_status mz_cuda_attention_tensor(const mz_attention_args *a, mz_stream *stream);
bool mz_cuda_attention_grad_takes_tensor(const mz_attention_grad_args *a, mz_stream *stream);
mz_status mz_cuda_attention_grad_tensor(const mz_attention_grad_args *a, mz_stream *stream);

/* The sample and head of a block, and its number within them: blockIdx.x runs over n_tiles tiles of each. */
struct head_place {
    int64_t b, h, head, tile;
    __device__ head_place(const mz_attention_shape &s, int64_t n_tiles)
        : b(blockIdx.x / (unsigned)n_tiles / (unsigned)s.heads),
          h(blockIdx.x / (unsigned)n_tiles % (unsigned)s.heads), head(blockIdx.x / (unsigned)n_tiles),
          tile(blockIdx.x % (unsigned)n_tiles)
    {
    }
};

/* Rows first .. first + ROWS - 1 of x (element [t][d] at t * token + d) into a tile; 0 beyond t_end and head_size.
 */
template <typename L, int ROWS, typename T>
__device__ __forceinline__ void load_tile(float *tile, const T *x, int64_t token, int64_t first, int64_t t_end,
                                          int64_t head_size)
{
    for (int e = threadIdx.x; e < ROWS * L::D; e += L::THREADS) {
        const int r = e / L::D, d = e % L::D;
        const bool inside = first + r < t_end && d < head_size;
        tile[r * L::PITCH + d] = inside ? to_float(x[(first + r) * token + d]) : 0.0f;
    }
}

/* product[i][j] = row y + i * TY of tile a times row x + j * TX of tile b, both of D columns. */
template <typename L>
__device__ __forceinline__ void multiply_rows(const float *a, const float *b, float product[L::Q_ROWS][L::K_COLS])
{
    const int y = threadIdx.x / L::TX, x = threadIdx.x % L::TX;
#pragma unroll
    for (int i = 0; i < L::Q_ROWS; i++)
#pragma unroll
        for (int j = 0; j < L::K_COLS; j++)
            product[i][j] = 0.0f;
#pragma unroll 8
    for (int d = 0; d < L::D; d++) {
        float left[L::Q_ROWS], right[L::K_COLS];
#pragma unroll
        for (int i = 0; i < L::Q_ROWS; i++)
            left[i] = a[(y + i * L::TY) * L::PITCH + d];
#pragma unroll
        for (int j = 0; j < L::K_COLS; j++) /* lanes past BK repeat a row; what they make is not stored */
            right[j] = b[(x + j * L::TX) % L::BK * L::PITCH + d];
#pragma unroll
        for (int i = 0; i < L::Q_ROWS; i++)
#pragma unroll
            for (int j = 0; j < L::K_COLS; j++)
                product[i][j] += left[i] * right[j];
    }
}

/* sums[i][c] += sum over k < N of w(k, row y + i * TY) * tile[k][x + c * TX], with w(k, r) = w[r * row + k * step].
 */
template <typename L, int N, int ROWS>
__device__ __forceinline__ void add_weighted(const float *w, int row, int step, const float *tile,
                                             float sums[ROWS][L::D_COLS])
{
    const int y = threadIdx.x / L::TX, x = threadIdx.x % L::TX;
#pragma unroll 4
    for (int k = 0; k < N; k++) {
        float weight[ROWS];
#pragma unroll
        for (int i = 0; i < ROWS; i++)
            weight[i] = w[(y + i * L::TY) * row + k * step];
#pragma unroll
        for (int c = 0; c < L::D_COLS; c++) {
            const float value = tile[k * L::PITCH + x + c * L::TX];
#pragma unroll
            for (int i = 0; i < ROWS; i++)
                sums[i][c] += weight[i] * value;
        }
    }
}

/* x[(first + row) * token + column] = scale * sums for the rows below t_end. */
template <typename L, int ROWS, typename T>
__device__ __forceinline__ void store_rows(T *x, int64_t token, int64_t first, int64_t t_end, int64_t head_size,
                                           const float sums[ROWS][L::D_COLS], float scale)
{
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        const int64_t t = first + threadIdx.x / L::TX + i * L::TY;
#pragma unroll
        for (int c = 0; c < L::D_COLS; c++) {
            const int64_t d = threadIdx.x % L::TX + c * L::TX;
            if (t < t_end && d < head_size)
                x[t * token + d] = from_float<T>(scale * sums[i][c]);
        }
    }
}

__device__ __forceinline__ bool sees(const mz_attention_shape &s, int64_t b, int64_t i, int64_t j)
{
    return i < s.t_q && j < s.t_k && !(s.causal && j > i + (s.t_k - s.t_q)) &&
           !(s.key_mask && s.key_mask[b * s.t_k + j] == 0);
}

/* Keys that the queries below i_end may see. */
__device__ __forceinline__ int64_t visible_keys(const mz_attention_shape &s, int64_t i_end)
{
    const int64_t n = i_end + (s.t_k - s.t_q);
    return !s.causal || n > s.t_k ? s.t_k : n < 0 ? 0 : n;
}

/* Dropout's factor of probability [i][j] of a head. */
__device__ __forceinline__ float keep_factor(const mz_attention_shape &s, const dropout_draws &draws,
                                             const mz_rng_state &state, int64_t head, int64_t i, int64_t j)
{
    return draws.state ? (float)draw_factor(draws, state, (head * s.t_q + i) * s.t_k + j) : 1.0f;
}

/* Blocks of a launch: n_tiles for each sample and head. */
static inline mz_status grid_of(const char *kernel, const mz_attention_shape *s, int64_t n_tiles, unsigned *grid)
{
    const int64_t blocks = s->batch * s->heads * n_tiles;
    if (blocks > INT32_MAX)
        return mz_fail(MZ_ERR_ARGUMENT, "kernel %s: %lld blocks of work, CUDA takes %d", kernel, (long long)blocks,
                       INT32_MAX);
    *grid = (unsigned)blocks;
    return MZ_OK;
}

#endif
