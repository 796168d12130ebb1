#include "data/sampler.h"

#include "core/rng.h"

int64_t mz_sampler_steps_per_epoch(const mz_sampler *sampler)
{
    const int64_t whole = sampler->n_samples / sampler->global_batch;
    const bool rest = sampler->n_samples % sampler->global_batch != 0;
    return whole + (rest && (!sampler->drop_last || whole == 0));
}

int64_t mz_sampler_at(const mz_sampler *sampler, int64_t step, int64_t position)
{
    const int64_t steps = mz_sampler_steps_per_epoch(sampler);
    const int64_t epoch = step / steps;
    const int64_t place = (step % steps * sampler->global_batch + position) % sampler->n_samples;
    return sampler->shuffle ? mz_rng_permute(sampler->seed, (uint64_t)epoch, sampler->n_samples, place) : place;
}

double mz_sampler_epoch(const mz_sampler *sampler, int64_t step)
{
    return (double)step / (double)mz_sampler_steps_per_epoch(sampler);
}
