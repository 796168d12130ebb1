#include "tests/core/cmocka_all.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/crc32c.h"
#include "core/file.h"
#include "core/memory.h"

static char folder[512];

static char *in_folder(const char *name)
{
    return mz_path_join(folder, name);
}

/* RFC 3720, appendix B.4, and the usual check value. */
static void crc_known_answers(void **state)
{
    uint8_t block[32];
    (void)state;
    assert_int_equal(mz_crc32c(0, "123456789", 9), 0xe3069283);
    assert_int_equal(mz_crc32c(0, "", 0), 0);
    memset(block, 0, sizeof block);
    assert_int_equal(mz_crc32c(0, block, sizeof block), 0x8a9136aa);
    memset(block, 0xff, sizeof block);
    assert_int_equal(mz_crc32c(0, block, sizeof block), 0x62a8ab43);
    for (int i = 0; i < 32; i++)
        block[i] = (uint8_t)i;
    assert_int_equal(mz_crc32c(0, block, sizeof block), 0x46dd794e);
    for (int i = 0; i < 32; i++)
        block[i] = (uint8_t)(31 - i);
    assert_int_equal(mz_crc32c(0, block, sizeof block), 0x113fdb5c);
}

/* The interleaved instruction, the tables and any cut into pieces agree. */
static void crc_of_pieces(void **state)
{
    enum { BYTES = 60000 };
    uint8_t *data = malloc(BYTES);
    (void)state;
    for (uint32_t i = 0; i < BYTES; i++)
        data[i] = (uint8_t)(i * 2654435761u >> 13);
    for (size_t n = 0; n < BYTES; n += n < 1700 ? 1 : 997) {
        const uint32_t expected = mz_crc32c_plain(0, data, n);
        const size_t cut = n / 3 + n % 2;
        assert_int_equal(mz_crc32c(0, data, n), expected);
        assert_int_equal(mz_crc32c(mz_crc32c(0, data, cut), data + cut, n - cut), expected);
    }
    free(data);
}

/* A bit at a time, straight from the definition. */
static uint32_t crc_of_bits(uint32_t crc, const uint8_t *data, size_t bytes)
{
    crc = ~crc;
    for (size_t i = 0; i < bytes; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1u ? 0x82f63b78u : 0u);
    }
    return ~crc;
}

/* Each form that this processor has, at odd sizes and addresses and from any CRC on. */
static void crc_forms(void **state)
{
    enum { BYTES = 20000 };
    uint8_t *data = malloc(BYTES);
    const mz_crc32c_form *form;
    (void)state;
    for (uint32_t i = 0; i < BYTES; i++)
        data[i] = (uint8_t)((i + 3) * 2654435761u >> 11);
    for (int f = 0; (form = mz_crc32c_form_at(f)); f++) {
        for (size_t n = 0; n < 4000; n++) {
            const size_t from = n * 7 % 131;
            assert_int_equal(form->crc((uint32_t)n * 77777u, data + from, n),
                             crc_of_bits((uint32_t)n * 77777u, data + from, n));
        }
        for (size_t n = 4000; n < BYTES - 200; n += 509)
            assert_int_equal(form->crc(0, data + n % 197, n), crc_of_bits(0, data + n % 197, n));
    }
    assert_non_null(mz_crc32c_form_at(0));
    free(data);
}

static void read_and_write(void **state)
{
    char *path = in_folder("file"), *temporary = in_folder("file.tmp"), *data;
    size_t bytes;
    (void)state;
    assert_int_equal(mz_file_write_atomic(path, "one", 3), MZ_OK);
    assert_int_equal(mz_file_write_atomic(path, "second\0x", 8), MZ_OK);
    assert_false(mz_path_exists(temporary));
    assert_int_equal(mz_file_read(path, &data, &bytes), MZ_OK);
    assert_int_equal(bytes, 8);
    assert_memory_equal(data, "second\0x", 9);
    mz_free(data);
    assert_int_equal(mz_file_sync(path), MZ_OK);
    assert_int_equal(mz_file_sync_parent(path), MZ_OK);

    mz_file_map map;
    assert_int_equal(mz_file_map_open(path, &map), MZ_OK);
    assert_int_equal(map.bytes, 8);
    assert_memory_equal(map.data, "second", 6);
    mz_file_map_close(&map);
    assert_int_equal(mz_file_write_atomic(path, "", 0), MZ_OK);
    assert_int_equal(mz_file_map_open(path, &map), MZ_OK);
    assert_null(map.data);
    mz_file_map_close(&map);
    mz_free(path);
    mz_free(temporary);
}

