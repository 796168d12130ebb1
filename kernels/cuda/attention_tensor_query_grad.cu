/* Softmax attention backward on the tensor cores, by blocks of queries: dq, and what the keys' kernel needs of each
 * query. */
#include "kernels/cuda/attention_tensor_grad.cuh"

/* d_o . o of the lane's two rows. */
template <int D, int GROUPS, typename T>
__device__ __forceinline__ void dot_rows(uint32_t d_o, uint32_t o, float (&delta)[2])
{
    delta[0] = delta[1] = 0.0f;
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        uint32_t x[4], y[4];
        load_operand<D>(d_o, GROUPS * GROUP_ROWS, threadIdx.x / 32 * 16, k, x);
        load_operand<D>(o, GROUPS * GROUP_ROWS, threadIdx.x / 32 * 16, k, y);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float2 left = unpack_pair<T>(x[i]), right = unpack_pair<T>(y[i]);
            delta[i % 2] += left.x * right.x + left.y * right.y;
        }
    }
    delta[0] = lane_sum<4>(delta[0]);
    delta[1] = lane_sum<4>(delta[1]);
}

/* Reads the lane's rows' lse, in base 2, and leaves them with delta for the keys' kernel. Rows without keys get
 * infinity, which makes their probabilities 0. */
template <typename T>
__device__ __forceinline__ void keep_stats(const mz_attention_grad_args &a, const head_place &at,
                                           const grad_views<T> &x, int i, const float (&delta)[2], float (&lse)[2])
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int row = i + 8 * half;
        lse[half] = row < a.shape.t_q ? a.lse[at.head * a.shape.t_q + row] * CUDART_L2E_F : 0.0f;
        if (lse[half] == -CUDART_INF_F)
            lse[half] = CUDART_INF_F;
        if (row < a.shape.t_q && threadIdx.x % 4 == 0)
            x.stats[row] = make_float2(lse[half], delta[half]);
    }
}

