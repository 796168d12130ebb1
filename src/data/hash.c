#include "data/hash.h"

#include <string.h>

/* Folded 128-bit product: each bit of the word reaches each bit of the result. */
static uint64_t mix(uint64_t a, uint64_t b)
{
    const unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

uint64_t mz_hash64(uint64_t seed, const void *data, size_t bytes)
{
    const uint64_t odd1 = 0x9e3779b97f4a7c15u, odd2 = 0xd6e8feb86659fd93u;
    const char *p = data;
    uint64_t h = seed ^ mix(bytes ^ odd1, odd2), word;
    for (; bytes >= 8; p += 8, bytes -= 8) {
        memcpy(&word, p, 8);
        h = mix(h ^ word, odd1);
    }
    word = 0;
    memcpy(&word, p, bytes);
    return mix(h ^ word ^ odd2, odd1);
}
