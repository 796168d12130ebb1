/* Softmax attention backward, without atomics: one kernel gives dq by blocks of queries, one dk and dv by blocks of
 * keys. Both make the probabilities again from lse. With dp = (d_o . v_j) * factor, ds = p * (dp - sum_j p dp), and
 * that sum is d_o . o. */
#include "kernels/cuda/attention.cuh"

/* What a query of a tile brings along. */
template <typename L> struct query_rows {
    float lse[L::Q_ROWS], delta[L::Q_ROWS]; /* delta = d_o . o */
};

template <typename L, typename T>
__device__ __forceinline__ void load_rows(const mz_attention_grad_args &a, const head_place &at, int64_t i0,
                                          const float *d_o, query_rows<L> &rows)
{
    const mz_attention_shape &s = a.shape;
    const T *o = (const T *)a.o + at.b * s.o_batch + at.h * s.o_head;
    const int y = threadIdx.x / L::TX, x = threadIdx.x % L::TX;
#pragma unroll
    for (int r = 0; r < L::Q_ROWS; r++) {
        const int row = y + r * L::TY;
        const int64_t i = i0 + row;
        float delta = 0.0f;
        if (i < s.t_q)
            for (int64_t d = x; d < s.head_size; d += L::TX)
                delta += d_o[row * L::PITCH + d] * to_float(o[i * s.o_token + d]);
        rows.delta[r] = lane_sum<L::TX>(delta);
        rows.lse[r] = i < s.t_q ? a.lse[at.head * s.t_q + i] : 0.0f;
    }
}

/* ds of a tile of scores to shared memory, and p after dropout too unless `weights` is NULL. */
template <typename L>
__device__ __forceinline__ void score_grads(const mz_attention_shape &s, const dropout_draws &draws,
                                            const mz_rng_state &state, const head_place &at, int64_t i0, int64_t j0,
                                            const float *q, const float *k, const float *v, const float *d_o,
                                            const query_rows<L> &rows, float *weights, float *ds)
{
    float score[L::Q_ROWS][L::K_COLS], dp[L::Q_ROWS][L::K_COLS];
    const int y = threadIdx.x / L::TX, x = threadIdx.x % L::TX;
    multiply_rows<L>(q, k, score);
    multiply_rows<L>(d_o, v, dp);
#pragma unroll
    for (int r = 0; r < L::Q_ROWS; r++)
#pragma unroll
        for (int c = 0; c < L::K_COLS; c++) {
            const int row = y + r * L::TY, column = x + c * L::TX;
            if (column >= L::BK)
                continue;
            float p = 0.0f, factor = 0.0f;
            if (sees(s, at.b, i0 + row, j0 + column)) {
                p = expf(s.scale * score[r][c] - rows.lse[r]);
                factor = keep_factor(s, draws, state, at.head, i0 + row, j0 + column);
            }
            ds[row * L::SCORE_PITCH + column] = p * (dp[r][c] * factor - rows.delta[r]);
            if (weights)
                weights[row * L::SCORE_PITCH + column] = p * factor;
        }
}

template <typename L, typename T>
__global__ void __launch_bounds__(L::THREADS)
    query_grad_kernel(const __grid_constant__ mz_attention_grad_args a, const __grid_constant__ dropout_draws draws,
                      int64_t n_tiles)
{
    extern __shared__ float tiles[];
    float *q = tiles, *d_o = q + L::Q_TILE, *k = d_o + L::Q_TILE, *v = k + L::K_TILE, *ds = v + L::K_TILE;
    const mz_attention_shape &s = a.shape;
    const head_place at(s, n_tiles);
    const int64_t i0 = at.tile * L::BQ, n_keys = visible_keys(s, i0 + L::BQ);
    const mz_rng_state state = draws.state ? *draws.state : mz_rng_state{};
    query_rows<L> rows;
    float dq[L::Q_ROWS][L::D_COLS] = {};
    load_tile<L, L::BQ>(q, (const T *)a.q + at.b * s.q_batch + at.h * s.q_head, s.q_token, i0, s.t_q, s.head_size);
    load_tile<L, L::BQ>(d_o, (const T *)a.d_o + at.b * s.o_batch + at.h * s.o_head, s.o_token, i0, s.t_q,
                        s.head_size);
    __syncthreads();
    load_rows<L, T>(a, at, i0, d_o, rows);
    for (int64_t j0 = 0; j0 < n_keys; j0 += L::BK) {
        __syncthreads();
        load_tile<L, L::BK>(k, (const T *)a.k + at.b * s.k_batch + at.h * s.k_head, s.k_token, j0, s.t_k,
                            s.head_size);
        load_tile<L, L::BK>(v, (const T *)a.v + at.b * s.v_batch + at.h * s.v_head, s.v_token, j0, s.t_k,
                            s.head_size);
        __syncthreads();
        score_grads<L>(s, draws, state, at, i0, j0, q, k, v, d_o, rows, nullptr, ds);
        __syncthreads();
        add_weighted<L, L::BK, L::Q_ROWS>(ds, L::SCORE_PITCH, 1, k, dq);
    }
    store_rows<L, L::Q_ROWS>((T *)a.dq + at.b * s.q_batch + at.h * s.q_head, s.q_token, i0, s.t_q, s.head_size, dq,
                             s.scale);
}

