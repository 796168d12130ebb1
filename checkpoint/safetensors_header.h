/* The header of one safetensors file: parsing bytes from anywhere, and the names of element types. */
#ifndef MZ_SAFETENSORS_HEADER_H
#define MZ_SAFETENSORS_HEADER_H

#include "checkpoint/safetensors.h"

/* The format's own bound on the JSON part. */
#define MZ_SAFETENSORS_MAX_HEADER ((uint64_t)100000000)

/* Checks and lists the tensors of a file that lies in memory. `path` is for messages. Nothing is taken for granted:
 * the bytes may be anything. *tensors (n of them, in order of their data) is owned by the caller, each name too;
 * data points into `file`. Errors: MZ_ERR_MODEL, MZ_ERR_MEMORY. */
mz_status mz_safetensors_parse(const char *path, const uint8_t *file, size_t bytes, mz_weights_tensor **tensors,
                               int *n);
void mz_safetensors_free(mz_weights_tensor *tensors, int n);

/* "BF16" and its like; NULL for a dtype that files do not have. */
const char *mz_safetensors_dtype_name(mz_dtype dtype);

#endif
