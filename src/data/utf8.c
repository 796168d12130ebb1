#include "data/utf8.h"

#include <string.h>

int mz_utf8_decode(const char *text, size_t bytes, uint32_t *code)
{
    /* by length: smallest code point, and the bits of the first byte that count */
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    const uint8_t *p = (const uint8_t *)text;
    if (bytes == 0)
        return 0;
    if (p[0] < 0x80) {
        *code = p[0];
        return 1;
    }
    const int length = (p[0] & 0xe0) == 0xc0 ? 2 : (p[0] & 0xf0) == 0xe0 ? 3 : (p[0] & 0xf8) == 0xf0 ? 4 : 0;
    if (length == 0 || (size_t)length > bytes)
        return 0;
    uint32_t c = p[0] & (0x7fu >> length);
    for (int i = 1; i < length; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (p[i] & 0x3fu);
    }
    if (c < least[length] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
        return 0;
    *code = c;
    return length;
}

int mz_utf8_encode(uint32_t code, char *text)
{
    const int length = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    static const uint8_t lead[5] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (int i = length - 1; i > 0; i--) {
        text[i] = (char)(0x80 | (code & 0x3f));
        code >>= 6;
    }
    text[0] = (char)(lead[length] | code);
    return length;
}

size_t mz_utf8_valid_prefix(const char *text, size_t bytes)
{
    size_t i = 0;
    while (i < bytes) {
        uint64_t word;
        uint32_t code;
        while (i + 8 <= bytes && (memcpy(&word, text + i, 8), (word & 0x8080808080808080u) == 0))
            i += 8;
        const int length = mz_utf8_decode(text + i, bytes - i, &code);
        if (length == 0)
            return i;
        i += (size_t)length;
    }
    return bytes;
}

bool mz_utf8_is_blank(uint32_t code)
{
    return (code >= 0x09 && code <= 0x0d) || code == 0x20 || code == 0x85 || code == 0xa0 || code == 0x1680 ||
           (code >= 0x2000 && code <= 0x200a) || code == 0x2028 || code == 0x2029 || code == 0x202f ||
           code == 0x205f || code == 0x3000;
}
