/* Activations and their slopes in fp32; the kind is the same for a whole launch. */
#ifndef MZ_KERNELS_CUDA_ACT_CUH
#define MZ_KERNELS_CUDA_ACT_CUH

#include "kernels/cuda/common.cuh"

#define SQRT_2_OVER_PI  0.79788456080286535588f
#define SQRT_1_OVER_2   0.70710678118654752440f
#define SQRT_1_OVER_2PI 0.39894228040143267794f
#define GELU_CUBIC      0.044715f

__device__ __forceinline__ float sigmoid(float x)
{
    return __fdividef(1.0f, 1.0f + __expf(-x)); /* 0 where the denominator is too large for it, as it is */
}

/* (1 + tanh w) / 2 is the logistic function of 2w. */
__device__ __forceinline__ float gelu_tanh_gate(float x)
{
    return sigmoid(2.0f * SQRT_2_OVER_PI * (x + GELU_CUBIC * x * x * x));
}

__device__ __forceinline__ float activate(mz_activation activation, float x)
{
    switch (activation) {
    case MZ_ACT_GELU_TANH:
        return x * gelu_tanh_gate(x);
    case MZ_ACT_GELU_ERF:
        return 0.5f * x * erfcf(-x * SQRT_1_OVER_2);
    case MZ_ACT_RELU:
        return x < 0.0f ? 0.0f : x;
    case MZ_ACT_TANH:
        return tanhf(x);
    case MZ_ACT_SIGMOID:
        return sigmoid(x);
    case MZ_ACT_SILU:
        return x * sigmoid(x);
    default:
        return x;
    }
}

__device__ __forceinline__ float activate_grad(mz_activation activation, float x)
{
    float t;
    switch (activation) {
    case MZ_ACT_GELU_TANH:
        t = gelu_tanh_gate(x);
        return t + x * t * (1.0f - t) * 2.0f * SQRT_2_OVER_PI * (1.0f + 3.0f * GELU_CUBIC * x * x);
    case MZ_ACT_GELU_ERF:
        return 0.5f * erfcf(-x * SQRT_1_OVER_2) + x * SQRT_1_OVER_2PI * expf(-0.5f * x * x);
    case MZ_ACT_RELU:
        return x > 0.0f ? 1.0f : 0.0f;
    case MZ_ACT_TANH:
        t = tanhf(x);
        return 1.0f - t * t;
    case MZ_ACT_SIGMOID:
        t = sigmoid(x);
        return t * (1.0f - t);
    case MZ_ACT_SILU:
        t = sigmoid(x);
        return t * (1.0f + x * (1.0f - t));
    default:
        return 1.0f;
    }
}

#endif
