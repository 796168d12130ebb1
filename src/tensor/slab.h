/* Tensor structs come in slabs, so that a training step in its steady state allocates nothing. */
#ifndef MZ_TENSOR_SLAB_H
#define MZ_TENSOR_SLAB_H

#include "tensor/node.h"

/* Puts a slab of new structs on the tape's spare list. */
mz_status mz_tensor_slab_grow(mz_tape *tape);
void mz_tensor_slab_free_all(mz_tape *tape);

#endif
