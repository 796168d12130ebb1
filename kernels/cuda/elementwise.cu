/* Elementwise kernels. One kernel serves them all: 16-byte vectors of the widest operand where every pointer allows
 * it, several of them in flight per thread; single elements at the end and elsewhere. */
#include "kernels/cuda/act.cuh"
#include "kernels/cuda/draws.cuh"

enum { THREADS = 256 };

/* What a kernel touches besides y's writes. */
enum { READS_X1 = 1, READS_Y = 2 };

/* N elements from i on: y = op(i, x0, x1, old y). For what is not read -0 is passed, which changes no sum. */
template <int N, typename Op, typename T0, typename T1, typename TY>
__device__ __forceinline__ void apply(const Op &op, int64_t i, const pack<T0, N> &x0, const pack<T1, N> &x1,
                                      pack<TY, N> &y, int reads)
{
    float a[N], b[N], out[N];
#pragma unroll
    for (int j = 0; j < N; j++) {
        a[j] = to_float(x0.at[j]);
        b[j] = reads & READS_X1 ? to_float(x1.at[j]) : -0.0f;
        out[j] = reads & READS_Y ? to_float(y.at[j]) : -0.0f;
    }
    op(i, a, b, out);
#pragma unroll
    for (int j = 0; j < N; j++)
        y.at[j] = from_float<TY>(out[j]);
}

/* A block takes DEPTH * THREADS vectors; all of a thread's are read before any is written. Block 0 also takes the
 * elements that fill no vector. */
template <int READS, int N, int DEPTH, typename T0, typename T1, typename TY, typename Op>
__global__ void __launch_bounds__(THREADS) map_kernel(int64_t n, const T0 *x0, const T1 *x1, TY *y, Op op)
{
    const int64_t n_packs = n / N, first = (int64_t)blockIdx.x * (DEPTH * THREADS) + threadIdx.x;
    pack<T0, N> a[DEPTH];
    pack<T1, N> b[DEPTH];
    pack<TY, N> out[DEPTH];
#pragma unroll
    for (int d = 0; d < DEPTH; d++) {
        const int64_t v = first + d * THREADS;
        if (v >= n_packs)
            break;
        a[d] = ((const pack<T0, N> *)x0)[v];
        if (READS & READS_X1)
            b[d] = ((const pack<T1, N> *)x1)[v];
        if (READS & READS_Y)
            out[d] = ((const pack<TY, N> *)y)[v];
    }
#pragma unroll
    for (int d = 0; d < DEPTH; d++) {
        const int64_t v = first + d * THREADS;
        if (v >= n_packs)
            break;
        apply<N>(op, v * N, a[d], b[d], out[d], READS);
        ((pack<TY, N> *)y)[v] = out[d];
    }
    const int64_t e = n_packs * N + threadIdx.x;
    if (N > 1 && blockIdx.x == 0 && e < n) {
        const pack<T0, 1> xe = {x0[e]};
        pack<T1, 1> be;
        pack<TY, 1> ye;
        if (READS & READS_X1)
            be.at[0] = x1[e];
        if (READS & READS_Y)
            ye.at[0] = y[e];
        apply<1>(op, e, xe, be, ye, READS);
        y[e] = ye.at[0];
    }
}

template <int READS, typename T0, typename T1, typename TY, typename Op>
static mz_status map(mz_stream *stream, const char *name, int64_t n, const T0 *x0, const T1 *x1, TY *y, Op op)
{
    constexpr int N = sizeof(T0) == 2 && sizeof(TY) == 2 ? 8 : 4, DEPTH = 2;
    if (n == 0)
        return MZ_OK;
    if (is_aligned(x0, N * sizeof(T0)) && is_aligned(x1, N * sizeof(T1)) && is_aligned(y, N * sizeof(TY)))
        map_kernel<READS, N, DEPTH>
            <<<blocks_for(n / N, DEPTH * THREADS), THREADS, 0, stream->stream>>>(n, x0, x1, y, op);
    else
        map_kernel<READS, 1, DEPTH>
            <<<blocks_for(n, DEPTH * THREADS), THREADS, 0, stream->stream>>>(n, x0, x1, y, op);
    return mz_cuda_launched(name);
}

