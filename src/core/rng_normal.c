/* Box-Muller over many Philox blocks at once. The functions are evaluated here, not by the C library, whose last
 * bits depend on its version and on the processor; with separate multiplications and additions only, every machine
 * draws the same numbers. */
#include "core/rng_normal.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "core/rng.h"

#ifdef __clang__
#pragma STDC FP_CONTRACT OFF /* gcc does not contract in ISO C */
#endif

enum { LANES = MZ_NORMAL_BLOCKS };

/* Small functions that the compiler turns into vector code of whatever set the caller is compiled for. */
#define LANE static inline __attribute__((always_inline))

/* Natural logarithm of u in (0, 1), within 2 units in the last place: u = 2^e * (1 + f) with 1 + f from sqrt(1/2)
 * to sqrt(2), log(1 + f) = f + f^2 P(f). The coefficients are a minimax fit (relative error 4e-9). */
LANE float lane_log(float u)
{
    int32_t bits;
    memcpy(&bits, &u, sizeof bits);
    const int32_t e = (bits - 0x3f3504f3) >> 23;
    bits -= (int32_t)((uint32_t)e << 23);
    float m;
    memcpy(&m, &bits, sizeof m);
    const float f = m - 1.0f;
    float p = -0x1.38339ep-4f;
    p = p * f + 0x1.0849c0p-3f;
    p = p * f - 0x1.0f3756p-3f;
    p = p * f + 0x1.22715ep-3f;
    p = p * f - 0x1.542766p-3f;
    p = p * f + 0x1.99a3f6p-3f;
    p = p * f - 0x1.000426p-2f;
    p = p * f + 0x1.555550p-2f;
    p = p * f - 0x1.fffff8p-2f;
    const float scale = (float)e; /* ln 2 in two parts, the first exact times any exponent */
    return scale * 0x1.62e400p-1f + (f + (f * f * p + scale * 0x1.7f7d1cp-20f));
}

/* Sine and cosine of 2 pi v, v in (0, 1): the nearest quarter turn q, and the rest r of at most half a quarter. */
LANE void lane_turn(float v, float *sine, float *cosine)
{
    const float quarters = 4.0f * v;
    const int32_t q = (int32_t)(quarters + 0.5f);
    const float r = quarters - (float)q, t = r * r;
    const float s = r * (0x1.921fb6p+0f + t * (-0x1.4abbbap-1f + t * (0x1.465ec4p-4f + t * -0x1.2d9b30p-8f)));
    const float c =
        1.0f + t * (-0x1.3bd3ccp+0f + t * (0x1.03c1dcp-2f + t * (-0x1.55c578p-6f + t * 0x1.d9c290p-11f)));
    const float a = q & 1 ? c : s, b = q & 1 ? s : c;
    *sine = q & 2 ? -a : a;
    *cosine = (q + 1) & 2 ? -b : b;
}

/* mz_rng_block of LANES blocks, a round at a time over all of them: draws[w][k] is word w of block `block` + k. The
 * words are kept in 64 bits, as the products have them, so that nothing is packed between rounds. */
LANE void philox_lanes(uint64_t seed, uint32_t site, uint64_t block, uint32_t draws[4][LANES])
{
    uint64_t c0[LANES], c1[LANES], c2[LANES], c3[LANES];
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int k = 0; k < LANES; k++) {
        const uint64_t counter = block + (uint64_t)k;
        c0[k] = counter & 0xffffffffu;
        c1[k] = counter >> 32;
        c2[k] = site;
        c3[k] = 0;
    }
    for (int round = 0; round < 10; round++) {
        for (int k = 0; k < LANES; k++) {
            const uint64_t p0 = (c0[k] & 0xffffffffu) * 0xD2511F53u, p1 = (c2[k] & 0xffffffffu) * 0xCD9E8D57u;
            c0[k] = p1 >> 32 ^ c1[k] ^ k0;
            c2[k] = p0 >> 32 ^ c3[k] ^ k1;
            c1[k] = p1 & 0xffffffffu;
            c3[k] = p0 & 0xffffffffu;
        }
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    for (int k = 0; k < LANES; k++) {
        draws[0][k] = (uint32_t)c0[k];
        draws[1][k] = (uint32_t)c1[k];
        draws[2][k] = (uint32_t)c2[k];
        draws[3][k] = (uint32_t)c3[k];
    }
}

