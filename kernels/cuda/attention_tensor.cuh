/* What forward and backward attention on the tensor cores share, for 16-bit storage: after Dao, "FlashAttention-2",
 * 2023. A block of threads is GROUPS groups of four warps. Each group works on 64 queries (or keys) that stay,
 * while tiles of STEP keys (or queries) go through a ring in shared memory. */
#ifndef MZ_KERNELS_CUDA_ATTENTION_TENSOR_CUH
#define MZ_KERNELS_CUDA_ATTENTION_TENSOR_CUH

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/tensor_core.cuh"

enum {
    GROUP_ROWS = 64,
    GROUP_THREADS = 128,
    STEP = 64,       /* rows of a tile of the ring */
    STAGES = 4,      /* tiles of the ring */
    ALIGNMENT = 1024 /* of tiles */
};

/* Sums of a product of 64 rows with STEP columns, as one lane holds them. */
typedef float score_sums[STEP / 8][4];

template <int D> __device__ __forceinline__ constexpr uint32_t tile_bytes(int rows)
{
    return rows * D * 2;
}

/* Where a lane's sums lie in its group's rows, and in the 8 columns of a sum. */
struct lane_place {
    int group, row, column; /* rows `row` and `row` + 8 */
    __device__ __forceinline__ lane_place()
        : group(threadIdx.x / 128), row(threadIdx.x / 32 % 4 * 16 + threadIdx.x % 32 / 4),
          column(threadIdx.x % 4 * 2)
    {
    }
};

