/* Optimiser steps over many chunks in one launch. */
#include "kernels/cuda/draws.cuh"

/* A thread's elements: DEPTH vectors of fp32 numbers, far apart so that a warp's lie side by side. */
enum { THREADS = 256, VECTOR = 4, DEPTH = 2, STRIDE = THREADS * VECTOR, TILE = STRIDE * DEPTH, BLOCKS = 3 };

/* The step of Adam from the moments, after both are updated with g. */
__device__ __forceinline__ float adam_step(const mz_optim_hyper &h, float g, float *state1, float *state2)
{
    const float m = h.beta1 * *state1 + (1.0f - h.beta1) * g;
    const float v = h.beta2 * *state2 + (1.0f - h.beta2) * g * g;
    *state1 = m;
    *state2 = v;
    return m / h.bias_correction1 / (sqrtf(v / h.bias_correction2) + h.eps);
}

/* One element: the new weight; the states, those that the optimiser has, are updated in place. */
template <mz_optim_kind KIND>
__device__ __forceinline__ float update(const mz_optim_hyper &h, float lr, float decay, float w, float g,
                                        float *state1, float *state2)
{
    if (KIND == MZ_OPTIM_ADAMW)
        return w * (1.0f - lr * decay) - lr * adam_step(h, g, state1, state2);
    if (KIND == MZ_OPTIM_LION) {
        const float m = *state1, direction = h.beta1 * m + (1.0f - h.beta1) * g;
        *state1 = h.beta2 * m + (1.0f - h.beta2) * g;
        return w * (1.0f - lr * decay) - lr * (float)((direction > 0.0f) - (direction < 0.0f));
    }
    g += decay * w;
    if (KIND == MZ_OPTIM_ADAM)
        return w - lr * adam_step(h, g, state1, state2);
    if (KIND == MZ_OPTIM_ADAGRAD) {
        const float sum = *state1 + g * g;
        *state1 = sum;
        return w - lr * g / (sqrtf(sum) + h.eps);
    }
    if (h.momentum != 0.0f) {
        const float buffer = h.first_step ? g : h.momentum * *state1 + (1.0f - h.dampening) * g;
        *state1 = buffer;
        g = h.nesterov ? g + h.momentum * buffer : buffer;
    }
    return w - lr * g;
}

typedef struct optim_job {
    const mz_optim_chunk *chunks;
    int n_chunks;
    const mz_optim_hyper *hyper;
    const float *grad_scale;
    const uint64_t *nonfinite;
    mz_dtype param_dtype;
    mz_optim_rounding rounding;
} optim_job;

/* Stochastic rounding as a thread sees it. */
typedef struct rounding {
    bool stochastic;
    uint32_t site;
    mz_rng_state state;
} rounding;

/* N weights as 16-bit numbers, or as they are; the same type for a whole launch. */
template <int N> __device__ __forceinline__ void put_params(mz_dtype dtype, void *param, int64_t i, const float *w)
{
    if (dtype == MZ_F32) {
        for (int j = 0; j < N; j++)
            ((float *)param)[i + j] = w[j];
        return;
    }
    pack<uint16_t, N> out;
#pragma unroll
    for (int j = 0; j < N; j++)
        out.at[j] = dtype == MZ_F16 ? __half_as_ushort(from_float<__half>(w[j]))
                                    : __bfloat16_as_ushort(from_float<__nv_bfloat16>(w[j]));
    *(pack<uint16_t, N> *)((uint16_t *)param + i) = out;
}

/* The draws of N elements from `element` on; of 4, which begin a block. */
template <int N> __device__ __forceinline__ void draw_elements(const rounding &r, uint64_t element, uint32_t *draws)
{
    const uint4 block = draw_block(r.state, r.site, element / 4);
    const uint32_t words[4] = {block.x, block.y, block.z, block.w};
    const uint32_t which = (uint32_t)(element % 4);
    if (N == 1)
        draws[0] = which == 0 ? words[0] : which == 1 ? words[1] : which == 2 ? words[2] : words[3];
    else
        for (int j = 0; j < N; j++)
            draws[j] = words[j];
}

/* As core/half.h has it. */
__device__ __forceinline__ __nv_bfloat16 round_stochastically(float x, uint32_t random)
{
    const uint32_t bits = __float_as_uint(x);
    const uint32_t whole = x == x ? bits + (random & 0xffffu) : bits | 0x400000u;
    return __ushort_as_bfloat16((unsigned short)(whole >> 16));
}

