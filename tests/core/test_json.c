#include "tests/core/cmocka_all.h"

#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "core/memory.h"
#include "core/rng.h"

static mz_status parse(const char *text, mz_json *json)
{
    return mz_json_parse("f.json", text, strlen(text), json);
}

static void extras_of_hjson(void **state)
{
    static const char text[] = "\xef\xbb\xbf{ // a comment, with a comma\n"
                               "  # another {\n"
                               "  \"a\": [1, 2, /* inside */ 3,],\n"
                               "  /* over\n lines */ \"url\": \"http://x/#y\", \"esc\": \"\\\"//\",\n"
                               "  \"o\": {\"x\": true,\n },\n"
                               "}\n# the end";
    mz_json json;
    (void)state;
    assert_int_equal(parse(text, &json), MZ_OK);
    assert_int_equal(json_array_size(json_object_get(json.root, "a")), 3);
    assert_string_equal(json_string_value(json_object_get(json.root, "url")), "http://x/#y");
    assert_string_equal(json_string_value(json_object_get(json.root, "esc")), "\"//");
    assert_int_equal(mz_json_line(&json, "url"), 5);
    assert_int_equal(mz_json_line(&json, "o.x"), 6);
    mz_json_free(&json);
    mz_json_free(&json); /* harmless */
}

/* Integers beyond 64 bits are real numbers; those that fit stay exact. */
static void huge_integers(void **state)
{
    mz_json json;
    (void)state;
    assert_int_equal(parse("{\"a\": 1000000000000000019884624838656, \"b\": 9223372036854775807, "
                           "\"c\": -9223372036854775809, \"d\": \"99999999999999999999\"}",
                           &json),
                     MZ_OK);
    assert_true(json_real_value(json_object_get(json.root, "a")) == 1e30);
    assert_true(json_integer_value(json_object_get(json.root, "b")) == INT64_MAX);
    assert_true(json_real_value(json_object_get(json.root, "c")) <= -9.2e18);
    assert_string_equal(json_string_value(json_object_get(json.root, "d")), "99999999999999999999");
    mz_json_free(&json);
}

/* A fraction may have more digits than an integer can. */
static void long_fractions(void **state)
{
    mz_json json;
    (void)state;
    assert_int_equal(
        parse("[0.00029999999999999997, -1.12345678901234567890e-7, 1.5e+0000000000000000000001]", &json), MZ_OK);
    assert_true(json_real_value(json_array_get(json.root, 0)) == 0.00029999999999999997);
    assert_true(json_real_value(json_array_get(json.root, 1)) == -1.12345678901234567890e-7);
    assert_true(json_real_value(json_array_get(json.root, 2)) == 15);
    mz_json_free(&json);
}

static void lines_of_values(void **state)
{
    static const char text[] = "{\n\"a\": {\"b\": 1,\n\"c\": [10,\n20, {\"d\":\n null}]},\n\"a.b\": {\"c\": 5},\n"
                               "\"zero\" :\n\n {\"stage\": 3}}";
    static const struct {
        const char *path;
        int line;
    } cases[] = {{"a", 2},    {"a.b", 2}, {"a.c", 3}, {"a.c.0", 3}, {"a.c.1", 4}, {"a.c.2.d", 5},    {"a.b.c", 6},
                 {"zero", 9}, {"", 1},    {"b", 0},   {"a.x", 0},   {"a.c.3", 0}, {"zero.stage", 9}, {"zer", 0}};
    mz_json json;
    (void)state;
    assert_int_equal(parse(text, &json), MZ_OK);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(mz_json_line(&json, cases[i].path), cases[i].line);
    mz_json_free(&json);
}

