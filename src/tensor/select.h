/* Operations for generation that nn.h does not show: they have no gradients. */
#ifndef MZ_TENSOR_SELECT_H
#define MZ_TENSOR_SELECT_H

#include "tensor/tape.h"

/* x [B, T, D] -> [B, 1, D], its last position. *y is owned by the caller. */
mz_status mz_select_last_position(mz_tape *tape, mz_tensor *x, mz_tensor **y);

#endif
