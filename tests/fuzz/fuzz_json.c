/* Configuration files: comments, trailing commas, and the lines of keys. */
#include <string.h>

#include "core/json.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    mz_json json;
    if (mz_json_parse("input", (const char *)data, bytes, &json)) {
        FUZZ_REQUIRE(strncmp(mz_last_error(), "input:", 6) == 0); /* every complaint has its place */
        return 0;
    }
    int n_lines = 1;
    for (size_t i = 0; i < bytes; i++)
        n_lines += data[i] == '\n';
    static const char *const paths[] = {"", "a", "a.b", "a.0", "zero_optimization.stage", "0", "a.b.c.d"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        FUZZ_REQUIRE(mz_json_line(&json, paths[i]) <= n_lines);
    const char *key;
    json_t *value;
    json_object_foreach(json.root, key, value)
    {
        /* a key that is written as it is has a line; one with escapes may have none */
        if (*key && !memchr(data, '\\', bytes))
            FUZZ_REQUIRE(mz_json_line(&json, key) > 0);
    }
    mz_json_free(&json);
    return 0;
}
