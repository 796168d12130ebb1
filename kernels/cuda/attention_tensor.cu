/* Softmax attention forward on the tensor cores. Each group of four warps has 64 queries; keys and values go by in
 * tiles, with a running maximum and sum per query. */
#include "kernels/cuda/attention_tensor.cuh"

/* Groups of a block. */
static constexpr int GROUPS = 2;

template <int D> struct forward_memory {
    static constexpr uint32_t TILE = STEP * D * 2, QUERIES = GROUPS * GROUP_ROWS * D * 2;
    static constexpr int PASSES = D <= 64 ? 2 : 1; /* blocks of queries, one after the other */
    static constexpr uint32_t BYTES = PASSES * QUERIES + STAGES * 2 * TILE + ALIGNMENT;
    uint32_t queries, ring;
    __device__ __forceinline__ forward_memory() : queries(shared_begin()), ring(queries + PASSES * QUERIES)
    {
    }
    __device__ __forceinline__ uint32_t keys(int tile) const
    {
        return ring + tile % STAGES * 2 * TILE;
    }
    __device__ __forceinline__ uint32_t values(int tile) const
    {
        return keys(tile) + TILE;
    }
};

/* The running softmax of a lane's two rows; sums are of this lane's columns only. */
struct running_rows {
    float max[2], sum[2];
};

/* score becomes exp(scale * (score - max)). A maximum is replaced only when it was exceeded by so much that exp()
 * would pass 2^8; what was summed before is then brought to the new one, which later tiles hardly ever need. */
template <int D>
__device__ __forceinline__ void take_tile(float scale_log2, score_sums &score, running_rows &rows,
                                          float (&o)[D / 8][4])
{
    float rescale[2] = {1.0f, 1.0f};
    bool exceeded = false;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float max = rows.max[half];
#pragma unroll
        for (int n = 0; n < STEP / 8; n++)
            max = fmaxf(max, fmaxf(score[n][2 * half], score[n][2 * half + 1]));
        max = lane_max<4>(max);
        if ((max - rows.max[half]) * scale_log2 > 8.0f) {
            rescale[half] = exp2_fast((rows.max[half] - max) * scale_log2);
            rows.max[half] = max;
            exceeded = true;
        }
        const float shift = rows.max[half] == -CUDART_INF_F ? 0.0f : rows.max[half] * scale_log2;
        float sum = 0.0f;
#pragma unroll
        for (int n = 0; n < STEP / 8; n++)
#pragma unroll
            for (int e = 2 * half; e < 2 * half + 2; e++) {
                score[n][e] = exp2_fast(score[n][e] * scale_log2 - shift);
                sum += score[n][e];
            }
        rows.sum[half] = rows.sum[half] * rescale[half] + sum;
    }
    if (__any_sync(0xffffffffu, exceeded))
#pragma unroll
        for (int n = 0; n < D / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                o[n][e] *= rescale[e / 2];
}

