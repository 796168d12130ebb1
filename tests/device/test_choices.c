/* The cache of measured choices: the first choice counts, and a cache that cannot be used is none. */
#include "tests/core/cmocka_all.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"
#include "device/cuda/choices.h"

#define NAME "Some GPU/version 1"

static char folder[] = "/tmp/mpizero-choices.XXXXXX";

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) && setenv("MPIZERO_CACHE", folder, 1) == 0 ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    return mz_remove_tree(folder) == MZ_OK ? 0 : -1;
}

static void put(const char *key, const char *value, const char *kept)
{
    char word[32];
    snprintf(word, sizeof word, "%s", value);
    mz_choice_put(NAME, key, word, sizeof word);
    assert_string_equal(word, kept);
}

static void the_first_choice_counts(void **state)
{
    char value[32];
    (void)state;
    assert_false(mz_choice_get(NAME, "a", value, sizeof value));
    put("a", "1", "1");
    put("ab", "2", "2");
    put("a", "3", "1");
    assert_true(mz_choice_get(NAME, "a", value, sizeof value));
    assert_string_equal(value, "1");
    assert_true(mz_choice_get(NAME, "ab", value, sizeof value));
    assert_string_equal(value, "2");
    assert_false(mz_choice_get(NAME, "b", value, sizeof value));
    assert_false(mz_choice_get("another", "a", value, sizeof value));
}

/* A value that is too long, or whose line is not finished, is passed over. */
static void broken_lines_are_passed_over(void **state)
{
    static const char text[] = "c 0123456789012345678901234567890123456789\nc\nc \nc 5\nd 6";
    char *path = mz_path_join(folder, "Some-GPU-version-1"), value[32];
    (void)state;
    assert_int_equal(mz_file_write_atomic(path, text, strlen(text)), MZ_OK);
    assert_true(mz_choice_get(NAME, "c", value, sizeof value));
    assert_string_equal(value, "5");
    assert_false(mz_choice_get(NAME, "d", value, sizeof value));
    mz_free(path);
}

static void no_cache_is_no_failure(void **state)
{
    char value[32];
    (void)state;
    setenv("MPIZERO_CACHE", "/proc/no/such/folder", 1);
    put("e", "7", "7");
    assert_false(mz_choice_get(NAME, "e", value, sizeof value));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_choice_counts),
        cmocka_unit_test(broken_lines_are_passed_over),
        cmocka_unit_test(no_cache_is_no_failure),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
