#include "core/copy.h"

#include <stdint.h>
#include <string.h>

#ifdef __SSE2__
#include <emmintrin.h>

enum { LINE = 64, AHEAD = 512 };
static const size_t worthwhile = (size_t)1 << 20;

/* dst is aligned to a line, bytes a multiple of one. */
static void stream_lines(char *dst, const char *src, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += LINE) {
        _mm_prefetch(src + i + AHEAD, _MM_HINT_NTA);
        for (size_t part = 0; part < LINE; part += 16)
            _mm_stream_si128((__m128i *)(dst + i + part), _mm_loadu_si128((const __m128i *)(src + i + part)));
    }
    _mm_sfence();
}

void mz_copy_large(void *dst, const void *src, size_t bytes)
{
    if (bytes < worthwhile) {
        memcpy(dst, src, bytes);
        return;
    }
    const size_t head = (LINE - (uintptr_t)dst % LINE) % LINE, lines = (bytes - head) / LINE * LINE;
    memcpy(dst, src, head);
    stream_lines((char *)dst + head, (const char *)src + head, lines);
    memcpy((char *)dst + head + lines, (const char *)src + head + lines, bytes - head - lines);
}

#else

void mz_copy_large(void *dst, const void *src, size_t bytes)
{
    memcpy(dst, src, bytes);
}

#endif
