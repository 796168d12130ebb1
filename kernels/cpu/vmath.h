/* exp, tanh and erf of vectors, to about 1e-7 relative, and the activations made of them. The polynomials
 * are least-maximum fits over the stated ranges. */
#ifndef MZ_KERNELS_CPU_VMATH_H
#define MZ_KERNELS_CPU_VMATH_H

#include "kernels/cpu/simd.h"
#include "mpizero/nn.h"

/* e^x = 2^n e^r, |r| <= ln 2 / 2. Below -104 it is 0, above 89 infinity; a NaN stays one. */
MZ_INLINE vf vf_exp(vf x)
{
    x = vf_min(vf_set1(89.0f), vf_max(vf_set1(-104.0f), x));
    const vf n = vf_round(x * 1.44269504f);
    vf r = vf_fma(n, vf_set1(-0.693359375f), x);
    r = vf_fma(n, vf_set1(2.12194440e-4f), r);
    vf p = vf_set1(0.00138146145f);
    p = vf_fma(p, r, vf_set1(0.00836870911f));
    p = vf_fma(p, r, vf_set1(0.0416683873f));
    p = vf_fma(p, r, vf_set1(0.166665207f));
    p = vf_fma(p, r, vf_set1(0.499999935f));
    p = vf_fma(p * r, r, r) + 1.0f;
    return vf_ldexp(p, n);
}

MZ_INLINE vf vf_abs(vf x)
{
    return (vf)((vu)x & 0x7fffffffu);
}

/* |x| with the sign of s. */
MZ_INLINE vf vf_copysign(vf x, vf s)
{
    return (vf)(((vu)x & 0x7fffffffu) | ((vu)s & 0x80000000u));
}

/* Polynomial below 0.65, 1 - 2 / (e^2x + 1) above. */
MZ_INLINE vf vf_tanh(vf x)
{
    const vf a = vf_abs(x), z = x * x;
    vf p = vf_set1(-0.00552863317f);
    p = vf_fma(p, z, vf_set1(0.0204833156f));
    p = vf_fma(p, z, vf_set1(-0.0536929679f));
    p = vf_fma(p, z, vf_set1(0.133308998f));
    p = vf_fma(p, z, vf_set1(-0.333332629f));
    const vf small = vf_fma(p * z, x, x);
    const vf large = 1.0f - 2.0f / (vf_exp(a + a) + 1.0f);
    return vf_select(vf_lt(a, vf_set1(0.65f)), small, vf_copysign(large, x));
}

/* 1 / (1 + e^-x) */
MZ_INLINE vf vf_sigmoid(vf x)
{
    return 1.0f / (1.0f + vf_exp(-x));
}

/* erfc(a) for a >= 1, with e = e^(-a^2) given: a polynomial in 1 / (1 + 0.4 a). */
MZ_INLINE vf vf_erfc_tail(vf a, vf e)
{
    const vf t = 1.0f / vf_fma(a, vf_set1(0.4f), vf_set1(1.0f));
    vf p = vf_set1(-0.118873562f);
    p = vf_fma(p, t, vf_set1(0.251288089f));
    p = vf_fma(p, t, vf_set1(-0.00111489821f));
    p = vf_fma(p, t, vf_set1(0.219197671f));
    p = vf_fma(p, t, vf_set1(0.196449381f));
    p = vf_fma(p, t, vf_set1(0.227204459f));
    p = vf_fma(p, t, vf_set1(0.225566961f));
    p = vf_fma(p, t, vf_set1(2.90552716e-6f));
    return p * e;
}

/* The normal distribution function (1 + erf(x / sqrt 2)) / 2, with e = e^(-x^2 / 2) given; relative accuracy
 * also in the lower tail. */
