/* Tensors and the tape.
 *
 * A tensor is a dense row-major array in device memory. The operations of nn.h compute at once and write
 * themselves onto a tape; walking the tape backwards gives the gradients. A model needs a forward only. */
#ifndef MPIZERO_TENSOR_H
#define MPIZERO_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mpizero/dtype.h"
#include "mpizero/status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define MZ_MAX_DIMS 4

typedef struct mz_tensor mz_tensor;
typedef struct mz_tape mz_tape;
typedef struct mz_param mz_param;

/* Life of a tensor. An operation returns a tensor with one reference that belongs to the caller; the tape
 * keeps its own references to what the backward pass needs. mz_tensor_release gives the caller's
 * reference back, as early as possible: that is what keeps peak memory low. References still held when
 * the tape is reset are void from then on. */
void mz_tensor_retain(mz_tensor *tensor);
void mz_tensor_release(mz_tensor *tensor); /* NULL is legal */

mz_dtype mz_tensor_dtype(const mz_tensor *tensor);
int mz_tensor_n_dims(const mz_tensor *tensor);
int64_t mz_tensor_dim(const mz_tensor *tensor, int i); /* negative i counts from the end */
int64_t mz_tensor_numel(const mz_tensor *tensor);
void *mz_tensor_data(const mz_tensor *tensor); /* device memory, borrowed */

/* The gradient that the last backward pass left at a tensor (same shape), NULL when none reached it.
 * Borrowed. Kept only for tensors that were marked with mz_tensor_keep_grad before the forward pass. */
void mz_tensor_keep_grad(mz_tensor *tensor);
mz_tensor *mz_tensor_grad(const mz_tensor *tensor);

#ifdef __cplusplus
}
#endif
#endif