__device__ __forceinline__ void drop(uint32_t kept, score_sums &p)
{
#pragma unroll
    for (int n = 0; n < STEP / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            p[n][e] = kept >> (4 * n + e) & 1 ? p[n][e] : 0.0f;
}

/* One block's tensors. */
template <typename T> struct forward_views {
    const T *q, *k, *v;
    T *o;
    __device__ __forceinline__ forward_views(const mz_attention_args &a, const head_place &at)
        : q((const T *)a.q + at.b * a.shape.q_batch + at.h * a.shape.q_head),
          k((const T *)a.k + at.b * a.shape.k_batch + at.h * a.shape.k_head),
          v((const T *)a.v + at.b * a.shape.v_batch + at.h * a.shape.v_head),
          o((T *)a.o + at.b * a.shape.o_batch + at.h * a.shape.o_head)
    {
    }
};

/* Keys and values on their way into the ring: n_first tiles for the first block of queries, then those up to
 * n_tiles for the second, again from the first key on. */
template <int D, typename T> struct key_copies {
    tile_source<D, GROUPS, T> keys, values;
    int n_first, n_tiles;
    __device__ __forceinline__ key_copies(const mz_attention_shape &s, const forward_views<T> &x, int n_first_,
                                          int n_second)
        : keys(x.k, s.k_token, s.t_k, s.head_size), values(x.v, s.v_token, s.t_k, s.head_size), n_first(n_first_),
          n_tiles(n_first_ + n_second)
    {
    }
    /* A group of copies, empty past the last tile so that groups count tiles. */
    __device__ __forceinline__ void copy(const forward_memory<D> &memory, int tile) const
    {
        if (tile < n_tiles) {
            keys.copy(memory.keys(tile), tile < n_first ? tile : tile - n_first);
            values.copy(memory.values(tile), tile < n_first ? tile : tile - n_first);
        }
        commit_copies();
    }
    /* Tile `tile` is there for everybody, and the one of two before may be overwritten. */
    __device__ __forceinline__ void next(const forward_memory<D> &memory, int tile) const
    {
        wait_copies<1>();
        meet_block<GROUPS>();
        copy(memory, tile + 2);
    }
};

template <typename T, int D, bool PLAIN>
__device__ __forceinline__ void finish(const mz_attention_args &a, const dropout_draws &draws, const head_place &at,
                                       const forward_views<T> &x, uint32_t queries, int i0, running_rows &rows,
                                       const float (&o)[D / 8][4])
{
    const mz_attention_shape &s = a.shape;
    const lane_place lane;
    float scale[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const float sum = lane_sum<4>(rows.sum[half]);
        const int i = i0 + lane.group * GROUP_ROWS + lane.row + 8 * half;
        scale[half] = sum > 0.0f ? (PLAIN || !draws.state ? 1.0f : (float)draws.factor) / sum : 0.0f;
        if (a.lse && i < s.t_q && threadIdx.x % 4 == 0)
            a.lse[at.head * s.t_q + i] = sum > 0.0f ? rows.max[half] * s.scale + logf(sum) : -CUDART_INF_F;
    }
    store_sums<D, GROUPS>(x.o, (int)s.o_token, i0, (int)s.t_q, (int)s.head_size, queries, o, scale[0], scale[1]);
}

/* Blocks of queries are taken in pairs, one far down and one far up, since a causal mask leaves the second as much
 * less to do as the first has more. */
template <typename T, int D, bool PLAIN>
__global__ void __launch_bounds__(GROUPS *GROUP_THREADS, D <= 64 ? 2 : 1)
    tensor_attention_kernel(const __grid_constant__ mz_attention_args a,
                            const __grid_constant__ dropout_draws draws, int n_blocks, int64_t n_parts)
{
    constexpr int ROWS = GROUPS * GROUP_ROWS;
    const mz_attention_shape &s = a.shape;
    const head_place at(s, n_parts);
    const forward_views<T> x(a, at);
    const forward_memory<D> memory;
    const lane_place lane;
    const int low = (int)at.tile, high = n_blocks - 1 - low;
    const int n_passes = forward_memory<D>::PASSES == 1 || low == high ? 1 : 2;
    const key_copies<D, T> copies(s, x, visible_tiles(s, (high + 1) * ROWS),
                                  n_passes == 2 ? visible_tiles(s, (low + 1) * ROWS) : 0);
    const float scale_log2 = s.scale * CUDART_L2E_F;
    const mz_rng_state state = !PLAIN && draws.state ? *draws.state : mz_rng_state{};

    copy_tile<D, ROWS, GROUPS>(memory.queries, x.q, (int)s.q_token, high * ROWS, (int)s.t_q, (int)s.head_size);
    if (n_passes == 2)
        copy_tile<D, ROWS, GROUPS>(memory.queries + forward_memory<D>::QUERIES, x.q, (int)s.q_token, low * ROWS,
                                   (int)s.t_q, (int)s.head_size);
    commit_copies();
    copies.copy(memory, 0);
    copies.copy(memory, 1);
    wait_copies<2>();
    meet_block<GROUPS>();

    int tile = 0;
#pragma unroll 1
    for (int pass = 0; pass < n_passes; pass++) {
        const int i0 = (pass == 0 ? high : low) * ROWS, group_i0 = i0 + lane.group * GROUP_ROWS, begin = tile;
        const int end = pass == 0 ? copies.n_first : copies.n_tiles;
        const int own_end = begin + visible_tiles(s, group_i0 + GROUP_ROWS);
        running_rows rows = {{-CUDART_INF_F, -CUDART_INF_F}, {0.0f, 0.0f}};
        float o[D / 8][4] = {};
        uint32_t p[STEP / 16][4];
        score_sums score;
        resident<D, GROUPS> q(memory.queries + pass * forward_memory<D>::QUERIES);
        q.load();
        for (; tile < own_end; tile++) {
            const int j0 = (tile - begin) * STEP;
            copies.next(memory, tile);
            begin_products();
            q.template multiply<T>(score, memory.keys(tile));
            commit_products();
            wait_products<0>();
            pin(score);
            pin(o);
            if (hides_keys<PLAIN>(s, group_i0, j0))
                hide_keys<PLAIN>(s, at.b, group_i0 + lane.row, j0, lane.column, -CUDART_INF_F, score);
            take_tile<D>(scale_log2, score, rows, o);
            if (!PLAIN && draws.state)
                drop(kept_keys(s, draws, state, at.head, group_i0 + lane.row, j0 + lane.column), score);
            to_operand<T>(score, p);
            pin(o);
            begin_products();
            add_product<T, D>(o, p, memory.values(tile));
            commit_products();
        }
        wait_products<0>();
        pin(o);
#pragma unroll 1
        for (; tile < end; tile++)
            copies.next(memory, tile);
        meet_block<GROUPS>(); /* the queries were used */
        finish<T, D, PLAIN>(a, draws, at, x, q.tile, i0, rows, o);
    }
}

template <typename T, int D, bool PLAIN> static mz_status attend(const mz_attention_args *a, mz_stream *stream)
{
    const int64_t n_blocks = div_up(a->shape.t_q, GROUPS * GROUP_ROWS);
    const int64_t n_parts = div_up(n_blocks, forward_memory<D>::PASSES);
    unsigned grid = 0;
    mz_status status = grid_of("attention", &a->shape, n_parts, &grid);
    if (status || grid == 0)
        return status;
    status = mz_cuda_check(cudaFuncSetAttribute(tensor_attention_kernel<T, D, PLAIN>,
                                                cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                (int)forward_memory<D>::BYTES),
                           "cudaFuncSetAttribute");
    if (status)
        return status;
    tensor_attention_kernel<T, D, PLAIN>
        <<<grid, GROUPS * GROUP_THREADS, forward_memory<D>::BYTES, stream->stream>>>(
            *a, draws_of(&a->shape.dropout), (int)n_blocks, n_parts);
    return mz_cuda_launched("attention");
}

bool mz_cuda_attention_takes_tensor(const mz_attention_args *a, mz_stream *stream)
{
    const void *const tensors[] = {a->q, a->k, a->v, a->o};
    return takes_tensor_cores(&a->shape, stream, tensors, 4);
}

mz_status mz_cuda_attention_tensor(const mz_attention_args *a, mz_stream *stream)
{
    mz_status status = MZ_OK;
    FOR_TENSOR_KERNEL(&a->shape, T, D, PLAIN, status = attend<T, D, PLAIN>(a, stream));
    return status;
}
