#include "mpizero/dtype.h"

static const struct {
    size_t size;
    const char *name;
} dtypes[MZ_N_DTYPES] = {
    [MZ_F32] = {4, "f32"}, [MZ_F16] = {2, "f16"}, [MZ_BF16] = {2, "bf16"}, [MZ_F64] = {8, "f64"},
    [MZ_I32] = {4, "i32"}, [MZ_I64] = {8, "i64"}, [MZ_U8] = {1, "u8"},
};

size_t mz_dtype_size(mz_dtype dtype)
{
    return (unsigned)dtype < MZ_N_DTYPES ? dtypes[dtype].size : 0;
}

const char *mz_dtype_name(mz_dtype dtype)
{
    return (unsigned)dtype < MZ_N_DTYPES ? dtypes[dtype].name : "?";
}
