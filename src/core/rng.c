#include "core/rng.h"

#include <math.h>

uint32_t mz_rng_site(const char *name, uint32_t index)
{
    const uint32_t prime = 16777619u;
    uint32_t hash = 2166136261u;
    for (const char *p = name; *p; p++)
        hash = (hash ^ (unsigned char)*p) * prime;
    for (int shift = 0; shift < 32; shift += 8)
        hash = (hash ^ ((index >> shift) & 0xffu)) * prime;
    return hash;
}

/* Box-Muller: two uniform draws give two independent normal ones. */
static void normal_pair(uint32_t draw0, uint32_t draw1, float *z0, float *z1)
{
    const float radius = sqrtf(-2.0f * logf(mz_rng_uniform(draw0)));
    const float angle = 6.283185307179586f * mz_rng_uniform(draw1);
    float sine, cosine;
    sincosf(angle, &sine, &cosine);
    *z0 = radius * cosine;
    *z1 = radius * sine;
}

void mz_rng_fill_normal(uint64_t seed, uint32_t site, int64_t first, int64_t n, float *dst)
{
    for (int64_t block = first / 4; block * 4 < first + n; block++) {
        uint32_t draws[4];
        float z[4];
        mz_rng_block(seed, site, 0, (uint64_t)block, draws);
        normal_pair(draws[0], draws[1], &z[0], &z[1]);
        normal_pair(draws[2], draws[3], &z[2], &z[3]);
        for (int64_t k = 0; k < 4; k++) {
            const int64_t i = block * 4 + k - first;
            if (i >= 0 && i < n)
                dst[i] = z[k];
        }
    }
}

int64_t mz_rng_permute(uint64_t seed, uint64_t epoch, int64_t n, int64_t i)
{
    /* The network permutes 0 .. 4^half_bits - 1, at most 4n numbers; walking its cycle from i until it
     * comes back below n permutes 0 .. n-1. */
    int half_bits = 1;
    while (half_bits < 31 && (int64_t)1 << (2 * half_bits) < n)
        half_bits++;
    const uint32_t mask = (uint32_t)(((uint64_t)1 << half_bits) - 1);
    const uint32_t site = mz_rng_site("permute", 0);
    uint64_t x = (uint64_t)i;
    do {
        uint32_t left = (uint32_t)(x >> half_bits), right = (uint32_t)x & mask;
        for (uint32_t round = 0; round < 4; round++) {
            uint32_t out[4];
            mz_rng_block(seed, site, epoch, (uint64_t)round << 32 | right, out);
            const uint32_t next = left ^ (out[0] & mask);
            left = right;
            right = next;
        }
        x = (uint64_t)left << half_bits | right;
    } while (x >= (uint64_t)n);
    return (int64_t)x;
}
