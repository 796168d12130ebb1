/* Elementwise kernels. One loop serves them all: 16-byte vectors of the widest operand where every pointer allows
 * it, single elements at the end and elsewhere. */
#include "kernels/cuda/act.cuh"
#include "kernels/cuda/draws.cuh"

enum { THREADS = 256 };

/* y[i] = op(i, x0[i], x1[i], old y[i]); x1 may be NULL and y is read when READS_Y;
 * for what is not read -0 is passed, which changes no sum. */
template <typename T0, typename T1, typename TY, bool READS_Y, int N, typename Op>
__device__ __forceinline__ void map_pack(int64_t i, const T0 *x0, const T1 *x1, TY *y, const Op &op)
{
    pack<T0, N> a = *(const pack<T0, N> *)(x0 + i);
    pack<T1, N> b;
    pack<TY, N> out;
    if (x1)
        b = *(const pack<T1, N> *)(x1 + i);
    if (READS_Y)
        out = *(const pack<TY, N> *)(y + i);
#pragma unroll
    for (int j = 0; j < N; j++)
        out.at[j] = from_float<TY>(
            op(i + j, to_float(a.at[j]), x1 ? to_float(b.at[j]) : -0.0f, READS_Y ? to_float(out.at[j]) : -0.0f));
    *(pack<TY, N> *)(y + i) = out;
}

template <typename T0, typename T1, typename TY, bool READS_Y, int N, typename Op>
__global__ void map_kernel(int64_t n, const T0 *x0, const T1 *x1, TY *y, Op op)
{
    GRID_LOOP(v, n / N)
    map_pack<T0, T1, TY, READS_Y, N>(v * N, x0, x1, y, op);
    if (N > 1)
        GRID_LOOP(i, n % N)
    map_pack<T0, T1, TY, READS_Y, 1>(n / N * N + i, x0, x1, y, op);
}

template <bool READS_Y, typename T0, typename T1, typename TY, typename Op>
static mz_status map(mz_stream *stream, const char *name, int64_t n, const T0 *x0, const T1 *x1, TY *y, Op op)
{
    constexpr int N = sizeof(T0) == 2 && sizeof(TY) == 2 ? 8 : 4;
    if (n == 0)
        return MZ_OK;
    if (is_aligned(x0, N * sizeof(T0)) && is_aligned(x1, N * sizeof(T1)) && is_aligned(y, N * sizeof(TY)))
        map_kernel<T0, T1, TY, READS_Y, N>
            <<<grid_for(stream, n / N, THREADS), THREADS, 0, stream->stream>>>(n, x0, x1, y, op);
    else
        map_kernel<T0, T1, TY, READS_Y, 1>
            <<<grid_for(stream, n, THREADS), THREADS, 0, stream->stream>>>(n, x0, x1, y, op);
    return mz_cuda_launched(name);
}

struct activation_op {
    mz_activation kind;
    __device__ float operator()(int64_t, float x, float, float) const
    {
        return activate(kind, x);
    }
};

struct activation_grad_op {
    mz_activation kind;
    __device__ float operator()(int64_t, float dy, float x, float) const
    {
        return dy * activate_grad(kind, x);
    }
};

struct add_op {
    float alpha, beta;
    __device__ float operator()(int64_t, float a, float b, float) const
    {
        return alpha * a + beta * b;
    }
};

struct scale_op {
    float alpha;
    __device__ float operator()(int64_t, float a, float, float) const
    {
        return alpha * a;
    }
};

struct mul_op {
    __device__ float operator()(int64_t, float a, float b, float old) const
    {
        return a * b + old;
    }
};

struct dropout_op {
    dropout_draws draws;
    __device__ float operator()(int64_t i, float x, float residual, float) const
    {
        const double factor = draws.state ? draw_factor(draws, *draws.state, i) : 1.0;
        return (float)((double)x * factor) + residual;
    }
};

struct cast_op {
    float scale;
    const float *scale_device;
    __device__ float operator()(int64_t, float x, float, float old) const
    {
        return (scale_device ? scale * *scale_device : scale) * x + old;
    }
};

extern "C" mz_status mz_cuda_activation(const mz_activation_args *a, mz_stream *stream)
{
    mz_status status = mz_check_activation(a);
    if (status)
        return status;
    FOR_DTYPE(a->dtype, T,
              status = map<false>(stream, "activation", a->n, (const T *)a->x, (const T *)nullptr, (T *)a->y,
                                  activation_op{a->activation}));
    return status;
}

extern "C" mz_status mz_cuda_activation_grad(const mz_activation_grad_args *a, mz_stream *stream)
{
    mz_status status = mz_check_activation_grad(a);
    if (status)
        return status;
    FOR_DTYPE(a->dtype, T,
              status = map<false>(stream, "activation_grad", a->n, (const T *)a->dy, (const T *)a->x, (T *)a->dx,
                                  activation_grad_op{a->activation}));
    return status;
}

extern "C" mz_status mz_cuda_add(const mz_add_args *a, mz_stream *stream)
{
    mz_status status = mz_check_add(a);
    if (status)
        return status;
    if (a->b)
        FOR_DTYPE(a->dtype, T,
                  status = map<false>(stream, "add", a->n, (const T *)a->a, (const T *)a->b, (T *)a->y,
                                      add_op{a->alpha, a->beta}));
    else
        FOR_DTYPE(a->dtype, T,
                  status = map<false>(stream, "add", a->n, (const T *)a->a, (const T *)nullptr, (T *)a->y,
                                      scale_op{a->alpha}));
    return status;
}

extern "C" mz_status mz_cuda_mul(const mz_mul_args *a, mz_stream *stream)
{
    mz_status status = mz_check_mul(a);
    if (status)
        return status;
    if (a->accumulate)
        FOR_DTYPE(a->dtype, T,
                  status = map<true>(stream, "mul", a->n, (const T *)a->a, (const T *)a->b, (T *)a->y, mul_op{}));
    else
        FOR_DTYPE(a->dtype, T,
                  status = map<false>(stream, "mul", a->n, (const T *)a->a, (const T *)a->b, (T *)a->y, mul_op{}));
    return status;
}

extern "C" mz_status mz_cuda_dropout(const mz_dropout_args *a, mz_stream *stream)
{
    mz_status status = mz_check_dropout(a);
    if (status)
        return status;
    FOR_DTYPE(a->dtype, T,
              status = map<false>(stream, "dropout", a->n, (const T *)a->x, (const T *)a->residual, (T *)a->y,
                                  dropout_op{draws_of(&a->dropout)}));
    return status;
}

template <typename S, typename D> static mz_status cast(const mz_cast_args *a, mz_stream *stream)
{
    const cast_op op = {a->scale, a->scale_device};
    if (a->accumulate)
        return map<true>(stream, "cast", a->n, (const S *)a->src, (const S *)nullptr, (D *)a->dst, op);
    return map<false>(stream, "cast", a->n, (const S *)a->src, (const S *)nullptr, (D *)a->dst, op);
}

extern "C" mz_status mz_cuda_cast(const mz_cast_args *a, mz_stream *stream)
{
    mz_status status = mz_check_cast(a);
    if (status)
        return status;
    FOR_DTYPE(a->src_dtype, S, FOR_DTYPE(a->dst_dtype, D, status = cast<S, D>(a, stream)));
    return status;
}
