/* Dropout by counter, the same on every backend of the host. */
#ifndef MZ_KERNELS_DROPOUT_H
#define MZ_KERNELS_DROPOUT_H

#include "core/rng.h"
#include "kernels/kernels.h"

/* The least 32-bit draw that keeps an element: p * 2^32, rounded up. 2^32 (keep none) for p == 1. */
static inline uint64_t mz_dropout_threshold(float p)
{
    double x = (double)p * 4294967296.0;
    uint64_t whole = (uint64_t)x;
    return whole + ((double)whole < x);
}

/* What element `e` of this rank's tensor is multiplied by: 0 when dropped, 1/(1-p) when kept. */
static inline double mz_dropout_factor(const mz_dropout *d, int64_t e)
{
    if (d->p == 0.0f)
        return 1.0;
    uint64_t element = (uint64_t)(d->state->first_sample * d->sample_elements + e);
    uint32_t draw = mz_rng_u32(d->state->seed, d->site, d->state->step, element);
    return draw >= mz_dropout_threshold(d->p) ? 1.0 / (1.0 - (double)d->p) : 0.0;
}

#endif
