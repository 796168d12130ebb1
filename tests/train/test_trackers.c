/* metrics.jsonl across a resume, and event files that read back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"
#include "train/trackers.h"

static char folder[] = "/tmp/mpizero-trackers.XXXXXX";

static int make_folder(void **state)
{
    (void)state;
    strcpy(folder + strlen(folder) - 6, "XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int drop_folder(void **state)
{
    (void)state;
    return mz_remove_tree(folder) == MZ_OK ? 0 : -1;
}

static void put_steps(int64_t resumed, int64_t from, int64_t to, double loss)
{
    const mz_config config = {0};
    mz_trackers *trackers = NULL;
    assert_int_equal(mz_trackers_create(folder, &config, true, resumed, &trackers), MZ_OK);
    for (int64_t step = from; step <= to; step++) {
        const mz_metrics metrics = {.step = step, .loss = loss, .grad_norm = step == 2 ? INFINITY : 1};
        mz_trackers_put(trackers, &metrics);
    }
    mz_trackers_destroy(trackers);
}

static char *read_metrics(void)
{
    char *path = mz_path_join(folder, "metrics.jsonl"), *text = NULL;
    size_t bytes = 0;
    assert_int_equal(mz_file_read(path, &text, &bytes), MZ_OK);
    mz_free(path);
    return text;
}

static int count(const char *text, const char *word)
{
    int n = 0;
    while ((text = strstr(text, word))) {
        n++;
        text++;
    }
    return n;
}

static void lost_steps_are_dropped(void **state)
{
    (void)state;
    put_steps(0, 1, 6, 4.5);
    char *path = mz_path_join(folder, "metrics.jsonl");
    FILE *torn = fopen(path, "a");
    fputs("{\"step\":7,\"lo", torn);
    fclose(torn);
    mz_free(path);
    put_steps(4, 5, 8, 3.25);
    char *text = read_metrics();
    assert_int_equal(count(text, "\n"), 8);
    assert_int_equal(count(text, "\"loss\":4.5"), 4);
    assert_int_equal(count(text, "\"loss\":3.25"), 4);
    assert_int_equal(count(text, "\"grad_norm\":null"), 1);
    mz_free(text);
    put_steps(0, 1, 2, 1.5); /* a new run in the same folder starts over */
    text = read_metrics();
    assert_int_equal(count(text, "\n"), 2);
    mz_free(text);
}

static uint32_t unmask(uint32_t masked)
{
    uint32_t rotated = masked - 0xa282ead8u;
    return rotated >> 17 | rotated << 15;
}

static void event_files_hold_whole_records(void **state)
{
    (void)state;
    put_steps(0, 1, 5, 2.5);
    char *events = mz_path_join(folder, "tensorboard");
    DIR *dir = opendir(events);
    struct dirent *entry;
    int n_records = 0, n_tags = 0;
    while ((entry = readdir(dir))) {
        if (!strstr(entry->d_name, "tfevents"))
            continue;
        char *path = mz_path_join(events, entry->d_name), *data = NULL;
        size_t bytes = 0;
        assert_int_equal(mz_file_read(path, &data, &bytes), MZ_OK);
        for (size_t at = 0; at < bytes;) {
            uint64_t length;
            uint32_t crc;
            memcpy(&length, data + at, 8);
            memcpy(&crc, data + at + 8, 4);
            assert_int_equal(unmask(crc), mz_crc32c(0, data + at, 8));
            assert_true(at + 16 + length <= bytes);
            memcpy(&crc, data + at + 12 + length, 4);
            assert_int_equal(unmask(crc), mz_crc32c(0, data + at + 12, length));
            n_tags += memmem(data + at + 12, length, "train/loss", 10) != NULL;
            at += 16 + length;
            n_records++;
        }
        mz_free(data);
        mz_free(path);
    }
    closedir(dir);
    mz_free(events);
    assert_int_equal(n_records, 6); /* the version, then five steps */
    assert_int_equal(n_tags, 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(lost_steps_are_dropped, make_folder, drop_folder),
        cmocka_unit_test_setup_teardown(event_files_hold_whole_records, make_folder, drop_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
