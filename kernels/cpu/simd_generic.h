/* No instruction set in particular: the compiler lowers four-lane vectors to what the target has (SSE2,
 * NEON, scalars). Included by simd.h only. */
#ifndef MZ_KERNELS_CPU_SIMD_GENERIC_H
#define MZ_KERNELS_CPU_SIMD_GENERIC_H

typedef vi vm; /* all bits of a lane set or none */

MZ_INLINE vm vm_first(int64_t n)
{
    const vi lane = {0, 1, 2, 3};
    return lane < (int32_t)(n < VF_N ? n : VF_N);
}

MZ_INLINE int vm_count(vm m)
{
    return -(m[0] + m[1] + m[2] + m[3]);
}

MZ_INLINE vf vf_set1(float x)
{
    return (vf){x, x, x, x};
}

MZ_INLINE vf vf_load(const float *p)
{
    vf v;
    memcpy(&v, p, sizeof v);
    return v;
}

MZ_INLINE void vf_store(float *p, vf v)
{
    memcpy(p, &v, sizeof v);
}

MZ_INLINE vf vf_load_n(const float *p, int64_t n)
{
    vf v = {0};
    memcpy(&v, p, (size_t)(n < VF_N ? n : VF_N) * sizeof *p);
    return v;
}

MZ_INLINE void vf_store_n(float *p, vf v, int64_t n)
{
    memcpy(p, &v, (size_t)(n < VF_N ? n : VF_N) * sizeof *p);
}

MZ_INLINE vf vf_fma(vf a, vf b, vf c)
{
    return a * b + c;
}

MZ_INLINE vf vf_select(vm m, vf a, vf b)
{
    return (vf)(((vi)a & m) | ((vi)b & ~m));
}

MZ_INLINE vf vf_min(vf a, vf b)
{
    return vf_select(a < b, a, b);
}

MZ_INLINE vf vf_max(vf a, vf b)
{
    return vf_select(a > b, a, b);
}

MZ_INLINE vf vf_reciprocal(vf a)
{
    return 1.0f / a;
}

MZ_INLINE vf vf_sqrt(vf a)
{
    return (vf){sqrtf(a[0]), sqrtf(a[1]), sqrtf(a[2]), sqrtf(a[3])};
}

/* For |a| < 2^22, which is all that the callers need: adding 1.5 * 2^23 drops the fraction. */
MZ_INLINE vf vf_round(vf a)
{
    const vf magic = (vf){0} + 0x1.8p23f;
    return (a + magic) - magic;
}

MZ_INLINE vi vf_to_vi(vf a)
{
    return __builtin_convertvector(vf_round(a), vi);
}

MZ_INLINE vf vi_to_vf(vi a)
{
    return __builtin_convertvector(a, vf);
}

MZ_INLINE vm vf_lt(vf a, vf b)
{
    return a < b;
}

MZ_INLINE vm vf_le(vf a, vf b)
{
    return a <= b;
}

MZ_INLINE vm vu_lt(vu a, vu b)
{
    return (vm)(a < b);
}

/* x * 2^n for integral n, in two factors so that the result may be subnormal. */
MZ_INLINE vf vf_ldexp(vf x, vf n)
{
    const vi whole = vf_to_vi(n), half = whole >> 1;
    return x * (vf)((half + 127) << 23) * (vf)((whole - half + 127) << 23);
}

MZ_INLINE void vu_mul_wide(vu a, vu b, vu *low, vu *high)
{
    *low = a * b;
    for (int i = 0; i < VF_N; i++)
        (*high)[i] = (uint32_t)((uint64_t)a[i] * b[i] >> 32);
}

/* a0 b0 a1 b1 of the lower and the upper halves. */
MZ_INLINE vf vf_zip_low(vf a, vf b)
{
    return __builtin_shufflevector(a, b, 0, 4, 1, 5);
}

MZ_INLINE vf vf_zip_high(vf a, vf b)
{
    return __builtin_shufflevector(a, b, 2, 6, 3, 7);
}

MZ_INLINE vf vf_from_f16_n(const uint16_t *p, int64_t n)
{
    vf v = {0};
    for (int i = 0; i < VF_N && i < n; i++)
        v[i] = mz_f16_to_f32(p[i]);
    return v;
}

MZ_INLINE vf vf_from_f16(const uint16_t *p)
{
    return vf_from_f16_n(p, VF_N);
}

MZ_INLINE vf vf_from_bf16_n(const uint16_t *p, int64_t n)
{
    vf v = {0};
    for (int i = 0; i < VF_N && i < n; i++)
        v[i] = mz_bf16_to_f32(p[i]);
    return v;
}

MZ_INLINE vf vf_from_bf16(const uint16_t *p)
{
    return vf_from_bf16_n(p, VF_N);
}

MZ_INLINE void vf_to_f16_n(uint16_t *p, vf v, int64_t n)
{
    for (int i = 0; i < VF_N && i < n; i++)
        p[i] = mz_f32_to_f16(v[i]);
}

MZ_INLINE void vf_to_f16(uint16_t *p, vf v)
{
    vf_to_f16_n(p, v, VF_N);
}

MZ_INLINE void vf_to_bf16_n(uint16_t *p, vf v, int64_t n)
{
    for (int i = 0; i < VF_N && i < n; i++)
        p[i] = mz_f32_to_bf16(v[i]);
}

MZ_INLINE void vf_to_bf16(uint16_t *p, vf v)
{
    vf_to_bf16_n(p, v, VF_N);
}

MZ_INLINE void vf_stream(float *p, vf v)
{
    vf_store(p, v);
}

MZ_INLINE void vf_stream_f16(uint16_t *p, vf v)
{
    vf_to_f16(p, v);
}

MZ_INLINE void vf_stream_bf16(uint16_t *p, vf v)
{
    vf_to_bf16(p, v);
}

MZ_INLINE void vf_stream_end(void)
{
}

#endif
