/* Element types of tensors in memory, in files and on the wire. */
#ifndef MPIZERO_DTYPE_H
#define MPIZERO_DTYPE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum mz_dtype {
    MZ_F32 = 0,
    MZ_F16, /* IEEE 754 binary16 */
    MZ_BF16,
    MZ_F64,
    MZ_I32,
    MZ_I64,
    MZ_U8,
    MZ_N_DTYPES
} mz_dtype;

/* Bytes of one element. */
size_t mz_dtype_size(mz_dtype dtype);

/* "f32", "f16", "bf16", "f64", "i32", "i64", "u8". */
const char *mz_dtype_name(mz_dtype dtype);

#ifdef __cplusplus
}
#endif
#endif
