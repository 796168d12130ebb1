/* UTF-8: well-formed text only (no surrogates, nothing overlong, nothing past U+10FFFF). */
#ifndef MZ_DATA_UTF8_H
#define MZ_DATA_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes from the start of `text` that are whole, well-formed characters; `bytes` when all are. */
size_t mz_utf8_valid_prefix(const char *text, size_t bytes);

/* Length in bytes (1..4) of the well-formed character at `text`, its code point in *code; 0 when it is not one. */
int mz_utf8_decode(const char *text, size_t bytes, uint32_t *code);

/* Writes a code point, at most 4 bytes; returns their number. */
int mz_utf8_encode(uint32_t code, char *text);

/* Unicode's White_Space property. */
bool mz_utf8_is_blank(uint32_t code);

#endif
