#include "tests/core/cmocka_all.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/error.h"
#include "core/log.h"
#include "core/memory.h"

static void blocks(void **state)
{
    (void)state;
    unsigned char *p = mz_calloc(10, 10);
    for (int i = 0; i < 100; i++)
        assert_int_equal(p[i], 0);
    p = mz_realloc(p, 1000);
    mz_free(p);
    p = mz_alloc(0);
    assert_non_null(p);
    mz_free(p);
    mz_free(NULL);
    static const size_t sizes[] = {0, 1, 63, 64, 65, 5 << 20};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        p = mz_alloc_aligned(sizes[i]);
        assert_int_equal((uintptr_t)p % 64, 0);
        memset(p, 1, sizes[i]);
        mz_free(p);
    }
    char *s = mz_strprintf("%d-%s", 12, "x");
    assert_string_equal(s, "12-x");
    mz_free(s);
}

static void too_much(void **state)
{
    (void)state;
    assert_null(mz_calloc(SIZE_MAX / 2, 3));
    assert_null(mz_alloc_aligned(SIZE_MAX - 10));
    assert_non_null(strstr(mz_last_error(), "out of memory"));
}

static void the_nth_fails_once(void **state)
{
    (void)state;
    mz_memory_fail_at(2);
    void *first = mz_alloc(8), *second = mz_alloc(8), *third = mz_strdup("x");
    assert_non_null(first);
    assert_null(second);
    assert_non_null(third);
    assert_int_equal(mz_memory_fail_at(0), 3);
    mz_free(first);
    mz_free(third);
}

static void sizes_of_this_process(void **state)
{
    (void)state;
    const size_t resident = mz_memory_resident(), peak = mz_memory_peak(), total = mz_memory_total();
    assert_true(resident > 100000 && peak >= resident && total > peak);
}

static void messages(void **state)
{
    (void)state;
    errno = ENOENT;
    assert_int_equal(mz_fail_errno(MZ_ERR_IO, "x%d", 1), MZ_ERR_IO);
    assert_string_equal(mz_last_error(), "x1: No such file or directory");
    assert_string_equal(mz_status_text(MZ_ERR_IO), "input or output failed");
    assert_string_equal(mz_status_text((mz_status)999), "unknown status");
    assert_int_equal(mz_fail_adopt(MZ_ERR_PEER, "rank 2: 100%"), MZ_ERR_PEER);
    assert_string_equal(mz_last_error(), "rank 2: 100%");
}

/* What a call writes to standard error. */
static void capture(void (*call)(void), char *text, size_t room)
{
    FILE *file = tmpfile();
    const int saved = dup(STDERR_FILENO);
    dup2(fileno(file), STDERR_FILENO);
    call();
    dup2(saved, STDERR_FILENO);
    close(saved);
    rewind(file);
    text[fread(text, 1, room - 1, file)] = '\0';
    fclose(file);
}

static void log_lines(void)
{
    char long_text[6000];
    memset(long_text, 'x', sizeof long_text - 1);
    long_text[sizeof long_text - 1] = '\0';
    mz_log(MZ_LOG_INFO, "plain");
    mz_log(MZ_LOG_DEBUG, "hidden");
    mz_log_set_rank(1, 4);
    mz_log_root(MZ_LOG_ERROR, "not the root");
    mz_warn_once("key", "not the root");
    mz_log(MZ_LOG_ERROR, "bad");
    mz_log_set_rank(0, 4);
    mz_warn_once("key", "once");
    mz_warn_once("key", "once");
    mz_log(MZ_LOG_INFO, "%s", long_text);
    mz_log_set_rank(0, 1);
}

static void logging(void **state)
{
    char text[8000];
    mz_log_level level;
    (void)state;
    capture(log_lines, text, sizeof text);
    const char start[] = "plain\n[1] error: bad\n[0] warning: once\n[0] xxx";
    assert_memory_equal(text, start, sizeof start - 1);
    assert_int_equal(text[strlen(text) - 1], '\n');
    assert_true(mz_log_level_from_name("debug", &level) && level == MZ_LOG_DEBUG);
    assert_false(mz_log_level_from_name("loud", &level));
}

static void clock_goes_forward(void **state)
{
    (void)state;
    const double t = mz_clock_seconds();
    assert_true(mz_clock_seconds() >= t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks),
        cmocka_unit_test(too_much),
        cmocka_unit_test(the_nth_fails_once),
        cmocka_unit_test(sizes_of_this_process),
        cmocka_unit_test(messages),
        cmocka_unit_test(logging),
        cmocka_unit_test(clock_goes_forward),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
