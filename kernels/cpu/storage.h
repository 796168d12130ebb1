/* Loading and storing fp32 vectors from and to any storage type. `dtype` is a compile-time constant where
 * the functions are inlined: a kernel's body takes it as a parameter and MZ_FOR_DTYPE calls the body with
 * each constant. */
#ifndef MZ_KERNELS_CPU_STORAGE_H
#define MZ_KERNELS_CPU_STORAGE_H

#include "kernels/cpu/simd.h"

/* Evaluates `call` with D standing for the constant of `dtype`, one of the three storage types. */
#define MZ_FOR_DTYPE(dtype, call)                                                                                  \
    do {                                                                                                           \
        if ((dtype) == MZ_F32) {                                                                                   \
            const mz_dtype D = MZ_F32;                                                                             \
            call;                                                                                                  \
        } else if ((dtype) == MZ_F16) {                                                                            \
            const mz_dtype D = MZ_F16;                                                                             \
            call;                                                                                                  \
        } else {                                                                                                   \
            const mz_dtype D = MZ_BF16;                                                                            \
            call;                                                                                                  \
        }                                                                                                          \
    } while (0)

MZ_INLINE int64_t mz_storage_size(mz_dtype dtype)
{
    return dtype == MZ_F32 ? 4 : 2;
}

MZ_INLINE void *mz_at(void *p, mz_dtype dtype, int64_t i)
{
    return (char *)p + i * mz_storage_size(dtype);
}

MZ_INLINE const void *mz_at_const(const void *p, mz_dtype dtype, int64_t i)
{
    return (const char *)p + i * mz_storage_size(dtype);
}

MZ_INLINE vf mz_load(const void *p, mz_dtype dtype, int64_t i)
{
    if (dtype == MZ_F32)
        return vf_load((const float *)p + i);
    if (dtype == MZ_F16)
        return vf_from_f16((const uint16_t *)p + i);
    return vf_from_bf16((const uint16_t *)p + i);
}

/* n lanes at most; the others are 0. */
MZ_INLINE vf mz_load_n(const void *p, mz_dtype dtype, int64_t i, int64_t n)
{
    if (n >= VF_N)
        return mz_load(p, dtype, i);
    if (dtype == MZ_F32)
        return vf_load_n((const float *)p + i, n);
    if (dtype == MZ_F16)
        return vf_from_f16_n((const uint16_t *)p + i, n);
    return vf_from_bf16_n((const uint16_t *)p + i, n);
}

MZ_INLINE void mz_store(void *p, mz_dtype dtype, int64_t i, vf v)
{
    if (dtype == MZ_F32)
        vf_store((float *)p + i, v);
    else if (dtype == MZ_F16)
        vf_to_f16((uint16_t *)p + i, v);
    else
        vf_to_bf16((uint16_t *)p + i, v);
}

MZ_INLINE void mz_store_n(void *p, mz_dtype dtype, int64_t i, vf v, int64_t n)
{
    if (n >= VF_N)
        mz_store(p, dtype, i, v);
    else if (dtype == MZ_F32)
        vf_store_n((float *)p + i, v, n);
    else if (dtype == MZ_F16)
        vf_to_f16_n((uint16_t *)p + i, v, n);
    else
        vf_to_bf16_n((uint16_t *)p + i, v, n);
}

/* Past the caches; as vf_stream in simd.h. */
MZ_INLINE void mz_stream_store(void *p, mz_dtype dtype, int64_t i, vf v)
{
    if (dtype == MZ_F32)
        vf_stream((float *)p + i, v);
    else if (dtype == MZ_F16)
        vf_stream_f16((uint16_t *)p + i, v);
    else
        vf_stream_bf16((uint16_t *)p + i, v);
}

/* Loads a square whose row r is VF_N consecutive elements from x[r * ld]; rows and columns beyond n_rows and
 * n_cols are 0. Transposes it. */
MZ_INLINE void mz_load_transposed(const void *x, mz_dtype dtype, int64_t at, int64_t ld, int64_t n_rows,
                                  int64_t n_cols, vf v[VF_N])
{
    if (n_rows >= VF_N && n_cols >= VF_N) {
#pragma GCC unroll 16
        for (int r = 0; r < VF_N; r++)
            v[r] = mz_load(x, dtype, at + r * ld);
    } else {
#pragma GCC unroll 16
        for (int r = 0; r < VF_N; r++)
            v[r] = r < n_rows ? mz_load_n(x, dtype, at + r * ld, n_cols) : vf_set1(0.0f);
    }
    vf_transpose(v);
}

#endif