/* score: p; dp becomes ds. `kept`: dropout's bits. */
__device__ __forceinline__ void score_grads(const score_sums &p, float factor, uint32_t kept,
                                            const float (&delta)[2], score_sums &dp)
{
#pragma unroll
    for (int n = 0; n < STEP / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            dp[n][e] = p[n][e] * ((kept >> (4 * n + e) & 1 ? dp[n][e] * factor : 0.0f) - delta[e / 2]);
}

template <typename T, int D, bool PLAIN, int GROUPS>
__global__ void __launch_bounds__(GROUPS *GROUP_THREADS, HAS_WGMMA &&PLAIN &&D <= 64 ? 2 : 1)
    tensor_query_grad_kernel(const __grid_constant__ mz_attention_grad_args a,
                             const __grid_constant__ dropout_draws draws, int64_t n_blocks)
{
    const mz_attention_shape &s = a.shape;
    const head_place at(s, n_blocks);
    const grad_views<T> x(a, at);
    const grad_memory<D, GROUPS, 1> memory;
    const lane_place lane;
    const int i0 = (int)(n_blocks - 1 - at.tile) * (GROUPS * GROUP_ROWS), group_i0 = i0 + lane.group * GROUP_ROWS;
    const int n_tiles = visible_tiles(s, i0 + GROUPS * GROUP_ROWS), n_own = visible_tiles(s, group_i0 + GROUP_ROWS);
    const float scale_log2 = s.scale * CUDART_L2E_F;
    const mz_rng_state state = !PLAIN && draws.state ? *draws.state : mz_rng_state{};
    const pair_copies<D, GROUPS, T> copies({x.k, s.k_token, s.t_k, s.head_size},
                                           {x.v, s.v_token, s.t_k, s.head_size}, nullptr, s.t_k, 0, n_tiles, 0, 0);
    const uint32_t o = memory.left(STAGES - 1); /* until the ring gets there */
    resident<D, GROUPS> q(memory.first), d_o(memory.second);
    float dq[D / 8][4] = {}, lse[2], delta[2];
    uint32_t ds[STEP / 16][4];

    copy_tile<D, GROUPS * GROUP_ROWS, GROUPS>(memory.first, x.q, (int)s.q_token, i0, (int)s.t_q, (int)s.head_size);
    copy_tile<D, GROUPS * GROUP_ROWS, GROUPS>(memory.second, x.d_o, (int)s.o_token, i0, (int)s.t_q,
                                              (int)s.head_size);
    copy_tile<D, GROUPS * GROUP_ROWS, GROUPS>(o, x.o, (int)s.o_token, i0, (int)s.t_q, (int)s.head_size);
    commit_copies();
    copies.copy(memory, 0);
    copies.copy(memory, 1);
    wait_copies<2>();
    meet_block<GROUPS>();
    q.load();
    d_o.load();
    dot_rows<D, GROUPS, T>(memory.second, o, delta);
    keep_stats<T>(a, at, x, group_i0 + lane.row, delta, lse);

    int tile = 0;
    for (; tile < n_own; tile++) {
        score_sums score, dp;
        copies.next(memory, tile);
        begin_products();
        q.template multiply<T>(score, memory.left(tile));
        commit_products();
        d_o.template multiply<T>(dp, memory.right(tile));
        commit_products();
        wait_products<1>(); /* the scores are there, and ds was used */
        pin(score);
#pragma unroll
        for (int n = 0; n < STEP / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                score[n][e] = exp2_fast(score[n][e] * scale_log2 - lse[e / 2]);
        if (hides_keys<PLAIN>(s, group_i0, tile * STEP))
            hide_keys<PLAIN>(s, at.b, group_i0 + lane.row, tile * STEP, lane.column, 0.0f, score);
        wait_products<0>();
        pin(dp);
        pin(dq);
        if (!PLAIN && draws.state)
            score_grads(score, (float)draws.factor,
                        kept_keys(s, draws, state, at.head, group_i0 + lane.row, tile * STEP + lane.column), delta,
                        dp);
        else
            score_grads(score, 1.0f, 0xffffffffu, delta, dp);
        to_operand<T>(dp, ds);
        pin(dq);
        begin_products();
        add_product<T, D>(dq, ds, memory.left(tile));
        commit_products();
        if (PLAIN && D <= 64) {
            wait_products<0>(); /* ds and the next scores have no registers side by side */
            pin(dq);
        }
    }
    wait_products<0>();
    pin(dq);
#pragma unroll 1
    for (; tile < n_tiles; tile++)
        copies.next(memory, tile);
    meet_block<GROUPS>();
    store_sums<D, GROUPS>(x.dq, (int)s.q_token, i0, (int)s.t_q, (int)s.head_size, memory.first, dq, s.scale,
                          s.scale);
}

template <typename T, int D, bool PLAIN>
static mz_status query_grad(const mz_attention_grad_args *a, mz_stream *stream)
{
    const int64_t n_blocks = div_up(a->shape.t_q, 2 * GROUP_ROWS);
    const size_t shared = grad_memory<D, 2, 1>::BYTES;
    unsigned grid = 0;
    mz_status status =
        prepare(tensor_query_grad_kernel<T, D, PLAIN, 2>, "attention_grad, queries", a, n_blocks, shared, &grid);
    if (status || grid == 0)
        return status;
    tensor_query_grad_kernel<T, D, PLAIN, 2>
        <<<grid, 2 * GROUP_THREADS, shared, stream->stream>>>(*a, draws_of(&a->shape.dropout), n_blocks);
    return mz_cuda_launched("attention_grad, queries");
}

bool mz_cuda_attention_grad_takes_tensor(const mz_attention_grad_args *a, mz_stream *stream)
{
    const void *const tensors[] = {a->q, a->k, a->v, a->o, a->d_o, a->dq, a->dk, a->dv};
    return takes_tensor_cores(&a->shape, stream, tensors, 8);
}

mz_status mz_cuda_attention_grad_tensor(const mz_attention_grad_args *a, mz_stream *stream)
{
    mz_status status = MZ_OK;
    FOR_TENSOR_KERNEL(&a->shape, T, D, PLAIN, status = query_grad<T, D, PLAIN>(a, stream));
    return status || !a->dk || !a->dv ? status : mz_cuda_attention_key_grad_tensor(a, stream);
}
