#include <math.h>

#include "core/half.h"
#include "kernels/check.h"
#include "kernels/ref/ref.h"

#define SQRT_2_OVER_PI 0.79788456080286535588
#define SQRT_1_OVER_2  0.70710678118654752440
#define GELU_CUBIC     0.044715

static double sigmoid(double x)
{
    return 1.0 / (1.0 + exp(-x));
}

double mz_ref_activate(mz_activation activation, double x)
{
    switch (activation) {
    case MZ_ACT_GELU_TANH:
        return 0.5 * x * (1.0 + tanh(SQRT_2_OVER_PI * (x + GELU_CUBIC * x * x * x)));
    case MZ_ACT_GELU_ERF:
        return 0.5 * x * (1.0 + erf(x * SQRT_1_OVER_2));
    case MZ_ACT_RELU:
        return x < 0.0 ? 0.0 : x;
    case MZ_ACT_TANH:
        return tanh(x);
    case MZ_ACT_SIGMOID:
        return sigmoid(x);
    case MZ_ACT_SILU:
        return x * sigmoid(x);
    case MZ_ACT_NONE:
    case MZ_N_ACTIVATIONS:
        break;
    }
    return x;
}

double mz_ref_activate_grad(mz_activation activation, double x)
{
    double t;
    switch (activation) {
    case MZ_ACT_GELU_TANH:
        t = tanh(SQRT_2_OVER_PI * (x + GELU_CUBIC * x * x * x));
        return 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * SQRT_2_OVER_PI * (1.0 + 3.0 * GELU_CUBIC * x * x);
    case MZ_ACT_GELU_ERF: /* Phi(x) + x phi(x), the normal distribution and its density */
        return 0.5 * (1.0 + erf(x * SQRT_1_OVER_2)) + x * 0.5 * SQRT_2_OVER_PI * exp(-0.5 * x * x);
    case MZ_ACT_RELU:
        return x > 0.0 ? 1.0 : 0.0;
    case MZ_ACT_TANH:
        t = tanh(x);
        return 1.0 - t * t;
    case MZ_ACT_SIGMOID:
        t = sigmoid(x);
        return t * (1.0 - t);
    case MZ_ACT_SILU:
        t = sigmoid(x);
        return t * (1.0 + x * (1.0 - t));
    case MZ_ACT_NONE:
    case MZ_N_ACTIVATIONS:
        break;
    }
    return 1.0;
}

mz_status mz_ref_activation(const mz_activation_args *a, mz_stream *stream)
{
    (void)stream;
    mz_status status = mz_check_activation(a);
    if (status)
        return status;
    for (int64_t i = 0; i < a->n; i++)
        mz_store_f32(a->y, a->dtype, i,
                     (float)mz_ref_activate(a->activation, (double)mz_load_f32(a->x, a->dtype, i)));
    return MZ_OK;
}

mz_status mz_ref_activation_grad(const mz_activation_grad_args *a, mz_stream *stream)
{
    (void)stream;
    mz_status status = mz_check_activation_grad(a);
    if (status)
        return status;
    for (int64_t i = 0; i < a->n; i++) {
        double slope = mz_ref_activate_grad(a->activation, (double)mz_load_f32(a->x, a->dtype, i));
        mz_store_f32(a->dx, a->dtype, i, (float)((double)mz_load_f32(a->dy, a->dtype, i) * slope));
    }
    return MZ_OK;
}
