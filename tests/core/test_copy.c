#include "tests/core/cmocka_all.h"

#include <stdlib.h>
#include <string.h>

#include "core/copy.h"

enum { MARGIN = 128 };

/* Every byte arrives and none beside them is touched, at any alignment of both ends. */
static void copies_exactly(void **state)
{
    (void)state;
    const size_t sizes[] = {0, 1, 1000, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, (1 << 20) + 63, 3000001};
    const size_t room = 3000001 + 2 * MARGIN;
    unsigned char *src = malloc(room), *dst = malloc(room), *expected = malloc(room);
    assert_true(src && dst && expected);
    for (size_t i = 0; i < room; i++)
        src[i] = (unsigned char)(i * 31 + (i >> 8));
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        for (size_t shift = 0; shift < 70; shift += 23) {
            memset(dst, 0xee, room);
            memset(expected, 0xee, room);
            memcpy(expected + shift, src + 2 * shift / 3, sizes[s]);
            mz_copy_large(dst + shift, src + 2 * shift / 3, sizes[s]);
            assert_memory_equal(dst, expected, room);
        }
    }
    free(src);
    free(dst);
    free(expected);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(copies_exactly)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
