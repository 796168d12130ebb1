/* Which block each rank sees when: a pure function of seed, epoch and step, so that a resume goes on at the exact sample, with
 * any number of ranks. */
#ifndef MZ_DATA_SAMPLER_H
#define MZ_DATA_SAMPLER_H

#include <stdbool.h>
#include <stdint.h>

typedef struct mz_sampler {
    int64_t n_samples;
    uint64_t seed;
    bool shuffle;
    bool drop_last;        /* else the last, shorter global batch of an epoch is filled from the epoch's start */
    int64_t global_batch;  /* samples per optimiser step */
} mz_sampler;

/* Optimiser steps in one epoch. */
int64_t mz_sampler_steps_per_epoch(const mz_sampler *sampler);
/* The sample at position p (0 .. global_batch-1) of the global batch of optimiser step `step` (0 = first).
 * Rank r of n takes in micro-step a, slot i the position (a * n + r) * micro_batch + i. */
int64_t mz_sampler_at(const mz_sampler *sampler, int64_t step, int64_t position);
/* Epochs done after `step` steps, as a real number. */
double mz_sampler_epoch(const mz_sampler *sampler, int64_t step);

#endif
