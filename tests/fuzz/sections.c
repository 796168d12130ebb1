#include <string.h>

#include "tests/fuzz/fuzz.h"

void fuzz_cut(const uint8_t *data, size_t bytes, fuzz_section *sections, int n)
{
    static const char mark[] = "====\n";
    const char *p = (const char *)data, *end = p + bytes;
    for (int i = 0; i < n; i++) {
        sections[i] = (fuzz_section){NULL, 0};
        if (!p)
            continue;
        const char *found = i + 1 < n ? memmem(p, (size_t)(end - p), mark, sizeof mark - 1) : NULL;
        sections[i] = (fuzz_section){p, (size_t)((found ? found : end) - p)};
        p = found ? found + sizeof mark - 1 : NULL;
    }
}