/* How a number is stored; fp32 ones are never rounded. */
template <typename T> __device__ __forceinline__ T put_rounded(float x, bool stochastic, uint32_t random)
{
    if constexpr (sizeof(T) == sizeof(uint16_t)) {
        if (stochastic)
            return round_stochastically(x, random);
    }
    return from_float<T>(x);
}

/* COUNT times N elements of a chunk, STRIDE apart, from i on; all is read before anything is written. TW, TS: types
 * of weights and states. Weights in fp32 are the master's, those in bf16 the parameters themselves. */
template <mz_optim_kind KIND, int N, int COUNT, typename TG, typename TW, typename TS>
__device__ __forceinline__ void update_packs(const mz_optim_hyper &h, const mz_optim_chunk &c, float lr,
                                             float scale, mz_dtype param_dtype, const rounding &r, int64_t i)
{
    constexpr bool MOMENTS = KIND == MZ_OPTIM_ADAMW || KIND == MZ_OPTIM_ADAM, MASTER = sizeof(TW) == sizeof(float);
    TW *weights = MASTER ? (TW *)c.master : (TW *)c.param;
    TS *state1 = (TS *)c.state1, *state2 = (TS *)c.state2;
    pack<TW, N> w[COUNT];
    pack<TS, N> m[COUNT], v[COUNT];
    pack<TG, N> grad[COUNT];
#pragma unroll
    for (int k = 0; k < COUNT; k++) {
        const int64_t e = i + k * STRIDE;
        grad[k] = *(const pack<TG, N> *)((const TG *)c.grad + e);
        w[k] = *(const pack<TW, N> *)(weights + e);
        if (state1)
            m[k] = *(const pack<TS, N> *)(state1 + e);
        if (MOMENTS)
            v[k] = *(const pack<TS, N> *)(state2 + e);
    }
#pragma unroll
    for (int k = 0; k < COUNT; k++) {
        const int64_t e = i + k * STRIDE;
        uint32_t draws[N] = {};
        if (!MASTER && r.stochastic)
            draw_elements<N>(r, (uint64_t)(c.first + e), draws);
#pragma unroll
        for (int j = 0; j < N; j++) {
            float first = to_float(m[k].at[j]), second = to_float(v[k].at[j]);
            const float next = update<KIND>(h, lr, c.weight_decay, to_float(w[k].at[j]),
                                            to_float(grad[k].at[j]) * scale, &first, &second);
            w[k].at[j] = put_rounded<TW>(next, r.stochastic, draws[j]);
            m[k].at[j] = put_rounded<TS>(first, r.stochastic, draws[j] >> 16);
            v[k].at[j] = put_rounded<TS>(second, r.stochastic, draws[j] + (draws[j] >> 16));
        }
        *(pack<TW, N> *)(weights + e) = w[k];
        if (state1)
            *(pack<TS, N> *)(state1 + e) = m[k];
        if (MOMENTS)
            *(pack<TS, N> *)(state2 + e) = v[k];
        if constexpr (MASTER) {
            if (c.param)
                put_params<N>(param_dtype, c.param, e, w[k].at);
        }
    }
}

__device__ __forceinline__ bool is_on(const void *pointer, uintptr_t bytes)
{
    return (uintptr_t)pointer % bytes == 0;
}

template <mz_optim_kind KIND, typename TG, typename TW, typename TS>
__device__ __forceinline__ void update_tile(const mz_optim_hyper &h, const mz_optim_chunk &c, float scale,
                                            mz_dtype param_dtype, const rounding &r, int64_t tile)
{
    const float lr = h.lr * c.lr_scale;
    const int64_t first = tile * TILE, end = first + TILE < c.n ? first + TILE : c.n;
    const bool vectors = end - first == TILE && is_on(c.master, 16) && is_on(c.state1, VECTOR * sizeof(TS)) &&
                         is_on(c.state2, VECTOR * sizeof(TS)) && is_on(c.grad, VECTOR * sizeof(TG)) &&
                         is_on(c.param, VECTOR * sizeof(uint16_t)) &&
                         (sizeof(TW) == sizeof(float) || c.first % VECTOR == 0);
    if (vectors)
        update_packs<KIND, VECTOR, DEPTH, TG, TW, TS>(h, c, lr, scale, param_dtype, r,
                                                      first + threadIdx.x * VECTOR);
    else
        for (int64_t i = first + threadIdx.x; i < end; i += THREADS)
            update_packs<KIND, 1, 1, TG, TW, TS>(h, c, lr, scale, param_dtype, r, i);
}