MZ_INLINE vf vf_normal_cdf(vf x, vf e)
{
    const vf u = x * 0.707106781f, a = vf_abs(u), z = u * u;
    vf p = vf_set1(7.853861e-05f);
    p = vf_fma(p, z, vf_set1(-0.000801019352f));
    p = vf_fma(p, z, vf_set1(0.00518832767f));
    p = vf_fma(p, z, vf_set1(-0.0268538119f));
    p = vf_fma(p, z, vf_set1(0.112835851f));
    p = vf_fma(p, z, vf_set1(-0.376126258f));
    p = vf_fma(p, z, vf_set1(1.12837917f));
    const vf small = vf_fma(p * 0.5f, u, vf_set1(0.5f));
    const vf half_tail = 0.5f * vf_erfc_tail(a, e);
    const vf large = vf_select(vf_lt(u, vf_set1(0.0f)), half_tail, 1.0f - half_tail);
    return vf_select(vf_lt(a, vf_set1(1.0f)), small, large);
}

/* 2^t to 1e-7; t is cut to -150..126, whose reciprocal is a normal number. */
MZ_INLINE vf vf_exp2(vf t)
{
    t = vf_min(vf_set1(126.0f), vf_max(vf_set1(-150.0f), t));
    const vf n = vf_round(t), r = t - n;
    vf p = vf_set1(0.00132647269f);
    p = vf_fma(p, r, vf_set1(0.00967151266f));
    p = vf_fma(p, r, vf_set1(0.0555073374f));
    p = vf_fma(p, r, vf_set1(0.240222421f));
    p = vf_fma(p, r, vf_set1(0.693146978f));
    return vf_ldexp(vf_fma(p, r, vf_set1(1.0f)), n);
}

/* GELU's tanh approximation is x times (1 + tanh w) / 2 = 1 / (1 + e^-2w), w = sqrt(2 / pi) (x + 0.044715 x^3). */
#define GELU_SLOPE (2.0f * 0.7978845608f) /* of 2 w at 0 */
#define GELU_CUBE  (GELU_SLOPE * 0.044715f)

MZ_INLINE vf vf_gelu_tanh_gate(vf x)
{
    const float log2_e = 1.44269504f;
    const vf t = x * vf_fma(x * x, vf_set1(-log2_e * GELU_CUBE), vf_set1(-log2_e * GELU_SLOPE));
    return vf_reciprocal(1.0f + vf_exp2(t));
}

/* `kind` is a compile-time constant where these are inlined. */
MZ_INLINE vf vf_activation(vf x, mz_activation kind)
{
    switch (kind) {
    case MZ_ACT_GELU_TANH:
        return x * vf_gelu_tanh_gate(x);
    case MZ_ACT_GELU_ERF:
        return x * vf_normal_cdf(x, vf_exp(x * x * -0.5f));
    case MZ_ACT_RELU:
        return vf_select(vf_lt(x, vf_set1(0.0f)), vf_set1(0.0f), x);
    case MZ_ACT_TANH:
        return vf_tanh(x);
    case MZ_ACT_SIGMOID:
        return vf_sigmoid(x);
    case MZ_ACT_SILU:
        return x * vf_sigmoid(x);
    default:
        return x;
    }
}

MZ_INLINE vf vf_activation_slope(vf x, mz_activation kind)
{
    switch (kind) {
    case MZ_ACT_GELU_TANH: {
        const vf s = vf_gelu_tanh_gate(x);
        const vf dw2 = vf_fma(x * x, vf_set1(3.0f * GELU_CUBE), vf_set1(GELU_SLOPE));
        return vf_fma(x * s * (1.0f - s), dw2, s);
    }
    case MZ_ACT_GELU_ERF: {
        const vf e = vf_exp(x * x * -0.5f);
        return vf_fma(x * 0.398942280f, e, vf_normal_cdf(x, e));
    }
    case MZ_ACT_RELU:
        return vf_select(vf_lt(vf_set1(0.0f), x), vf_set1(1.0f), vf_set1(0.0f));
    case MZ_ACT_TANH: {
        const vf t = vf_tanh(x);
        return 1.0f - t * t;
    }
    case MZ_ACT_SIGMOID: {
        const vf s = vf_sigmoid(x);
        return s * (1.0f - s);
    }
    case MZ_ACT_SILU: {
        const vf s = vf_sigmoid(x);
        return vf_fma(x * s, 1.0f - s, s);
    }
    default:
        return vf_set1(1.0f);
    }
}

#endif
