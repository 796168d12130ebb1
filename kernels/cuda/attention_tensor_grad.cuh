/* What the two kernels of backward attention on the tensor cores share. There are no atomics: one kernel gives dq
 * by blocks of queries and leaves lse and d_o . o of each query in the workspace, one gives dk and dv by blocks of
 * keys. Both make the probabilities again: with dp = (d_o . v_j) * factor, ds = p * (dp - d_o . o). Products of one
 * tile run while the sums of another are worked on; the counts that wait_products is given say how many groups were
 * committed since. */
#ifndef MZ_KERNELS_CUDA_ATTENTION_TENSOR_GRAD_CUH
#define MZ_KERNELS_CUDA_ATTENTION_TENSOR_GRAD_CUH

#include "kernels/cuda/attention_tensor.cuh"

/* attention_tensor_key_grad.cu; the queries' kernel goes before it. */
mz_status mz_cuda_attention_key_grad_tensor(const mz_attention_grad_args *a, mz_stream *stream);

/* Two tiles that stay, and a ring of pairs of tiles with the statistics of STEP queries. */
template <int D, int GROUPS, int PASSES> struct grad_memory {
    static constexpr uint32_t TILE = STEP * D * 2, RESIDENT = GROUPS * GROUP_ROWS * D * 2,
                              STATS = STEP * sizeof(float2);
    static constexpr uint32_t BYTES = PASSES * 2 * RESIDENT + STAGES * (2 * TILE + STATS) + ALIGNMENT;
    uint32_t first, second, ring;
    __device__ __forceinline__ grad_memory()
        : first(shared_begin()), second(first + RESIDENT), ring(first + PASSES * 2 * RESIDENT)
    {
    }
    __device__ __forceinline__ uint32_t left(int tile) const
    {
        return ring + tile % STAGES * 2 * TILE;
    }
    __device__ __forceinline__ uint32_t right(int tile) const
    {
        return left(tile) + TILE;
    }
    __device__ __forceinline__ uint32_t stats(int tile) const
    {
        return ring + STAGES * 2 * TILE + tile % STAGES * STATS;
    }
};

/* One block's tensors. */
template <typename T> struct grad_views {
    const T *q, *k, *v, *o, *d_o;
    T *dq, *dk, *dv;
    float2 *stats; /* of each query: lse in base 2, and d_o . o */
    __device__ __forceinline__ grad_views(const mz_attention_grad_args &a, const head_place &at)
    {
        const mz_attention_shape &s = a.shape;
        const int64_t to_q = at.b * s.q_batch + at.h * s.q_head, to_k = at.b * s.k_batch + at.h * s.k_head;
        const int64_t to_v = at.b * s.v_batch + at.h * s.v_head, to_o = at.b * s.o_batch + at.h * s.o_head;
        q = (const T *)a.q + to_q;
        k = (const T *)a.k + to_k;
        v = (const T *)a.v + to_v;
        o = (const T *)a.o + to_o;
        d_o = (const T *)a.d_o + to_o;
        dq = (T *)a.dq + to_q;
        dk = (T *)a.dk + to_k;
        dv = (T *)a.dv + to_v;
        stats = (float2 *)a.workspace + at.head * s.t_q;
    }
};

/* Pairs of tiles on their way into the ring, with the statistics of their rows unless NULL: n_first tiles from
 * `first` on, then those from `second` on. The ring counts on. */
template <int D, int GROUPS, typename T> struct pair_copies {
    tile_source<D, GROUPS, T> left, right;
    const float2 *stats;
    int n_rows, first, n_first, second, n_tiles;
    __device__ __forceinline__ pair_copies(const tile_source<D, GROUPS, T> &left_,
                                           const tile_source<D, GROUPS, T> &right_, const float2 *stats_,
                                           int64_t n_rows_, int first_, int n_first_, int second_, int n_second)
        : left(left_), right(right_), stats(stats_), n_rows((int)n_rows_), first(first_), n_first(n_first_),
          second(second_ - n_first_), n_tiles(n_first_ + n_second)
    {
    }
    /* The place among its tensor's tiles of the ring's tile. */
    __device__ __forceinline__ int place(int tile) const
    {
        return tile + (tile < n_first ? first : second);
    }
    /* A group of copies, empty past the last tile so that groups count tiles. */
    template <typename MEMORY> __device__ __forceinline__ void copy(const MEMORY &memory, int tile) const
    {
        if (tile < n_tiles) {
            const int from = place(tile);
            left.copy(memory.left(tile), from);
            right.copy(memory.right(tile), from);
            if (stats && threadIdx.x < STEP) {
                const int i = from * STEP + threadIdx.x;
                copy_8_async(memory.stats(tile) + threadIdx.x * 8, stats + i, i < n_rows);
            }
        }
        commit_copies();
    }
    /* Tile `tile` is there for everybody, and the one of two before may be overwritten. */
    template <typename MEMORY> __device__ __forceinline__ void next(const MEMORY &memory, int tile) const
    {
        wait_copies<1>();
        meet_block<GROUPS>();
        copy(memory, tile + 2);
    }
};

/* Blocks of threads for each head, and the shared memory of one. */
template <typename KERNEL>
static mz_status prepare(KERNEL kernel, const char *name, const mz_attention_grad_args *a, int64_t n_parts,
                         size_t shared, unsigned *grid)
{
    mz_status status = grid_of(name, &a->shape, n_parts, grid);
    if (status || *grid == 0)
        return status;
    return mz_cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared),
                         "cudaFuncSetAttribute");
}

#endif
