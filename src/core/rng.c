#include "core/rng.h"

#include <string.h>

#include "core/rng_normal.h"

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

void mz_rng_fill_normal(uint64_t seed, uint32_t site, int64_t first, int64_t n, float *dst)
{
    const mz_normal_set *set = mz_normal_set_at(0);
    const int64_t end = first + n;
    for (int64_t at = first - first % 4; at < end; at += MZ_NORMAL_ELEMENTS) {
        float z[MZ_NORMAL_ELEMENTS];
        set->fill(seed, site, (uint64_t)at / 4, z);
        const int64_t from = at < first ? first : at;
        const int64_t to = at + MZ_NORMAL_ELEMENTS < end ? at + MZ_NORMAL_ELEMENTS : end;
        if (from < to)
            memcpy(dst + (from - first), z + (from - at), (size_t)(to - from) * sizeof *dst);
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