/* The blocks stride over the tiles of all chunks, so that each has as many whatever the chunks' sizes. The chunks
 * are looked at THREADS at a time: `ends` holds the running number of their tiles. */
template <mz_optim_kind KIND, typename TG, typename TW, typename TS>
__global__ void __launch_bounds__(THREADS, BLOCKS) optim_kernel(const __grid_constant__ optim_job job)
{
    __shared__ int64_t ends[THREADS];
    if (*job.nonfinite != 0)
        return;
    const mz_optim_hyper h = *job.hyper;
    const float scale = *job.grad_scale;
    rounding r = {};
    if (sizeof(TW) != sizeof(float) && job.rounding.state)
        r = {true, job.rounding.site, *job.rounding.state};
    int64_t tile = blockIdx.x, before = 0;
    for (int first = 0; first < job.n_chunks; first += THREADS) {
        const int k = first + (int)threadIdx.x;
        int64_t end = k < job.n_chunks ? (job.chunks[k].n + TILE - 1) / TILE : 0;
        ends[threadIdx.x] = end;
        __syncthreads();
        for (int distance = 1; distance < THREADS; distance *= 2) {
            const int64_t below = (int)threadIdx.x >= distance ? ends[threadIdx.x - distance] : 0;
            __syncthreads();
            end += below;
            ends[threadIdx.x] = end;
            __syncthreads();
        }
        for (; tile < before + ends[THREADS - 1]; tile += gridDim.x) {
            int low = 0, high = THREADS - 1; /* the first chunk that ends behind the tile */
            while (low < high) {
                const int middle = (low + high) / 2;
                if (before + ends[middle] > tile)
                    high = middle;
                else
                    low = middle + 1;
            }
            const int64_t begin = before + (low ? ends[low - 1] : 0);
            const mz_optim_chunk chunk = job.chunks[first + low];
            update_tile<KIND, TG, TW, TS>(h, chunk, scale, job.param_dtype, r, tile - begin);
        }
        before += ends[THREADS - 1];
        __syncthreads();
    }
}

template <mz_optim_kind KIND> static mz_status step(const mz_optim_args *a, mz_stream *stream)
{
    const optim_job job = {a->chunks,    a->n_chunks,    a->hyper,   a->grad_scale,
                           a->nonfinite, a->param_dtype, a->rounding};
    const int64_t tiles = a->n_elements / TILE + a->n_chunks; /* at most */
    const int64_t at_once = (int64_t)mz_cuda_of(stream)->n_processors * BLOCKS;
    const unsigned grid = (unsigned)(tiles < at_once ? tiles : at_once);
#define LAUNCH(TG, TW, TS) optim_kernel<KIND, TG, TW, TS><<<grid, THREADS, 0, stream->stream>>>(job)
    if (!a->no_master)
        FOR_DTYPE(a->grad_dtype, TG, LAUNCH(TG, float, float));
    else if (a->state_dtype == MZ_F32 && a->grad_dtype == MZ_F32)
        LAUNCH(float, __nv_bfloat16, float);
    else if (a->state_dtype == MZ_F32)
        LAUNCH(__nv_bfloat16, __nv_bfloat16, float);
    else if (a->grad_dtype == MZ_F32)
        LAUNCH(float, __nv_bfloat16, __nv_bfloat16);
    else
        LAUNCH(__nv_bfloat16, __nv_bfloat16, __nv_bfloat16);
#undef LAUNCH
    return mz_cuda_launched("optim");
}

extern "C" mz_status mz_cuda_optim(const mz_optim_args *a, mz_stream *stream)
{
    mz_status status = mz_check_optim(a);
    if (status || a->n_chunks == 0)
        return status;
    switch (a->kind) {
    case MZ_OPTIM_ADAMW:
        return step<MZ_OPTIM_ADAMW>(a, stream);
    case MZ_OPTIM_ADAM:
        return step<MZ_OPTIM_ADAM>(a, stream);
    case MZ_OPTIM_SGD:
        return step<MZ_OPTIM_SGD>(a, stream);
    case MZ_OPTIM_ADAGRAD:
        return step<MZ_OPTIM_ADAGRAD>(a, stream);
    default:
        return step<MZ_OPTIM_LION>(a, stream);
    }
}
