/* Softmax attention forward: a running maximum and sum per query, one pass over the keys. What the tensor cores do not
 * take comes here: fp32, heads that are no multiple of 8, unaligned tensors, GPUs before sm_80. */
#include "kernels/cuda/attention.cuh"

/* The running softmax of the rows that this thread works on. */
template <typename L> struct running_softmax {
    float max[L::Q_ROWS], sum[L::Q_ROWS];
};

/* Takes in a tile of scores: p becomes exp(score - max), dropped out for the product with v but whole in the sum;
 * what was summed before is brought to the new maximum. */
template <typename L>
__device__ __forceinline__ void take_scores(const mz_attention_shape &s, const dropout_draws &draws,
                                            const mz_rng_state &state, const head_place &at, int64_t i0, int64_t j0,
                                            const float product[L::Q_ROWS][L::K_COLS], running_softmax<L> &soft,
                                            float o[L::Q_ROWS][L::D_COLS], float *p)
{
    const int y = threadIdx.x / L::TX, x = threadIdx.x % L::TX;
#pragma unroll
    for (int r = 0; r < L::Q_ROWS; r++) {
        const int64_t i = i0 + y + r * L::TY;
        float score[L::K_COLS], max = soft.max[r], sum = 0.0f;
#pragma unroll
        for (int c = 0; c < L::K_COLS; c++) {
            const int column = x + c * L::TX;
            score[c] = column < L::BK && sees(s, at.b, i, j0 + column) ? s.scale * product[r][c] : -CUDART_INF_F;
            max = fmaxf(max, score[c]);
        }
        max = lane_max<L::TX>(max);
        const float rescale = soft.max[r] == max ? 1.0f : expf(soft.max[r] - max);
#pragma unroll
        for (int c = 0; c < L::K_COLS; c++) {
            const int column = x + c * L::TX;
            const float weight = score[c] == -CUDART_INF_F ? 0.0f : expf(score[c] - max);
            sum += weight;
            if (column < L::BK)
                p[(y + r * L::TY) * L::SCORE_PITCH + column] =
                    weight == 0.0f ? 0.0f : weight * keep_factor(s, draws, state, at.head, i, j0 + column);
        }
        soft.sum[r] = soft.sum[r] * rescale + lane_sum<L::TX>(sum);
        soft.max[r] = max;
#pragma unroll
        for (int c = 0; c < L::D_COLS; c++)
            o[r][c] *= rescale;
    }
}

template <typename L, typename T>
__global__ void __launch_bounds__(L::THREADS)
    attention_kernel(const __grid_constant__ mz_attention_args a, const __grid_constant__ dropout_draws draws,
                     int64_t n_tiles)
{
    extern __shared__ float tiles[];
    float *q = tiles, *kv = q + L::Q_TILE, *p = kv + L::K_TILE;
    const mz_attention_shape &s = a.shape;
    const head_place at(s, n_tiles);
    const int64_t i0 = at.tile * L::BQ, n_keys = visible_keys(s, i0 + L::BQ);
    const T *keys = (const T *)a.k + at.b * s.k_batch + at.h * s.k_head;
    const T *values = (const T *)a.v + at.b * s.v_batch + at.h * s.v_head;
    const mz_rng_state state = draws.state ? *draws.state : mz_rng_state{};
    running_softmax<L> soft;
    float o[L::Q_ROWS][L::D_COLS] = {}, product[L::Q_ROWS][L::K_COLS];
#pragma unroll
    for (int r = 0; r < L::Q_ROWS; r++) {
        soft.max[r] = -CUDART_INF_F;
        soft.sum[r] = 0.0f;
    }
    load_tile<L, L::BQ>(q, (const T *)a.q + at.b * s.q_batch + at.h * s.q_head, s.q_token, i0, s.t_q, s.head_size);
    for (int64_t j0 = 0; j0 < n_keys; j0 += L::BK) {
        __syncthreads();
        load_tile<L, L::BK>(kv, keys, s.k_token, j0, s.t_k, s.head_size);
        __syncthreads();
        multiply_rows<L>(q, kv, product);
        take_scores<L>(s, draws, state, at, i0, j0, product, soft, o, p);
        __syncthreads();
        load_tile<L, L::BK>(kv, values, s.v_token, j0, s.t_k, s.head_size);
        __syncthreads();
        add_weighted<L, L::BK, L::Q_ROWS>(p, L::SCORE_PITCH, 1, kv, o);
    }
#pragma unroll
    for (int r = 0; r < L::Q_ROWS; r++) {
        const int64_t i = i0 + threadIdx.x / L::TX + r * L::TY;
        const bool any = soft.sum[r] > 0.0f;
#pragma unroll
        for (int c = 0; c < L::D_COLS; c++)
            o[r][c] = any ? o[r][c] / soft.sum[r] : 0.0f;
        if (a.lse && i < s.t_q && threadIdx.x % L::TX == 0)
            a.lse[at.head * s.t_q + i] = any ? soft.max[r] + logf(soft.sum[r]) : -CUDART_INF_F;
    }
    store_rows<L, L::Q_ROWS>((T *)a.o + at.b * s.o_batch + at.h * s.o_head, s.o_token, i0, s.t_q, s.head_size, o,
                             1.0f);
}

template <typename L, typename T> static mz_status attend(const mz_attention_args *a, mz_stream *stream)
{
    const int64_t n_tiles = div_up(a->shape.t_q, L::BQ);
    const size_t shared = (L::Q_TILE + L::K_TILE + L::SCORES) * sizeof(float);
    unsigned grid = 0;
    mz_status status = grid_of("attention", &a->shape, n_tiles, &grid);
    if (status || grid == 0)
        return status;
    status = mz_cuda_check(
        cudaFuncSetAttribute(attention_kernel<L, T>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared),
        "cudaFuncSetAttribute");
    if (status)
        return status;
    attention_kernel<L, T><<<grid, L::THREADS, shared, stream->stream>>>(*a, draws_of(&a->shape.dropout), n_tiles);
    return mz_cuda_launched("attention");
}

extern "C" mz_status mz_cuda_attention(const mz_attention_args *a, mz_stream *stream)
{
    mz_status status = mz_check_attention(a);
    if (status)
        return status;
    if (mz_cuda_attention_takes_tensor(a, stream))
        return mz_cuda_attention_tensor(a, stream);
    FOR_TILING(&a->shape, L, FOR_DTYPE(a->shape.dtype, T, status = attend<L, T>(a, stream)));
    return status;
}