/* The first multiple of ALIGNMENT in dynamic shared memory, as the shared window's address. */
__device__ __forceinline__ uint32_t shared_begin()
{
    extern __shared__ char shared_memory[];
    return ((uint32_t)__cvta_generic_to_shared(shared_memory) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* Every thread of the block gets here; groups may come from different places. */
template <int GROUPS> __device__ __forceinline__ void meet_block()
{
    asm volatile("bar.sync 0, %0;" ::"n"(GROUPS * (int)GROUP_THREADS) : "memory");
}

/* Starts copying rows first .. first + ROWS - 1 of x (element [t][d] at t * token + d) to a tile; zeros beyond
 * t_end and head_size. */
template <int D, int ROWS, int GROUPS, typename T>
__device__ __forceinline__ void copy_tile(uint32_t tile, const T *x, int token, int first, int t_end, int head_size)
{
    constexpr int PIECES = D / 8, N = ROWS * PIECES, THREADS = GROUPS * GROUP_THREADS;
#pragma unroll
    for (int c = 0; c < (N + THREADS - 1) / THREADS; c++) {
        const int e = c * THREADS + threadIdx.x, row = e / PIECES, piece = e % PIECES;
        const bool inside = first + row < t_end && piece * 8 < head_size;
        if (N % THREADS == 0 || e < N)
            copy_16_async(tile + tile_of<D>::place(ROWS, row, piece),
                          inside ? x + (int64_t)(first + row) * token + piece * 8 : x, inside);
    }
}

/* The same for one tile of STEP rows after another, with what a thread copies worked out once. */
template <int D, int GROUPS, typename T> struct tile_source {
    static constexpr int PIECES = D / 8, THREADS = GROUPS * GROUP_THREADS, ROWS = THREADS / PIECES;
    static constexpr bool REGULAR = THREADS % (8 * PIECES) == 0; /* a thread has one column of pieces */
    const T *x;
    int token, t_end, head_size;
    uint32_t place;

    __device__ __forceinline__ tile_source(const T *x_, int64_t token_, int64_t t_end_, int64_t head_size_)
        : x(x_), token((int)token_), t_end((int)t_end_), head_size((int)head_size_)
    {
        if (REGULAR) {
            const int row = threadIdx.x / PIECES, piece = threadIdx.x % PIECES;
            x += (int64_t)row * token + piece * 8;
            place = tile_of<D>::place(STEP, row, piece);
            t_end = piece * 8 < head_size ? t_end - row : 0;
        }
    }
    __device__ __forceinline__ void copy(uint32_t to, int tile) const
    {
        if constexpr (!REGULAR) {
            copy_tile<D, STEP, GROUPS>(to, x, token, tile * STEP, t_end, head_size);
        } else {
            const T *from = x + (int64_t)(tile * STEP) * token;
#pragma unroll
            for (int c = 0; c < (STEP + ROWS - 1) / ROWS; c++)
                if (STEP % ROWS == 0 || c * ROWS + threadIdx.x / PIECES < STEP)
                    copy_16_async(to + place + c * ROWS * tile_of<D>::ROW_BYTES, from + (int64_t)(c * ROWS) * token,
                                  tile * STEP + c * ROWS < t_end);
        }
    }
};

/* 64 rows that a group multiplies every tile with, of a tile of the block's: by mma.sync from registers where they
 * fit. */
template <int D, int GROUPS> struct resident {
#ifdef USE_WGMMA
    static constexpr bool IN_REGISTERS = false;
#else
    static constexpr bool IN_REGISTERS = D <= 64;
#endif
    uint32_t a[IN_REGISTERS ? D / 16 : 1][4];
    uint32_t tile;

    __device__ __forceinline__ explicit resident(uint32_t tile_) : tile(tile_)
    {
    }
    /* Once the tile is there. */
    __device__ __forceinline__ void load()
    {
        if constexpr (IN_REGISTERS)
#pragma unroll
            for (int k = 0; k < D / 16; k++)
                load_operand<D>(tile, GROUPS * GROUP_ROWS, threadIdx.x / 32 * 16, k, a[k]);
    }
    /* sum = rows other^T, `other` being a tile of STEP rows. */
    template <typename T> __device__ __forceinline__ void multiply(score_sums &sum, uint32_t other) const
    {
        if constexpr (IN_REGISTERS)
            multiply_rows<T, D>(sum, a, other);
        else
            multiply_rows<T, D, GROUPS * GROUP_ROWS>(sum, tile, threadIdx.x / GROUP_THREADS * GROUP_ROWS, other);
    }
};

/* x[first + row][..] = scale * sums for the block's rows below t_end, by way of a tile of as many rows, so that
 * whole pieces are written; a warp uses its own rows of that tile only. The scales are of the lane's two rows; a
 * row with scale 0 becomes 0 whatever its sums. */
template <int D, int GROUPS, typename T>
__device__ __forceinline__ void store_sums(T *x, int token, int first, int t_end, int head_size, uint32_t tile,
                                           const float (&sums)[D / 8][4], float scale0, float scale1)
{
    const lane_place lane;
    const int warp_row = threadIdx.x / 32 * 16;
#pragma unroll
    for (int n = 0; n < D / 8; n++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const float scale = half ? scale1 : scale0;
            const uint32_t pair =
                scale == 0.0f ? 0 : pack_pair<T>(scale * sums[n][2 * half], scale * sums[n][2 * half + 1]);
            const int row = lane.group * GROUP_ROWS + lane.row + 8 * half;
            asm volatile("st.shared.b32 [%0], %1;" ::"r"(tile + tile_of<D>::place(GROUPS * GROUP_ROWS, row, n) +
                                                         2 * lane.column),
                         "r"(pair)
                         : "memory");
        }
    __syncwarp();
#pragma unroll
    for (int e = threadIdx.x % 32; e < 16 * (D / 8); e += 32) {
        const int row = warp_row + e / (D / 8), piece = e % (D / 8);
        uint4 values;
        asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(values.x), "=r"(values.y), "=r"(values.z), "=r"(values.w)
                     : "r"(tile + tile_of<D>::place(GROUPS * GROUP_ROWS, row, piece))
                     : "memory");
        if (first + row < t_end && piece * 8 < head_size)
            *(uint4 *)(x + (int64_t)(first + row) * token + piece * 8) = values;
    }
}

__device__ __forceinline__ float exp2_fast(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* ---- masks ---- */

/* Scores of queries i, i + 8 with keys j0 + column + 8n + 0, 1 become `hidden` where a query does not see the key.
 */
template <bool PLAIN>
__device__ __forceinline__ void hide_keys(const mz_attention_shape &s, int64_t b, int i, int j0, int column,
                                          float hidden, score_sums &score)
{
    const int offset = (int)(s.t_k - s.t_q), t_k = (int)s.t_k;
    int last[2]; /* the last key that a query sees, counted from j0 + column */
#pragma unroll
    for (int half = 0; half < 2; half++)
        last[half] = (s.causal ? min(t_k - 1, i + 8 * half + offset) : t_k - 1) - j0 - column;
#pragma unroll
    for (int n = 0; n < STEP / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const int c = 8 * n + e % 2;
            bool seen = c <= last[e / 2];
            if (!PLAIN && s.key_mask)
                seen = seen && s.key_mask[b * t_k + min(j0 + column + c, t_k - 1)] != 0;
            score[n][e] = seen ? score[n][e] : hidden;
        }
}

/* Whether a tile of keys needs hide_keys, for a group's queries from i0 on. */
template <bool PLAIN> __device__ __forceinline__ bool hides_keys(const mz_attention_shape &s, int i0, int j0)
{
    return (!PLAIN && s.key_mask) || j0 + STEP > s.t_k || (s.causal && j0 + STEP - 1 > i0 + (s.t_k - s.t_q));
}

/* Tiles of keys that the queries below i_end may see. */
__device__ __forceinline__ int visible_tiles(const mz_attention_shape &s, int i_end)
{
    return (int)((visible_keys(s, i_end) + STEP - 1) / STEP);
}

/* ---- dropout ---- */

/* Word `which` of a block of draws. */
__device__ __forceinline__ uint32_t draw_at(const uint4 &block, uint32_t which)
{
    return which == 0 ? block.x : which == 1 ? block.y : which == 2 ? block.z : block.w;
}

/* Bit 4n + e is set where the probability of query i (+ 8) and key j0 + column + 8n (+ 1) is kept: e counts as in
 * the sums. */
__device__ __forceinline__ uint32_t kept_keys(const mz_attention_shape &s, const dropout_draws &draws,
                                              const mz_rng_state &state, int64_t head, int i, int j)
{
    uint32_t kept = 0;
    const uint64_t begin = (uint64_t)(state.first_sample * draws.sample_elements + (head * s.t_q + i) * s.t_k + j);
#pragma unroll 1
    for (int n = 0; n < STEP / 8; n++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const uint64_t element = begin + (uint64_t)(half * 8 * s.t_k + 8 * n);
            const uint32_t which = (uint32_t)(element % 4);
            const uint4 block = draw_block(state, draws.site, element / 4);
            uint32_t second = draw_at(block, which + 1);
            if (which == 3)
                second = draw_block(state, draws.site, element / 4 + 1).x;
            kept |= (uint32_t)(draw_at(block, which) >= draws.threshold) << (4 * n + 2 * half);
            kept |= (uint32_t)(second >= draws.threshold) << (4 * n + 2 * half + 1);
        }
    return kept;
}

/* The same where the lane's rows are keys j, j + 8 and its columns queries i + 8n, + 1. */
__device__ __forceinline__ uint32_t kept_queries(const mz_attention_shape &s, const dropout_draws &draws,
                                                 const mz_rng_state &state, int64_t head, int i, int j)
{
    uint32_t kept = 0;
    const uint64_t begin = (uint64_t)(state.first_sample * draws.sample_elements + (head * s.t_q + i) * s.t_k + j);
#pragma unroll 1
    for (int n = 0; n < STEP / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const uint64_t element = begin + (uint64_t)((8 * n + e % 2) * s.t_k + e / 2 * 8);
            const uint4 block = draw_block(state, draws.site, element / 4);
            kept |= (uint32_t)(draw_at(block, (uint32_t)(element % 4)) >= draws.threshold) << (4 * n + e);
        }
    return kept;
}

/* ---- launching ---- */

/* Whether the kernels on the tensor cores take a shape and the tensors at these addresses. */
static inline bool takes_tensor_cores(const mz_attention_shape *s, mz_stream *stream, const void *const *tensors,
                                      int n_tensors)
{
    const int64_t strides = s->q_batch | s->q_token | s->q_head | s->k_batch | s->k_token | s->k_head | s->v_batch |
                            s->v_token | s->v_head | s->o_batch | s->o_token | s->o_head | s->head_size;
    bool aligned = true;
    for (int i = 0; i < n_tensors; i++)
        aligned = aligned && is_aligned(tensors[i], 16);
    return aligned && strides % 8 == 0 && s->dtype != MZ_F32 && s->head_size <= 128 && s->scale > 0.0f &&
           s->t_q < 1 << 30 && s->t_k < 1 << 30 && s->q_token < 1 << 30 && s->k_token < 1 << 30 &&
           s->v_token < 1 << 30 && s->o_token < 1 << 30 && mz_cuda_of(stream)->capability >= 80;
}

/* Runs the statement with T, D and PLAIN (no key mask, no dropout) standing for the kernel's that takes the shape.
 */
#define FOR_TENSOR_KERNEL(shape, T, D, PLAIN, ...)                                                                 \
    do {                                                                                                           \
        if ((shape)->dtype == MZ_F16) {                                                                            \
            typedef __half T;                                                                                      \
            FOR_HEAD(shape, D, PLAIN, __VA_ARGS__);                                                                \
        } else {                                                                                                   \
            typedef __nv_bfloat16 T;                                                                               \
            FOR_HEAD(shape, D, PLAIN, __VA_ARGS__);                                                                \
        }                                                                                                          \
    } while (0)

#define FOR_HEAD(shape, D, PLAIN, ...)                                                                             \
    do {                                                                                                           \
        if ((shape)->head_size <= 32) {                                                                            \
            constexpr int D = 32;                                                                                  \
            FOR_PLAIN(shape, PLAIN, __VA_ARGS__);                                                                  \
        } else if ((shape)->head_size <= 64) {                                                                     \
            constexpr int D = 64;                                                                                  \
            FOR_PLAIN(shape, PLAIN, __VA_ARGS__);                                                                  \
        } else if ((shape)->head_size <= 96) {                                                                     \
            constexpr int D = 96;                                                                                  \
            FOR_PLAIN(shape, PLAIN, __VA_ARGS__);                                                                  \
        } else {                                                                                                   \
            constexpr int D = 128;                                                                                 \
            FOR_PLAIN(shape, PLAIN, __VA_ARGS__);                                                                  \
        }                                                                                                          \
    } while (0)

#define FOR_PLAIN(shape, PLAIN, ...)                                                                               \
    do {                                                                                                           \
        if ((shape)->key_mask || (shape)->dropout.p > 0.0f) {                                                      \
            constexpr bool PLAIN = false;                                                                          \
            __VA_ARGS__;                                                                                           \
        } else {                                                                                                   \
            constexpr bool PLAIN = true;                                                                           \
            __VA_ARGS__;                                                                                           \
        }                                                                                                          \
    } while (0)

#endif