/* A failed write leaves the old file as it was, and nothing beside it. */
static void failed_write_keeps_the_old(void **state)
{
    char *path = in_folder("kept"), *blocked = in_folder("kept.tmp"), *data;
    size_t bytes;
    (void)state;
    assert_int_equal(mz_file_write_atomic(path, "old", 3), MZ_OK);
    assert_int_equal(mkdir(blocked, 0777), 0);
    assert_int_equal(mz_file_write_atomic(path, "new", 3), MZ_ERR_IO);
    assert_non_null(strstr(mz_last_error(), "kept.tmp"));
    assert_int_equal(rmdir(blocked), 0);
    assert_int_equal(mz_file_read(path, &data, &bytes), MZ_OK);
    assert_memory_equal(data, "old", 4);
    mz_free(data);

    char *under = mz_path_join(path, "below-a-file");
    assert_int_equal(mz_file_write_atomic(under, "x", 1), MZ_ERR_IO);
    mz_free(under);
    mz_free(path);
    mz_free(blocked);
}

static void reading_errors_name_the_path(void **state)
{
    char *data, *missing = in_folder("missing");
    size_t bytes;
    mz_file_map map;
    (void)state;
    assert_int_equal(mz_file_read(missing, &data, &bytes), MZ_ERR_IO);
    assert_non_null(strstr(mz_last_error(), missing));
    assert_int_equal(mz_file_read(folder, &data, &bytes), MZ_ERR_IO);
    assert_non_null(strstr(mz_last_error(), "found a folder"));
    assert_int_equal(mz_file_map_open(missing, &map), MZ_ERR_IO);
    assert_int_equal(mz_file_read("/proc/self/status", &data, &bytes), MZ_OK); /* says it has 0 bytes */
    assert_true(bytes > 100);
    mz_free(data);
    mz_free(missing);
}

static void folders(void **state)
{
    char *deep = in_folder("a/b//c/"), *top = in_folder("a"), *file = in_folder("a/b/file");
    char *outside = in_folder("outside"), *link_path = in_folder("a/link"), *below = in_folder("a/b/file/x");
    (void)state;
    assert_int_equal(mz_make_directories(deep), MZ_OK);
    assert_int_equal(mz_make_directories(deep), MZ_OK);
    assert_true(mz_path_exists(deep));
    assert_int_equal(mz_file_write_atomic(file, "x", 1), MZ_OK);
    assert_int_equal(mz_make_directories(below), MZ_ERR_IO);
    assert_int_equal(mz_make_directories(outside), MZ_OK);
    assert_int_equal(symlink(outside, link_path), 0);
    assert_int_equal(mz_remove_tree(top), MZ_OK);
    assert_false(mz_path_exists(top));
    assert_true(mz_path_exists(outside)); /* links are not followed */
    assert_int_equal(mz_remove_tree(top), MZ_OK);
    mz_free(deep);
    mz_free(top);
    mz_free(file);
    mz_free(outside);
    mz_free(link_path);
    mz_free(below);
}

static void joining(void **state)
{
    static const char *const cases[][3] = {
        {"a", "b", "a/b"}, {"a/", "b", "a/b"}, {"", "b", "b"}, {"a", "/b", "/b"}, {"/", "b", "/b"}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *joined = mz_path_join(cases[i][0], cases[i][1]);
        assert_string_equal(joined, cases[i][2]);
        mz_free(joined);
    }
}

static void allocation_failures(void **state)
{
    char *path = in_folder("swept"), *data;
    size_t bytes;
    (void)state;
    for (long n = 1;; n++) {
        mz_memory_fail_at(n);
        mz_status status = mz_file_write_atomic(path, "abc", 3);
        if (!status && (status = mz_file_read(path, &data, &bytes)) == MZ_OK)
            mz_free(data);
        mz_memory_fail_at(0);
        if (!status) {
            assert_true(n > 2);
            break;
        }
        assert_int_equal(status, MZ_ERR_MEMORY);
    }
    mz_free(path);
}

static int make_folder(void **state)
{
    const char *base = getenv("TMPDIR");
    (void)state;
    snprintf(folder, sizeof folder, "%s/mpizero-file-XXXXXX", base && *base ? base : "/tmp");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    return mz_remove_tree(folder) ? -1 : 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(crc_known_answers),
        cmocka_unit_test(crc_of_pieces),
        cmocka_unit_test(crc_forms),
        cmocka_unit_test(read_and_write),
        cmocka_unit_test(failed_write_keeps_the_old),
        cmocka_unit_test(reading_errors_name_the_path),
        cmocka_unit_test(folders),
        cmocka_unit_test(joining),
        cmocka_unit_test(allocation_failures),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
