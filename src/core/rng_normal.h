/* Normal draws by whole Philox blocks, by instruction set. All give the same bits. */
#ifndef MZ_CORE_RNG_NORMAL_H
#define MZ_CORE_RNG_NORMAL_H

#include <stdint.h>

enum { MZ_NORMAL_BLOCKS = 16, MZ_NORMAL_ELEMENTS = 4 * MZ_NORMAL_BLOCKS };

typedef struct mz_normal_set {
    const char *name;
    /* z[0 .. MZ_NORMAL_ELEMENTS-1] = the normal draws of the blocks from `block` on, at (seed, site, step 0). */
    void (*fill)(uint64_t seed, uint32_t site, uint64_t block, float *z);
} mz_normal_set;

/* Sets that this processor can run, the best first, plain C last; NULL when i is past the end. */
const mz_normal_set *mz_normal_set_at(int i);

#endif
