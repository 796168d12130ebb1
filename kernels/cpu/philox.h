/* core/rng.h's draws, VF_N blocks of four at a time. */
#ifndef MZ_KERNELS_CPU_PHILOX_H
#define MZ_KERNELS_CPU_PHILOX_H

#include "kernels/cpu/simd.h"
#include "kernels/dropout.h"

/* Ten rounds on counters (c0, c1, site, step): out[w] is word w of each lane's block. */
MZ_INLINE void mz_philox(const mz_dropout *d, vu c0, vu c1, vu out[4])
{
    const mz_rng_state *state = d->state;
    vu c2 = vu_set1(d->site), c3 = vu_set1((uint32_t)state->step);
    uint32_t k0 = (uint32_t)state->seed, k1 = (uint32_t)(state->seed >> 32) ^ (uint32_t)(state->step >> 32);
    const vu m0 = vu_set1(0xD2511F53u), m1 = vu_set1(0xCD9E8D57u);
    for (int round = 0; round < 10; round++) {
        vu low0, high0, low1, high1;
        vu_mul_wide(c0, m0, &low0, &high0);
        vu_mul_wide(c2, m1, &low1, &high1);
        c0 = high1 ^ c1 ^ k0;
        c1 = low1;
        c2 = high0 ^ c3 ^ k1;
        c3 = low0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* Counters of blocks first, first + stride, ... one per lane. */
MZ_INLINE void mz_philox_counters(uint64_t first, uint64_t stride, vu *c0, vu *c1)
{
    uint32_t low[VF_N], high[VF_N];
    for (int i = 0; i < VF_N; i++) {
        const uint64_t block = first + (uint64_t)i * stride;
        low[i] = (uint32_t)block;
        high[i] = (uint32_t)(block >> 32);
    }
    memcpy(c0, low, sizeof *c0);
    memcpy(c1, high, sizeof *c1);
}

enum { MZ_DRAWS = 4 * VF_N };

/* The draws of elements 4 * block .. 4 * block + MZ_DRAWS - 1 in order. */
MZ_INLINE void mz_philox_run(const mz_dropout *d, uint64_t block, uint32_t draws[MZ_DRAWS])
{
    vu c0, c1, w[4];
    mz_philox_counters(block, 1, &c0, &c1);
    mz_philox(d, c0, c1, w);
    const vf even[2] = {vf_zip_low((vf)w[0], (vf)w[2]), vf_zip_high((vf)w[0], (vf)w[2])};
    const vf odd[2] = {vf_zip_low((vf)w[1], (vf)w[3]), vf_zip_high((vf)w[1], (vf)w[3])};
    for (int i = 0; i < 2; i++) {
        vf_store((float *)draws + 2 * i * VF_N, vf_zip_low(even[i], odd[i]));
        vf_store((float *)draws + (2 * i + 1) * VF_N, vf_zip_high(even[i], odd[i]));
    }
}

/* What the lanes of a vector of draws multiply by: 0 where dropped, 1 / (1 - p) where kept. */
MZ_INLINE vf mz_keep_factor(const mz_dropout *d, vu draw)
{
    const uint64_t threshold = mz_dropout_threshold(d->p);
    if (threshold > UINT32_MAX)
        return vf_set1(0.0f);
    const float factor = (float)(1.0 / (1.0 - (double)d->p));
    return vf_select(vu_lt(draw, vu_set1((uint32_t)threshold)), vf_set1(0.0f), vf_set1(factor));
}

#endif
