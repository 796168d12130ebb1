/* CRC-32C: the polynomial 0x1EDC6F41, bits reflected, as in RFC 3720. */
#include "core/crc32c.h"

#include <pthread.h>
#include <stdbool.h>
#include <string.h>

#include "core/file.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* Slicing by eight: tables[k][b] is the remainder of byte b with k zero bytes after it. */
static uint32_t tables[8][256];
static pthread_once_t tables_once = PTHREAD_ONCE_INIT;

static void make_tables(void)
{
    for (uint32_t b = 0; b < 256; b++) {
        uint32_t crc = b;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1u ? 0x82f63b78u : 0u);
        tables[0][b] = crc;
    }
    for (int k = 1; k < 8; k++) {
        for (int b = 0; b < 256; b++)
            tables[k][b] = tables[k - 1][b] >> 8 ^ tables[0][tables[k - 1][b] & 0xffu];
    }
}

uint32_t mz_crc32c_plain(uint32_t crc, const void *data, size_t bytes)
{
    const uint8_t *p = data;
    crc = ~crc;
    pthread_once(&tables_once, make_tables);
    for (; bytes >= 8; p += 8, bytes -= 8) {
        crc ^= (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
        crc = tables[7][crc & 0xffu] ^ tables[6][crc >> 8 & 0xffu] ^ tables[5][crc >> 16 & 0xffu] ^
              tables[4][crc >> 24] ^ tables[3][p[4]] ^ tables[2][p[5]] ^ tables[1][p[6]] ^ tables[0][p[7]];
    }
    while (bytes-- > 0)
        crc = crc >> 8 ^ tables[0][(crc ^ *p++) & 0xffu];
    return ~crc;
}

#if defined(__x86_64__)

#define SSE42 __attribute__((target("sse4.2,pclmul")))

static inline uint64_t load64(const uint8_t *p)
{
    uint64_t word;
    memcpy(&word, p, sizeof word);
    return word;
}

/* crc with zero bytes after it, whose number the constant stands for: constant = x^(8 bytes - 33) mod P,
 * reflected. The carry-less product has 63 bits; the crc instruction reduces it and multiplies by the
 * x^33 that the constant left out. */
SSE42 static inline uint64_t shift_crc(uint64_t crc, uint32_t constant)
{
    const __m128i product =
        _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)crc), _mm_cvtsi64_si128((long long)constant), 0);
    return _mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(product));
}

/* The instruction takes three cycles but starts each cycle: three independent streams keep it busy.
 * Takes 3 * `stream` bytes; the constants move a remainder on by one and by two streams. */
SSE42 static uint64_t crc_three(uint64_t crc, const uint8_t *p, size_t stream, uint32_t by_one, uint32_t by_two)
{
    uint64_t a = crc, b = 0, c = 0;
    for (size_t i = 0; i < stream; i += 8) {
        a = _mm_crc32_u64(a, load64(p + i));
        b = _mm_crc32_u64(b, load64(p + stream + i));
        c = _mm_crc32_u64(c, load64(p + 2 * stream + i));
    }
    return shift_crc(a, by_two) ^ shift_crc(b, by_one) ^ c;
}

SSE42 static uint32_t crc_sse42(uint32_t start, const uint8_t *p, size_t bytes)
{
    enum { LONG = 4096, SHORT = 256 };
    uint64_t crc = start;
    for (; bytes >= 3 * LONG; p += 3 * LONG, bytes -= 3 * LONG)
        crc = crc_three(crc, p, LONG, 0x82f89c77u, 0x54a86326u);
    for (; bytes >= 3 * SHORT; p += 3 * SHORT, bytes -= 3 * SHORT)
        crc = crc_three(crc, p, SHORT, 0xb9e02b86u, 0xdd7e3b0cu);
    for (; bytes >= 8; p += 8, bytes -= 8)
        crc = _mm_crc32_u64(crc, load64(p));
    while (bytes-- > 0)
        crc = _mm_crc32_u8((uint32_t)crc, *p++);
    return (uint32_t)crc;
}