static void errors_have_lines(void **state)
{
    static const struct {
        const char *text, *expected;
    } cases[] = {
        {"", "f.json:1: not valid JSON"},
        {"{\n\"a\": 1\n\"b\": 2}", "f.json:3:"},
        {"{\"a\": 1,\n\n\"a\": 2}", "f.json:3: not valid JSON: duplicate"},
        {"{\n\n\"a\": 1,,}", "f.json:3:"},
        {"[,]", "f.json:1:"},
        {"{,}", "f.json:1:"},
        {"{\"a\": 1} x", "f.json:1:"},
        {"{\n\"a\": /* never ends", "f.json:2:"},
        {"{\n\"a\": \"never\nends\"}", "f.json:2:"},
        {"{\"a\": 1e999}", "f.json:1:"},
        {"{\"a\": \"\xff\"}", "f.json:1:"},
        {"{\n\"a\": nul}", "f.json:2:"},
        {"\"a string\"", "f.json:1:"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mz_json json;
        assert_int_equal(parse(cases[i].text, &json), MZ_ERR_CONFIG);
        if (!strstr(mz_last_error(), cases[i].expected))
            fail_msg("case %zu: expected \"%s\" in \"%s\"", i, cases[i].expected, mz_last_error());
    }
}

/* jansson alone would take the first of these and lose what stands behind the zero byte. */
static void zero_bytes(void **state)
{
    static const char after_number[] = "{\"a\": 8\0,\n\"b\": 1}", between[] = "{\n\0\"a\": 8}";
    static const char in_comment[] = "{\"a\": 8, # \0\n\"b\": 1}";
    mz_json json;
    (void)state;
    assert_int_equal(mz_json_parse("f.json", after_number, sizeof after_number - 1, &json), MZ_ERR_CONFIG);
    assert_non_null(strstr(mz_last_error(), "f.json:1: not valid JSON: a zero byte"));
    assert_int_equal(mz_json_parse("f.json", between, sizeof between - 1, &json), MZ_ERR_CONFIG);
    assert_non_null(strstr(mz_last_error(), "f.json:2:"));
    assert_int_equal(mz_json_parse("f.json", in_comment, sizeof in_comment - 1, &json), MZ_OK);
    assert_int_equal(mz_json_line(&json, "b"), 2);
    mz_json_free(&json);
}

static void depth_is_limited(void **state)
{
    enum { DEEP = 100000 };
    char *text = malloc(2 * DEEP + 1);
    mz_json json;
    (void)state;
    text[0] = '\n';
    memset(text + 1, '[', DEEP);
    assert_int_equal(mz_json_parse("f.json", text, DEEP, &json), MZ_ERR_CONFIG);
    assert_non_null(strstr(mz_last_error(), "f.json:2: nested more than"));
    memset(text, '[', 100);
    memset(text + 100, ']', 100);
    assert_int_equal(mz_json_parse("f.json", text, 200, &json), MZ_OK);
    mz_json_free(&json);
    free(text);
}

static void reading_a_file(void **state)
{
    mz_json json;
    (void)state;
    assert_int_equal(mz_json_read("/nonexistent/x.json", &json), MZ_ERR_IO);
    assert_non_null(strstr(mz_last_error(), "/nonexistent/x.json"));
}

/* Any bytes: an error or a value, and never a crash. */
static void any_bytes(void **state)
{
    static const char alphabet[] = "{}[]\",:#/*\\ \n\t10e-.truefalsn\xc3\xa9\xff";
    char text[64];
    (void)state;
    for (uint64_t round = 0; round < 20000; round++) {
        const size_t bytes = mz_rng_u32(1, 0, round, 99) % sizeof text;
        for (size_t i = 0; i < bytes; i++)
            text[i] = alphabet[mz_rng_u32(1, 0, round, i) % sizeof alphabet];
        mz_json json;
        if (mz_json_parse("f", text, bytes, &json) == MZ_OK) {
            mz_json_line(&json, "a.0");
            mz_json_free(&json);
        }
    }
}

static void allocation_failures(void **state)
{
    (void)state;
    for (long n = 1;; n++) {
        mz_json json;
        mz_memory_fail_at(n);
        const mz_status status = parse("{\"a\": 1}", &json);
        mz_memory_fail_at(0);
        if (status == MZ_OK) {
            assert_true(n > 2);
            mz_json_free(&json);
            return;
        }
        assert_int_equal(status, MZ_ERR_MEMORY);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(extras_of_hjson),   cmocka_unit_test(huge_integers),
        cmocka_unit_test(long_fractions),    cmocka_unit_test(lines_of_values),
        cmocka_unit_test(errors_have_lines), cmocka_unit_test(zero_bytes),
        cmocka_unit_test(depth_is_limited),  cmocka_unit_test(reading_a_file),
        cmocka_unit_test(any_bytes),         cmocka_unit_test(allocation_failures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