/* An operation that treats each element alike. */
template <typename Op> struct each {
    Op op;
    template <int N>
    __device__ __forceinline__ void operator()(int64_t, const float (&a)[N], const float (&b)[N],
                                               float (&y)[N]) const
    {
#pragma unroll
        for (int j = 0; j < N; j++)
            y[j] = op(a[j], b[j], y[j]);
    }
};

template <mz_activation KIND> struct activation_op {
    __device__ float operator()(float x, float, float) const
    {
        return activate(KIND, x);
    }
};

template <mz_activation KIND> struct activation_grad_op {
    __device__ float operator()(float dy, float x, float) const
    {
        return dy * activate_grad(KIND, x);
    }
};

/* The instance of a launcher for an activation, so that no thread chooses. */
#define FOR_ACTIVATION(launch, T, a, stream)                                                                       \
    switch ((a)->activation) {                                                                                     \
    case MZ_ACT_GELU_TANH:                                                                                         \
        return launch<MZ_ACT_GELU_TANH, T>(a, stream);                                                             \
    case MZ_ACT_GELU_ERF:                                                                                          \
        return launch<MZ_ACT_GELU_ERF, T>(a, stream);                                                              \
    case MZ_ACT_RELU:                                                                                              \
        return launch<MZ_ACT_RELU, T>(a, stream);                                                                  \
    case MZ_ACT_TANH:                                                                                              \
        return launch<MZ_ACT_TANH, T>(a, stream);                                                                  \
    case MZ_ACT_SIGMOID:                                                                                           \
        return launch<MZ_ACT_SIGMOID, T>(a, stream);                                                               \
    case MZ_ACT_SILU:                                                                                              \
        return launch<MZ_ACT_SILU, T>(a, stream);                                                                  \
    default:                                                                                                       \
        return launch<MZ_ACT_NONE, T>(a, stream);                                                                  \
    }

struct add_op {
    float alpha, beta;
    __device__ float operator()(float a, float b, float) const
    {
        return alpha * a + beta * b;
    }
};

struct scale_op {
    float alpha;
    __device__ float operator()(float a, float, float) const
    {
        return alpha * a;
    }
};

struct mul_op {
    __device__ float operator()(float a, float b, float old) const
    {
        return a * b + old;
    }
};

struct cast_op {
    float scale;
    const float *scale_device;
    __device__ float operator()(float x, float, float old) const
    {
        return (scale_device ? scale * *scale_device : scale) * x + old;
    }
};

/* Four elements share a block of draws; N of them take N / 4 blocks where the first begins one. */
struct dropout_op {
    dropout_draws draws;
    template <int N>
    __device__ __forceinline__ void operator()(int64_t i, const float (&x)[N], const float (&residual)[N],
                                               float (&y)[N]) const
    {
        if (!draws.state) {
#pragma unroll
            for (int j = 0; j < N; j++)
                y[j] = x[j] + residual[j];
            return;
        }
        const mz_rng_state state = *draws.state;
        const uint64_t first = (uint64_t)(state.first_sample * draws.sample_elements + i);
        if (N % 4 == 0 && first % 4 == 0) {
#pragma unroll
            for (int j = 0; j < N; j += 4) {
                const uint4 block = draw_block(state, draws.site, first / 4 + j / 4);
                const uint32_t draw[4] = {block.x, block.y, block.z, block.w};
#pragma unroll
                for (int k = 0; k < 4 && j + k < N; k++)
                    y[j + k] = drop(draw[k], x[j + k]) + residual[j + k];
            }
            return;
        }
#pragma unroll
        for (int j = 0; j < N; j++)
            y[j] = x[j] * (float)draw_factor(draws, state, i + j) + residual[j];
    }
    __device__ __forceinline__ float drop(uint32_t draw, float x) const
    {
        return x * (draw >= draws.threshold ? (float)draws.factor : 0.0f);
    }
};

