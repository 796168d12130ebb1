#include "kernels/check.h"
#include "kernels/cpu/family.h"
#include "kernels/cpu/storage.h"
#include "kernels/cpu/vmath.h"

enum { GRAIN = 1024 };

/* One call of `body` with the activation as a constant. */
#define FOR_ACTIVATION(activation, body)                                                                           \
    switch (activation) {                                                                                          \
        CASE(MZ_ACT_GELU_TANH, body)                                                                               \
        CASE(MZ_ACT_GELU_ERF, body)                                                                                \
        CASE(MZ_ACT_RELU, body)                                                                                    \
        CASE(MZ_ACT_TANH, body)                                                                                    \
        CASE(MZ_ACT_SIGMOID, body)                                                                                 \
        CASE(MZ_ACT_SILU, body)                                                                                    \
    default:                                                                                                       \
        body(MZ_ACT_NONE);                                                                                         \
        break;                                                                                                     \
    }
#define CASE(kind, body)                                                                                           \
    case kind:                                                                                                     \
        body(kind);                                                                                                \
        break;

MZ_INLINE void forward_range(const mz_activation_args *a, mz_activation kind, int64_t begin, int64_t end)
{
    for (int64_t i = begin; i < end; i += VF_N)
        mz_store_n(a->y, a->dtype, i, vf_activation(mz_load_n(a->x, a->dtype, i, end - i), kind), end - i);
}

static void forward_part(void *arg, int64_t begin, int64_t end, int thread)
{
    const mz_activation_args *a = arg;
    (void)thread;
#define BODY(kind) forward_range(a, kind, begin, end)
    FOR_ACTIVATION(a->activation, BODY)
#undef BODY
}

mz_status MZ_CPU(activation)(const mz_activation_args *args, mz_stream *stream)
{
    mz_activation_args a = *args;
    mz_status status = mz_check_activation(args);
    if (!status)
        mz_threads_for(mz_threads_if_worth(stream, 4 * a.n), a.n, GRAIN, forward_part, &a);
    return status;
}

MZ_INLINE void backward_range(const mz_activation_grad_args *a, mz_activation kind, int64_t begin, int64_t end)
{
    for (int64_t i = begin; i < end; i += VF_N) {
        const vf slope = vf_activation_slope(mz_load_n(a->x, a->dtype, i, end - i), kind);
        mz_store_n(a->dx, a->dtype, i, mz_load_n(a->dy, a->dtype, i, end - i) * slope, end - i);
    }
}

static void backward_part(void *arg, int64_t begin, int64_t end, int thread)
{
    const mz_activation_grad_args *a = arg;
    (void)thread;
#define BODY(kind) backward_range(a, kind, begin, end)
    FOR_ACTIVATION(a->activation, BODY)
#undef BODY
}

mz_status MZ_CPU(activation_grad)(const mz_activation_grad_args *args, mz_stream *stream)
{
    mz_activation_grad_args a = *args;
    mz_status status = mz_check_activation_grad(args);
    if (!status)
        mz_threads_for(mz_threads_if_worth(stream, 4 * a.n), a.n, GRAIN, backward_part, &a);
    return status;
}
