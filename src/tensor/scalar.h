/* Scalars that losses are summed into. */
#ifndef MZ_TENSOR_SCALAR_H
#define MZ_TENSOR_SCALAR_H

#include "tensor/tape.h"

/* A fp32 zero in device memory; *scalar is owned by the caller. */
mz_status mz_scalar_zero(mz_tape *tape, mz_tensor **scalar);

#endif