template <mz_activation KIND, typename T>
static mz_status activation(const mz_activation_args *a, mz_stream *stream)
{
    return map<0>(stream, "activation", a->n, (const T *)a->x, (const T *)nullptr, (T *)a->y,
                  each<activation_op<KIND>>{});
}

extern "C" mz_status mz_cuda_activation(const mz_activation_args *a, mz_stream *stream)
{
    mz_status status = mz_check_activation(a);
    if (status)
        return status;
    FOR_DTYPE(a->dtype, T, FOR_ACTIVATION(activation, T, a, stream));
}

template <mz_activation KIND, typename T>
static mz_status activation_grad(const mz_activation_grad_args *a, mz_stream *stream)
{
    return map<READS_X1>(stream, "activation_grad", a->n, (const T *)a->dy, (const T *)a->x, (T *)a->dx,
                         each<activation_grad_op<KIND>>{});
}

extern "C" mz_status mz_cuda_activation_grad(const mz_activation_grad_args *a, mz_stream *stream)
{
    mz_status status = mz_check_activation_grad(a);
    if (status)
        return status;
    FOR_DTYPE(a->dtype, T, FOR_ACTIVATION(activation_grad, T, a, stream));
}

extern "C" mz_status mz_cuda_add(const mz_add_args *a, mz_stream *stream)
{
    mz_status status = mz_check_add(a);
    if (status)
        return status;
    if (a->b)
        FOR_DTYPE(a->dtype, T,
                  status = map<READS_X1>(stream, "add", a->n, (const T *)a->a, (const T *)a->b, (T *)a->y,
                                         each<add_op>{{a->alpha, a->beta}}));
    else
        FOR_DTYPE(a->dtype, T,
                  status = map<0>(stream, "add", a->n, (const T *)a->a, (const T *)nullptr, (T *)a->y,
                                  each<scale_op>{{a->alpha}}));
    return status;
}

extern "C" mz_status mz_cuda_mul(const mz_mul_args *a, mz_stream *stream)
{
    mz_status status = mz_check_mul(a);
    if (status)
        return status;
    if (a->accumulate)
        FOR_DTYPE(a->dtype, T,
                  status = map<READS_X1 | READS_Y>(stream, "mul", a->n, (const T *)a->a, (const T *)a->b, (T *)a->y,
                                                   each<mul_op>{}));
    else
        FOR_DTYPE(a->dtype, T,
                  status = map<READS_X1>(stream, "mul", a->n, (const T *)a->a, (const T *)a->b, (T *)a->y,
                                         each<mul_op>{}));
    return status;
}

extern "C" mz_status mz_cuda_dropout(const mz_dropout_args *a, mz_stream *stream)
{
    mz_status status = mz_check_dropout(a);
    if (status)
        return status;
    const dropout_op op = {draws_of(&a->dropout)};
    if (a->residual)
        FOR_DTYPE(a->dtype, T,
                  status = map<READS_X1>(stream, "dropout", a->n, (const T *)a->x, (const T *)a->residual,
                                         (T *)a->y, op));
    else
        FOR_DTYPE(a->dtype, T,
                  status = map<0>(stream, "dropout", a->n, (const T *)a->x, (const T *)nullptr, (T *)a->y, op));
    return status;
}

template <typename S, typename D> static mz_status cast(const mz_cast_args *a, mz_stream *stream)
{
    const each<cast_op> op = {{a->scale, a->scale_device}};
    if (a->accumulate)
        return map<READS_Y>(stream, "cast", a->n, (const S *)a->src, (const S *)nullptr, (D *)a->dst, op);
    return map<0>(stream, "cast", a->n, (const S *)a->src, (const S *)nullptr, (D *)a->dst, op);
}

extern "C" mz_status mz_cuda_cast(const mz_cast_args *a, mz_stream *stream)
{
    mz_status status = mz_check_cast(a);
    if (status)
        return status;
    FOR_DTYPE(a->src_dtype, S, FOR_DTYPE(a->dst_dtype, D, status = cast<S, D>(a, stream)));
    return status;
}