/* The same one block after another: faster where there are no wide registers. */
LANE void philox_blocks(uint64_t seed, uint32_t site, uint64_t block, uint32_t draws[4][LANES])
{
    for (int k = 0; k < LANES; k++) {
        uint32_t out[4];
        mz_rng_block(seed, site, 0, block + (uint64_t)k, out);
        for (int w = 0; w < 4; w++)
            draws[w][k] = out[w];
    }
}

typedef void (*draw_fn)(uint64_t seed, uint32_t site, uint64_t block, uint32_t draws[4][LANES]);
typedef void (*sqrt_fn)(float x[2 * LANES]);

LANE void fill(uint64_t seed, uint32_t site, uint64_t block, float *z, draw_fn draw, sqrt_fn square_root)
{
    uint32_t draws[4][LANES];
    float radius[2 * LANES], sine[2 * LANES], cosine[2 * LANES];
    draw(seed, site, block, draws);
    for (int k = 0; k < LANES; k++)
        radius[k] = -2.0f * lane_log(mz_rng_uniform(draws[0][k]));
    for (int k = 0; k < LANES; k++)
        radius[LANES + k] = -2.0f * lane_log(mz_rng_uniform(draws[2][k]));
    for (int k = 0; k < LANES; k++)
        lane_turn(mz_rng_uniform(draws[1][k]), &sine[k], &cosine[k]);
    for (int k = 0; k < LANES; k++)
        lane_turn(mz_rng_uniform(draws[3][k]), &sine[LANES + k], &cosine[LANES + k]);
    square_root(radius);
    for (int k = 0; k < LANES; k++) {
        z[4 * k] = radius[k] * cosine[k];
        z[4 * k + 1] = radius[k] * sine[k];
        z[4 * k + 2] = radius[LANES + k] * cosine[LANES + k];
        z[4 * k + 3] = radius[LANES + k] * sine[LANES + k];
    }
}

/* The compiler keeps to scalar square roots, for errno's sake; they are exact in every form. */
static void sqrt_plain(float x[2 * LANES])
{
    for (int k = 0; k < 2 * LANES; k++)
        x[k] = sqrtf(x[k]);
}

static void fill_plain(uint64_t seed, uint32_t site, uint64_t block, float *z)
{
    fill(seed, site, block, z, philox_blocks, sqrt_plain);
}

static const mz_normal_set plain = {"plain C", fill_plain};

#if defined(__x86_64__)

#define AVX2 __attribute__((target("avx2")))

AVX2 static inline void sqrt_avx2(float x[2 * LANES])
{
    for (int k = 0; k < 2 * LANES; k += 8)
        _mm256_storeu_ps(x + k, _mm256_sqrt_ps(_mm256_loadu_ps(x + k)));
}

AVX2 static void fill_avx2(uint64_t seed, uint32_t site, uint64_t block, float *z)
{
    fill(seed, site, block, z, philox_lanes, sqrt_avx2);
}

static const mz_normal_set avx2 = {"AVX2", fill_avx2};

#define AVX512 __attribute__((target("avx512f,avx512dq")))

AVX512 static inline void sqrt_avx512(float x[2 * LANES])
{
    for (int k = 0; k < 2 * LANES; k += 16)
        _mm512_storeu_ps(x + k, _mm512_sqrt_ps(_mm512_loadu_ps(x + k)));
}

AVX512 static void fill_avx512(uint64_t seed, uint32_t site, uint64_t block, float *z)
{
    fill(seed, site, block, z, philox_lanes, sqrt_avx512);
}

static const mz_normal_set avx512 = {"AVX-512", fill_avx512};

const mz_normal_set *mz_normal_set_at(int i)
{
    const mz_normal_set *sets[4] = {NULL};
    int n = 0;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq"))
        sets[n++] = &avx512;
    if (__builtin_cpu_supports("avx2"))
        sets[n++] = &avx2;
    sets[n++] = &plain;
    return i >= 0 && i < n ? sets[i] : NULL;
}

#else

const mz_normal_set *mz_normal_set_at(int i)
{
    return i == 0 ? &plain : NULL;
}

#endif
