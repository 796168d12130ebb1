/* Softmax attention backward on the tensor cores, by blocks of keys: dk and dv. The queries' kernel has run. */
#include "kernels/cuda/attention_tensor_grad.cuh"

/* lse and delta of the lane's columns 8n + 0 and + 1. */
__device__ __forceinline__ float4 stats_of(uint32_t stats, int n)
{
    float4 of;
    asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(of.x), "=f"(of.y), "=f"(of.z), "=f"(of.w)
                 : "r"(stats + (8 * n + threadIdx.x % 4 * 2) * 8)
                 : "memory");
    return of;
}

/* score becomes p, of keys j, j + 8 and queries i0 + 8n, + 1. Rows of keys that are masked out need no care here:
 * what they give is overwritten in the end. */
__device__ __forceinline__ void probabilities(const mz_attention_shape &s, uint32_t stats, float scale_log2, int i,
                                              int j, bool hides, score_sums &score)
{
#pragma unroll
    for (int n = 0; n < STEP / 8; n++) {
        const float4 of = stats_of(stats, n);
#pragma unroll
        for (int e = 0; e < 4; e++)
            score[n][e] = exp2_fast(score[n][e] * scale_log2 - (e % 2 ? of.z : of.x));
    }
    if (hides) {
        const int first = j - (int)(s.t_k - s.t_q) - i; /* the first query that sees the key, counted from i */
#pragma unroll
        for (int n = 0; n < STEP / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                score[n][e] = 8 * n + e % 2 >= first + e / 2 * 8 ? score[n][e] : 0.0f;
    }
}

/* dp becomes ds. */
__device__ __forceinline__ void score_grads(const score_sums &p, float factor, uint32_t kept, uint32_t stats,
                                            score_sums &dp)
{
#pragma unroll
    for (int n = 0; n < STEP / 8; n++) {
        const float4 of = stats_of(stats, n);
#pragma unroll
        for (int e = 0; e < 4; e++)
            dp[n][e] = p[n][e] * ((kept >> (4 * n + e) & 1 ? dp[n][e] * factor : 0.0f) - (e % 2 ? of.w : of.y));
    }
}

/* The first tile of queries that see a key from j on. */
__device__ __forceinline__ int first_tile(const mz_attention_shape &s, int j)
{
    const int64_t i = s.causal ? j - (s.t_k - s.t_q) : 0;
    return i > 0 ? (int)(i / STEP) : 0;
}

/* A key's factor in dk or dv. */
template <bool PLAIN>
__device__ __forceinline__ float key_factor(const mz_attention_shape &s, int64_t b, int64_t j, float factor)
{
    return !PLAIN && s.key_mask && j < s.t_k && s.key_mask[b * s.t_k + j] == 0 ? 0.0f : factor;
}

/* Blocks of keys that a block of threads takes, one after the other, where memory holds both: one far up and one
 * far down, since a causal mask leaves the second as much less to do as the first has more. */
template <int D> static constexpr int key_passes = D <= 64 ? 2 : 1;

template <typename T, int D, bool PLAIN, int GROUPS>
__global__ void __launch_bounds__(GROUPS *GROUP_THREADS, 1)
    tensor_key_grad_kernel(const __grid_constant__ mz_attention_grad_args a,
                           const __grid_constant__ dropout_draws draws, int n_blocks, int64_t n_parts)
{
    if (GROUPS == 3 && !HAS_WGMMA)
        return; /* the host starts two groups then: see has_wgmma */
    constexpr int ROWS = GROUPS * GROUP_ROWS;
    typedef grad_memory<D, GROUPS, key_passes<D>> memory_layout;
    const mz_attention_shape &s = a.shape;
    const head_place at(s, n_parts);
    const grad_views<T> x(a, at);
    const memory_layout memory;
    const lane_place lane;
    const int low = (int)at.tile, high = n_blocks - 1 - low, n_passes = key_passes<D> == 1 || low == high ? 1 : 2;
    const int n_queries = (int)((s.t_q + STEP - 1) / STEP), first = min(first_tile(s, low * ROWS), n_queries);
    const int second = min(first_tile(s, high * ROWS), n_queries);
    const float scale_log2 = s.scale * CUDART_L2E_F;
    const mz_rng_state state = !PLAIN && draws.state ? *draws.state : mz_rng_state{};
    const bool drops = !PLAIN && draws.state;
    const pair_copies<D, GROUPS, T> copies({x.q, s.q_token, s.t_q, s.head_size},
                                           {x.d_o, s.o_token, s.t_q, s.head_size}, x.stats, s.t_q, first,
                                           n_queries - first, second, n_passes == 2 ? n_queries - second : 0);

    for (int pass = 0; pass < n_passes; pass++) {
        const uint32_t keys = memory.first + pass * 2 * memory_layout::RESIDENT;
        const int j0 = (pass == 0 ? low : high) * ROWS;
        copy_tile<D, ROWS, GROUPS>(keys, x.k, (int)s.k_token, j0, (int)s.t_k, (int)s.head_size);
        copy_tile<D, ROWS, GROUPS>(keys + memory_layout::RESIDENT, x.v, (int)s.v_token, j0, (int)s.t_k,
                                   (int)s.head_size);
    }
    commit_copies();
    copies.copy(memory, 0);
    copies.copy(memory, 1);
    wait_copies<2>();
    meet_block<GROUPS>();

    int tile = 0;
#pragma unroll 1
    for (int pass = 0; pass < n_passes; pass++) {
        const int j0 = (pass == 0 ? low : high) * ROWS, group_j0 = j0 + lane.group * GROUP_ROWS;
        const int j = group_j0 + lane.row, end = pass == 0 ? copies.n_first : copies.n_tiles;
        const int idle_end = tile + min(first_tile(s, group_j0), n_queries) - (pass == 0 ? first : second);
        float dk[D / 8][4] = {}, dv[D / 8][4] = {};
        uint32_t p[STEP / 16][4], ds[STEP / 16][4], kept = 0xffffffffu;
        resident<D, GROUPS> k(memory.first + pass * 2 * memory_layout::RESIDENT);
        resident<D, GROUPS> v(k.tile + memory_layout::RESIDENT);
        k.load();
        v.load();
#pragma unroll 1
        for (; tile < idle_end; tile++)
            copies.next(memory, tile);
        for (; tile < end; tile++) {
            score_sums score, dp;
            copies.next(memory, tile);
            begin_products();
            k.template multiply<T>(score, memory.left(tile));
            commit_products();
            v.template multiply<T>(dp, memory.right(tile));
            commit_products();
            wait_products<PLAIN ? 1 : 0>(); /* the scores are there, and p and ds were used */
            pin(score);
            pin(dk);
            pin(dv);
            const int i0 = copies.place(tile) * STEP, i = i0 + lane.column;
            probabilities(s, memory.stats(tile), scale_log2, i, j,
                          s.causal && group_j0 + GROUP_ROWS - 1 > i0 + (int)(s.t_k - s.t_q), score);
            if (drops) {
                kept = kept_queries(s, draws, state, at.head, i, j);
                score_sums dropped;
#pragma unroll
                for (int n = 0; n < STEP / 8; n++)
#pragma unroll
                    for (int e = 0; e < 4; e++)
                        dropped[n][e] = kept >> (4 * n + e) & 1 ? score[n][e] : 0.0f;
                to_operand<T>(dropped, p);
            } else {
                to_operand<T>(score, p);
            }
            if (PLAIN) {
                begin_products();
                add_product<T, D>(dv, p, memory.right(tile));
                commit_products();
                wait_products<1>(); /* all but this one */
            }
            pin(dp);
            score_grads(score, drops ? (float)draws.factor : 1.0f, kept, memory.stats(tile), dp);
            to_operand<T>(dp, ds);
            begin_products();
            if (!PLAIN)
                add_product<T, D>(dv, p, memory.right(tile));
            add_product<T, D>(dk, ds, memory.left(tile));
            commit_products();
            if (GROUPS == 3) {
                wait_products<0>(); /* p and ds and the next scores have no registers side by side */
                pin(dk);
                pin(dv);
            }
        }
        wait_products<0>();
        pin(dk);
        pin(dv);
        meet_block<GROUPS>();
        store_sums<D, GROUPS>(x.dk, (int)s.k_token, j0, (int)s.t_k, (int)s.head_size, k.tile, dk,
                              key_factor<PLAIN>(s, at.b, j, s.scale), key_factor<PLAIN>(s, at.b, j + 8, s.scale));
        const float factor = drops ? (float)draws.factor : 1.0f;
        store_sums<D, GROUPS>(x.dv, (int)s.v_token, j0, (int)s.t_k, (int)s.head_size, v.tile, dv,
                              key_factor<PLAIN>(s, at.b, j, factor), key_factor<PLAIN>(s, at.b, j + 8, factor));
    }
}

template <typename T, int D, bool PLAIN, int GROUPS>
static mz_status key_grad(const mz_attention_grad_args *a, mz_stream *stream)
{
    const int64_t n_blocks = div_up(a->shape.t_k, GROUPS * GROUP_ROWS), n_parts = div_up(n_blocks, key_passes<D>);
    const size_t shared = grad_memory<D, GROUPS, key_passes<D>>::BYTES;
    unsigned grid = 0;
    mz_status status =
        prepare(tensor_key_grad_kernel<T, D, PLAIN, GROUPS>, "attention_grad, keys", a, n_parts, shared, &grid);
    if (status || grid == 0)
        return status;
    tensor_key_grad_kernel<T, D, PLAIN, GROUPS><<<grid, GROUPS * GROUP_THREADS, shared, stream->stream>>>(
        *a, draws_of(&a->shape.dropout), (int)n_blocks, n_parts);
    return mz_cuda_launched("attention_grad, keys");
}

/* Whether the device runs the code for sm_90a, whose kernels need fewer registers. */
static bool has_wgmma(mz_stream *stream)
{
#ifdef MZ_NO_WGMMA
    (void)stream;
    return false;
#else
    return mz_cuda_of(stream)->capability == 90;
#endif
}

template <typename T, int D, bool PLAIN>
static mz_status key_grads(const mz_attention_grad_args *a, mz_stream *stream)
{
    if constexpr (PLAIN && D <= 64)
        if (has_wgmma(stream))
            return key_grad<T, D, PLAIN, 3>(a, stream);
    return key_grad<T, D, PLAIN, 2>(a, stream);
}

mz_status mz_cuda_attention_key_grad_tensor(const mz_attention_grad_args *a, mz_stream *stream)
{
    mz_status status = MZ_OK;
    FOR_TENSOR_KERNEL(&a->shape, T, D, PLAIN, status = key_grads<T, D, PLAIN>(a, stream));
    return status;
}
