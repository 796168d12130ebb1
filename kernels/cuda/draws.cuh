/* Dropout by counter on the device: the same draws as core/rng.h. */
#ifndef MZ_KERNELS_CUDA_DRAWS_CUH
#define MZ_KERNELS_CUDA_DRAWS_CUH

#include "kernels/cuda/common.cuh"
#include "kernels/dropout.h"

/* A dropout as a kernel sees it. */
typedef struct dropout_draws {
    const mz_rng_state *state; /* NULL: no dropout */
    int64_t sample_elements;
    uint64_t threshold;
    double factor; /* of what is kept */
    uint32_t site;
} dropout_draws;

static inline dropout_draws draws_of(const mz_dropout *d)
{
    dropout_draws draws = {};
    if (d->p > 0.0f) {
        draws.state = d->state;
        draws.sample_elements = d->sample_elements;
        draws.threshold = mz_dropout_threshold(d->p);
        draws.factor = d->p < 1.0f ? 1.0 / (1.0 - (double)d->p) : 0.0;
        draws.site = d->site;
    }
    return draws;
}

/* Ten rounds of Philox4x32 (Salmon et al. 2011) on block `block` of the step's draws at the site. */
__device__ __forceinline__ uint4 draw_block(const mz_rng_state &state, uint32_t site, uint64_t block)
{
    uint32_t c0 = (uint32_t)block, c1 = (uint32_t)(block >> 32), c2 = site, c3 = (uint32_t)state.step;
    uint32_t k0 = (uint32_t)state.seed, k1 = (uint32_t)(state.seed >> 32) ^ (uint32_t)(state.step >> 32);
#pragma unroll
    for (int round = 0; round < 10; round++) {
        const uint32_t n0 = __umulhi(0xCD9E8D57u, c2) ^ c1 ^ k0, n2 = __umulhi(0xD2511F53u, c0) ^ c3 ^ k1;
        c1 = 0xCD9E8D57u * c2;
        c3 = 0xD2511F53u * c0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return make_uint4(c0, c1, c2, c3);
}

/* What element e of this rank's tensor is multiplied by. `state` is *draws.state, read once by the caller. */
__device__ __forceinline__ double draw_factor(const dropout_draws &draws, const mz_rng_state &state, int64_t e)
{
    const uint64_t element = (uint64_t)(state.first_sample * draws.sample_elements + e);
    const uint4 block = draw_block(state, draws.site, element / 4);
    const uint32_t which = (uint32_t)(element % 4);
    const uint32_t draw = which == 0 ? block.x : which == 1 ? block.y : which == 2 ? block.z : block.w;
    return draw >= draws.threshold ? draws.factor : 0.0;
}

#endif