static uint32_t crc_of_words(uint32_t crc, const void *data, size_t bytes)
{
    return ~crc_sse42(~crc, data, bytes);
}

/* Folding (Gopal et al., "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ Instruction", Intel 2009):
 * each 16 bytes are a polynomial that is carried on by as many bytes as one turn of the loop takes, which leaves
 * its remainder as it is. Bits being reflected, a carry-less product has a factor x too many, so that the constants
 * are x^(bits + 63) mod P for the lower half, whose powers are the higher ones, and x^(bits - 1) mod P for the
 * upper. */
#define AVX512 __attribute__((target("sse4.2,pclmul,avx512f,vpclmulqdq")))

enum { N_FOLDS = 8, FOLD = 64 * N_FOLDS }; /* so many independent ones keep the multiplier busy */

AVX512 static inline __m512i fold(__m512i sum, __m512i constants, __m512i next)
{
    return _mm512_ternarylogic_epi64(_mm512_clmulepi64_epi128(sum, constants, 0x00),
                                     _mm512_clmulepi64_epi128(sum, constants, 0x11), next, 0x96);
}

AVX512 static inline __m512i pair(uint64_t upper, uint64_t lower)
{
    return _mm512_broadcast_i32x4(_mm_set_epi64x((long long)upper, (long long)lower));
}

AVX512 static inline void start(__m512i sums[N_FOLDS], uint64_t crc, const uint8_t *p)
{
    for (int i = 0; i < N_FOLDS; i++)
        sums[i] = _mm512_loadu_si512(p + 64 * i);
    sums[0] = _mm512_xor_si512(sums[0], _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)crc)));
}

/* The remainder of what the sums stand for: all carried on to the last, and that taken as bytes. */
AVX512 static inline uint64_t remainder_of(const __m512i sums[N_FOLDS])
{
    const __m512i constants = pair(0x75bba45b00000000u, 0x1c19243b00000000u);
    uint8_t rest[64];
    __m512i sum = sums[0];
    for (int i = 1; i < N_FOLDS; i++)
        sum = fold(sum, constants, sums[i]);
    _mm512_storeu_si512(rest, sum);
    return crc_sse42(0, rest, sizeof rest);
}

AVX512 static uint32_t crc_folded(uint32_t crc, const void *data, size_t bytes)
{
    const __m512i constants = pair(0xe986c14800000000u, 0x75bda45400000000u);
    const uint8_t *p = data;
    uint64_t sum = ~crc;
    __m512i sums[N_FOLDS];
    if (bytes >= 2 * FOLD) {
        start(sums, sum, p);
        for (p += FOLD, bytes -= FOLD; bytes >= FOLD; p += FOLD, bytes -= FOLD)
#pragma GCC unroll 8
            for (int i = 0; i < N_FOLDS; i++)
                sums[i] = fold(sums[i], constants, _mm512_loadu_si512(p + 64 * i));
        sum = remainder_of(sums);
    }
    return ~crc_sse42((uint32_t)sum, p, bytes);
}

#endif

const mz_crc32c_form *mz_crc32c_form_at(int i)
{
    static const mz_crc32c_form forms[] = {
#if defined(__x86_64__)
        {"vpclmulqdq", crc_folded},
        {"sse4.2", crc_of_words},
#endif
        {"plain", mz_crc32c_plain},
    };
    const int n = sizeof forms / sizeof *forms;
#if defined(__x86_64__)
    const bool words = __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul");
    const bool folds = words && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("vpclmulqdq");
    i += folds ? 0 : words ? 1 : 2;
#endif
    return i < n ? &forms[i] : NULL;
}

uint32_t mz_crc32c(uint32_t crc, const void *data, size_t bytes)
{
    return mz_crc32c_form_at(0)->crc(crc, data, bytes);
}
