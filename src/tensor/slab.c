#include "tensor/slab.h"

#include "core/memory.h"

#define TENSORS_PER_SLAB 128

struct mz_tensor_slab {
    struct mz_tensor_slab *next;
    mz_tensor tensors[TENSORS_PER_SLAB];
};

mz_status mz_tensor_slab_grow(mz_tape *tape)
{
    struct mz_tensor_slab *slab = mz_alloc(sizeof *slab);
    if (!slab)
        return MZ_ERR_MEMORY;
    slab->next = tape->slabs;
    tape->slabs = slab;
    for (int i = TENSORS_PER_SLAB - 1; i >= 0; i--) {
        slab->tensors[i].next = tape->spare;
        tape->spare = &slab->tensors[i];
    }
    return MZ_OK;
}

void mz_tensor_slab_free_all(mz_tape *tape)
{
    for (struct mz_tensor_slab *slab = tape->slabs, *next; slab; slab = next) {
        next = slab->next;
        mz_free(slab);
    }
    tape->slabs = NULL;
    tape->spare = NULL;
}
