/* Counter-based random numbers: Philox4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random numbers:
 * as easy as 1, 2, 3", SC 2011). A draw is a pure function of (seed, site, step, element), so that
 * recomputation, another number of ranks and a resume draw the same numbers. */
#ifndef MZ_CORE_RNG_H
#define MZ_CORE_RNG_H

#include <stdint.h>

/* Ten rounds of Philox4x32: out = bijection of counter under key. */
static inline void mz_philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* The four draws of elements 4*block .. 4*block+3 at (seed, site, step). `site` names the place of
 * the draw (unit and operation); `step` the optimiser step. */
static inline void mz_rng_block(uint64_t seed, uint32_t site, uint64_t step, uint64_t block, uint32_t out[4])
{
    const uint32_t counter[4] = {(uint32_t)block, (uint32_t)(block >> 32), site, (uint32_t)step};
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32) ^ (uint32_t)(step >> 32)};
    mz_philox4x32(counter, key, out);
}

/* The single draw of `element`: word element%4 of block element/4. */
static inline uint32_t mz_rng_u32(uint64_t seed, uint32_t site, uint64_t step, uint64_t element)
{
    uint32_t out[4];
    mz_rng_block(seed, site, step, element / 4, out);
    return out[element % 4];
}

/* Maps a draw to the open interval (0, 1): 23 bits and a half, the most that fp32 holds without rounding to 1. */
static inline float mz_rng_uniform(uint32_t draw)
{
    return ((float)(draw >> 9) + 0.5f) * (1.0f / 8388608.0f);
}

/* 32-bit hash of a name (FNV-1a), to make a site from "transformer.h.3" and an operation's index. */
uint32_t mz_rng_site(const char *name, uint32_t index);

/* dst[i] = normal(0, 1) of element first+i, i < n, by Box-Muller over pairs of elements (2j, 2j+1);
 * the same values whatever range they are asked in. */
void mz_rng_fill_normal(uint64_t seed, uint32_t site, int64_t first, int64_t n, float *dst);

/* A uniformly random permutation of 0..n-1 as a function, in O(1) memory: position i of the
 * permutation of (seed, epoch). A four-round Feistel network with cycle walking. */
int64_t mz_rng_permute(uint64_t seed, uint64_t epoch, int64_t n, int64_t i);

#endif