template <typename L, typename T>
__global__ void __launch_bounds__(L::THREADS)
    key_grad_kernel(const __grid_constant__ mz_attention_grad_args a, const __grid_constant__ dropout_draws draws,
                    int64_t n_tiles)
{
    extern __shared__ float tiles[];
    float *q = tiles, *d_o = q + L::Q_TILE, *k = d_o + L::Q_TILE, *v = k + L::K_TILE, *ds = v + L::K_TILE;
    float *weights = ds + L::SCORES;
    const mz_attention_shape &s = a.shape;
    const head_place at(s, n_tiles);
    const int64_t j0 = at.tile * L::BK, first_query = s.causal ? j0 - (s.t_k - s.t_q) : 0;
    const mz_rng_state state = draws.state ? *draws.state : mz_rng_state{};
    const T *queries = (const T *)a.q + at.b * s.q_batch + at.h * s.q_head;
    const T *grads = (const T *)a.d_o + at.b * s.o_batch + at.h * s.o_head;
    const int64_t k_at = at.b * s.k_batch + at.h * s.k_head, v_at = at.b * s.v_batch + at.h * s.v_head;
    query_rows<L> rows;
    float dk[L::K_ROWS][L::D_COLS] = {}, dv[L::K_ROWS][L::D_COLS] = {};
    load_tile<L, L::BK>(k, (const T *)a.k + k_at, s.k_token, j0, s.t_k, s.head_size);
    load_tile<L, L::BK>(v, (const T *)a.v + v_at, s.v_token, j0, s.t_k, s.head_size);
    for (int64_t i0 = first_query > 0 ? first_query / L::BQ * L::BQ : 0; i0 < s.t_q; i0 += L::BQ) {
        __syncthreads();
        load_tile<L, L::BQ>(q, queries, s.q_token, i0, s.t_q, s.head_size);
        load_tile<L, L::BQ>(d_o, grads, s.o_token, i0, s.t_q, s.head_size);
        __syncthreads();
        load_rows<L, T>(a, at, i0, d_o, rows);
        score_grads<L>(s, draws, state, at, i0, j0, q, k, v, d_o, rows, weights, ds);
        __syncthreads();
        add_weighted<L, L::BQ, L::K_ROWS>(weights, 1, L::SCORE_PITCH, d_o, dv);
        add_weighted<L, L::BQ, L::K_ROWS>(ds, 1, L::SCORE_PITCH, q, dk);
    }
    store_rows<L, L::K_ROWS>((T *)a.dk + k_at, s.k_token, j0, s.t_k, s.head_size, dk, s.scale);
    store_rows<L, L::K_ROWS>((T *)a.dv + v_at, s.v_token, j0, s.t_k, s.head_size, dv, 1.0f);
}

template <typename L, typename T> static mz_status query_grad(const mz_attention_grad_args *a, mz_stream *stream)
{
    const int64_t n_tiles = div_up(a->shape.t_q, L::BQ);
    const size_t shared = (2 * L::Q_TILE + 2 * L::K_TILE + L::SCORES) * sizeof(float);
    unsigned grid = 0;
    mz_status status = grid_of("attention_grad", &a->shape, n_tiles, &grid);
    if (status || grid == 0)
        return status;
    status = mz_cuda_check(
        cudaFuncSetAttribute(query_grad_kernel<L, T>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared),
        "cudaFuncSetAttribute");
    if (status)
        return status;
    query_grad_kernel<L, T><<<grid, L::THREADS, shared, stream->stream>>>(*a, draws_of(&a->shape.dropout), n_tiles);
    return mz_cuda_launched("attention_grad, queries");
}

template <typename L, typename T> static mz_status key_grad(const mz_attention_grad_args *a, mz_stream *stream)
{
    const int64_t n_tiles = div_up(a->shape.t_k, L::BK);
    const size_t shared = (2 * L::Q_TILE + 2 * L::K_TILE + 2 * L::SCORES) * sizeof(float);
    unsigned grid = 0;
    mz_status status = grid_of("attention_grad", &a->shape, n_tiles, &grid);
    if (status || grid == 0 || !a->dk || !a->dv)
        return status;
    status = mz_cuda_check(
        cudaFuncSetAttribute(key_grad_kernel<L, T>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared),
        "cudaFuncSetAttribute");
    if (status)
        return status;
    key_grad_kernel<L, T><<<grid, L::THREADS, shared, stream->stream>>>(*a, draws_of(&a->shape.dropout), n_tiles);
    return mz_cuda_launched("attention_grad, keys");
}

/* The kernels of this file make the row products of o and d_o again in each block; those on the tensor cores keep them
 * and lse for the second kernel. */
extern "C" size_t mz_cuda_attention_grad_workspace(const mz_attention_shape *shape)
{
    return shape->dtype == MZ_F32 ? 0 : (size_t)(shape->batch * shape->heads * shape->t_q) * sizeof(float2);
}

extern "C" mz_status mz_cuda_attention_grad(const mz_attention_grad_args *a, mz_stream *stream)
{
    mz_status status = mz_check_attention_grad(a, mz_cuda_attention_grad_workspace(&a->shape));
    if (status)
        return status;
    if (mz_cuda_attention_grad_takes_tensor(a, stream))
        return mz_cuda_attention_grad_tensor(a, stream);
    FOR_TILING(&a->shape, L, FOR_DTYPE(a->shape.dtype, T, {
        status = query_grad<L, T>(a, stream);
        if (!status)
            status = key_grad<L, T>(a, stream);
    }));
    return status;
}
