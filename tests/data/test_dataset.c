#include "tests/core/cmocka_all.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <dirent.h>

#include "core/file.h"
#include "core/log.h"
#include "core/memory.h"
#include "core/rng.h"
#include "data/dataset.h"
#include "data/utf8.h"
#include "tests/data/scratch.h"

static mz_tokenizer *byte_tokenizer, *bpe_tokenizer;

static mz_dataset_options options_for(const char *path, const mz_tokenizer *tokenizer, int64_t block_size)
{
    return (mz_dataset_options){
        .path = path, .tokenizer = tokenizer, .block_size = block_size, .cache_folder = scratch_folder()};
}

static mz_dataset *open_or_fail(const mz_dataset_options *options, int64_t vocab)
{
    mz_dataset *dataset = NULL;
    if (mz_dataset_open(NULL, options, vocab, &dataset))
        fail_msg("%s", mz_last_error());
    return dataset;
}

static void expect_error(const mz_dataset_options *options, int64_t vocab, mz_status status, const char *expected)
{
    mz_dataset *dataset = NULL;
    assert_int_equal(mz_dataset_open(NULL, options, vocab, &dataset), status);
    assert_null(dataset);
    if (!strstr(mz_last_error(), expected))
        fail_msg("expected \"%s\" in \"%s\"", expected, mz_last_error());
}

/* The one cache in the scratch folder for a text file; owned by the caller. */
static char *find_cache(const char *base)
{
    char *found = NULL;
    DIR *folder = opendir(scratch_folder());
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        const char *end = strstr(entry->d_name, ".tokens");
        if (end && end[7] == '\0' && strncmp(entry->d_name, base, strlen(base)) == 0) {
            assert_null(found);
            found = scratch_path(entry->d_name);
        }
    }
    closedir(folder);
    assert_non_null(found);
    return found;
}

static void blocks_and_labels(void **state)
{
    char *path = scratch_write_text("alphabet.txt", "abcdefghijklmnopqrstuvwxyz");
    const mz_dataset_options options = options_for(path, byte_tokenizer, 4);
    mz_dataset *dataset = open_or_fail(&options, 257);
    int32_t ids[4], labels[4];
    (void)state;
    assert_int_equal(mz_dataset_n_tokens(dataset), 26);
    assert_int_equal(mz_dataset_n_blocks(dataset), 6); /* "yz" is dropped */
    assert_int_equal(mz_dataset_block_size(dataset), 4);
    for (int b = 0; b < 6; b++) {
        mz_dataset_block(dataset, b, ids, labels);
        for (int t = 0; t < 4; t++) {
            assert_int_equal(ids[t], 'a' + 4 * b + t);
            assert_int_equal(labels[t], t < 3 ? ids[t] + 1 : -100);
        }
    }
    mz_dataset_close(dataset);
    mz_dataset_close(NULL);
    mz_free(path);
}

static void held_out_split(void **state)
{
    static const struct {
        double fraction;
        int64_t held_out;
    } cases[] = {{0.1, 10}, {0.001, 1}, {0.255, 26}, {0.99, 99}};
    char text[1000];
    (void)state;
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (char)('0' + i / 10 % 10); /* 100 blocks of 10 */
    char *path = scratch_write("split.txt", text, sizeof text);
    mz_dataset_options options = options_for(path, byte_tokenizer, 10);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int32_t ids[10], labels[10];
        options.split_fraction = cases[i].fraction;
        options.held_out = false;
        mz_dataset *train = open_or_fail(&options, 0);
        options.held_out = true;
        mz_dataset *held_out = open_or_fail(&options, 0);
        assert_int_equal(mz_dataset_n_blocks(held_out), cases[i].held_out);
        assert_int_equal(mz_dataset_n_blocks(train), 100 - cases[i].held_out);
        assert_true(mz_dataset_fingerprint(train) != mz_dataset_fingerprint(held_out));
        mz_dataset_block(held_out, 0, ids, labels); /* the last blocks of the file */
        assert_int_equal(ids[0], '0' + (100 - cases[i].held_out) % 10);
        mz_dataset_close(train);
        mz_dataset_close(held_out);
    }
    options.split_fraction = 0.999;
    expect_error(&options, 0, MZ_ERR_DATA, "takes 100 of 100 blocks and leaves none to train on");
    options.block_size = 1000;
    options.split_fraction = 0.1;
    expect_error(&options, 0, MZ_ERR_DATA, "takes 1 of 1 blocks");
    options.split_fraction = 1;
    expect_error(&options, 0, MZ_ERR_ARGUMENT, "fraction from 0 to below 1");
    options.split_fraction = 0;
    expect_error(&options, 0, MZ_ERR_ARGUMENT, "held-out part");
    mz_free(path);
}

/* A text of several pieces gives the ids of one call over the whole. */
static void pieces_change_nothing(void **state)
{
    enum { BYTES = 9 << 20, BLOCK = 64 };
    static const char *const parts[] = {
        "the ranks ",     "share\n",       "\n", " \n", "\n\n\n", "don't ", "\xc2\xa0\n", "42\n",
        "\xe4\xbd\xa0\n", "<|endoftext|>", "\t", "  ",  "a\n",    "!\n",    "\r\n",       "weights"};
    char *text = mz_alloc(BYTES);
    size_t bytes = 0;
    (void)state;
    for (uint64_t i = 0; bytes + 16 < BYTES; i++) {
        const char *part = parts[mz_rng_u32(1, 1, 0, i) % (sizeof parts / sizeof *parts)];
        memcpy(text + bytes, part, strlen(part));
        bytes += strlen(part);
    }
    char *path = scratch_write("pieces.txt", text, bytes);
    const mz_dataset_options options = options_for(path, bpe_tokenizer, BLOCK);
    mz_dataset *dataset = open_or_fail(&options, 0);
    int32_t *ids = NULL, block[BLOCK], labels[BLOCK];
    int64_t n = 0, capacity = 0;
    assert_int_equal(mz_tokenizer_encode(bpe_tokenizer, text, bytes, true, &ids, &n, &capacity), MZ_OK);
    assert_int_equal(mz_dataset_n_tokens(dataset), n);
    for (int64_t b = 0; b < mz_dataset_n_blocks(dataset); b++) {
        mz_dataset_block(dataset, b, block, labels);
        assert_memory_equal(block, ids + b * BLOCK, sizeof block);
    }
    mz_dataset_close(dataset);
    mz_free(ids);
    mz_free(text);
    mz_free(path);
}

static void json_lines(void **state)
{
    static const char text[] = "{\"text\": \"ab\", \"id\": 1}\n"
                               "  \r\n"
                               "{\"id\": 2, \"text\": \"\"}\r\n"
                               "{\"text\": \"a\\u0000\\u00e9\"}";
    static const int32_t expected[] = {'a', 'b', 256, 256, 'a', 0, 0xc3, 0xa9, 256};
    char *path = scratch_write_text("lines.jsonl", text);
    mz_dataset_options options = options_for(path, byte_tokenizer, 9);
    mz_dataset *dataset = open_or_fail(&options, 257);
    int32_t ids[9], labels[9];
    (void)state;
    assert_int_equal(mz_dataset_n_tokens(dataset), 9);
    mz_dataset_block(dataset, 0, ids, labels);
    assert_memory_equal(ids, expected, sizeof expected);
    mz_dataset_close(dataset);
    mz_free(path);

    path = scratch_write_text("field.jsonl", "{\"body\": \"xyz\", \"text\": \"no\"}\n");
    options = options_for(path, byte_tokenizer, 4);
    options.text_field = "body";
    dataset = open_or_fail(&options, 0);
    mz_dataset_block(dataset, 0, ids, labels);
    assert_int_equal(ids[0], 'x');
    mz_dataset_close(dataset);
    mz_free(path);
}

static void bad_input(void **state)
{
    static const struct {
        const char *name, *text, *expected;
    } cases[] = {
        {"utf8.txt", "fine\nfine\n\xe4\xbd\xa0 \xff\n", "utf8.txt:3: expected UTF-8, found byte 0xff"},
        {"cut.txt", "fine\n\xe4\xbd", "cut.txt:2: expected UTF-8"},
        {"short.txt", "ab", "expected at least one block of 8 tokens, found 2 tokens"},
        {"bad.jsonl", "{\"text\": \"a\"}\n\n{\"text\": \n", "bad.jsonl:3: not valid JSON"},
        {"none.jsonl", "{\"text\": \"a\"}\n{\"txet\": \"a\"}\n",
         "none.jsonl:2: expected an object with a string "
         "\"text\", found no such key"},
        {"type.jsonl", "{\"text\": 3}\n", "type.jsonl:1: expected an object with a string \"text\", found another"},
        {"list.jsonl", "[1]\n", "list.jsonl:1: expected an object with a string \"text\", found no object"},
        {"twice.jsonl", "{\"text\": \"a\", \"text\": \"b\"}\n", "twice.jsonl:1: not valid JSON: duplicate"},
        {"utf8.jsonl", "{\"text\": \"a\"}\n{\"text\": \"\xff\"}\n", "utf8.jsonl:2: not valid JSON"},
        {"more.jsonl", "{\"text\": \"a\"} {\"text\": \"a\"}\n", "more.jsonl:1: not valid JSON"},
        {"empty.txt", "", "found an empty file"},
        {"blank.jsonl", "\n\n", "found 0 tokens"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *path = scratch_write_text(cases[i].name, cases[i].text);
        const mz_dataset_options options = options_for(path, bpe_tokenizer, 8);
        expect_error(&options, 0, MZ_ERR_DATA, cases[i].expected);
        mz_free(path);
    }
    mz_dataset_options options = options_for("/nonexistent/corpus.txt", bpe_tokenizer, 8);
    expect_error(&options, 0, MZ_ERR_DATA, "/nonexistent/corpus.txt: cannot be opened");
    options.path = scratch_folder();
    expect_error(&options, 0, MZ_ERR_DATA, "expected a text file");
    options.block_size = 1;
    expect_error(&options, 0, MZ_ERR_ARGUMENT, "block size");
}

static void vocabulary_of_the_model(void **state)
{
    char *path = scratch_write_text("vocabulary.txt", "abc\xff");
    const mz_dataset_options options = options_for(path, byte_tokenizer, 2);
    (void)state;
    expect_error(&options, 255, MZ_ERR_DATA, "token id 255 is beyond the model's vocabulary of 255");
    mz_dataset_close(open_or_fail(&options, 256));
    mz_free(path);
}

/* ---- the cache ---- */

static void damaged_cache_is_made_anew(void **state)
{
    char *path = scratch_write_text("damaged.txt", "some text to be tokenised, long enough for a block or two");
    const mz_dataset_options options = options_for(path, byte_tokenizer, 8);
    (void)state;
    mz_dataset *dataset = open_or_fail(&options, 0);
    const uint64_t fingerprint = mz_dataset_fingerprint(dataset);
    mz_dataset_close(dataset);
    char *cache = find_cache("damaged.txt"), *good, *bad;
    size_t bytes, bytes_again;
    assert_int_equal(mz_file_read(cache, &good, &bytes), MZ_OK);
    bad = mz_alloc(bytes + 1);
    mz_log_set_level(MZ_LOG_ERROR);
    for (size_t i = 0; i < bytes + 4; i++) {
        size_t length = bytes;
        memcpy(bad, good, bytes + 1);
        if (i < bytes)
            bad[i] ^= 0x10; /* a flipped bit at each byte in turn */
        else
            length = (size_t[]){0, 10, bytes - 1, bytes + 1}[i - bytes];
        mz_free(scratch_write(strrchr(cache, '/') + 1, bad, length));
        dataset = open_or_fail(&options, 0);
        assert_true(mz_dataset_fingerprint(dataset) == fingerprint);
        mz_dataset_close(dataset);
        char *again;
        assert_int_equal(mz_file_read(cache, &again, &bytes_again), MZ_OK);
        assert_int_equal(bytes_again, bytes);
        assert_memory_equal(again, good, bytes);
        mz_free(again);
    }
    mz_log_set_level(MZ_LOG_INFO);
    mz_free(bad);
    mz_free(good);
    mz_free(cache);
    mz_free(path);
}

/* Another text under the same name and a second tokenizer get their own caches; an unchanged file is not read
 * again. */
static void cache_follows_its_source(void **state)
{
    char *path = scratch_write_text("follow.txt", "the rank of the ranks");
    mz_dataset_options options = options_for(path, byte_tokenizer, 4);
    struct stat before, after;
    (void)state;
    mz_dataset *dataset = open_or_fail(&options, 0);
    const uint64_t fingerprint = mz_dataset_fingerprint(dataset);
    mz_dataset_close(dataset);
    char *cache = find_cache("follow.txt");
    assert_int_equal(stat(cache, &before), 0);
    dataset = open_or_fail(&options, 0);
    assert_true(mz_dataset_fingerprint(dataset) == fingerprint);
    mz_dataset_close(dataset);
    assert_int_equal(stat(cache, &after), 0);
    assert_int_equal(before.st_ino, after.st_ino);

    options.tokenizer = bpe_tokenizer;
    dataset = open_or_fail(&options, 0);
    assert_true(mz_dataset_fingerprint(dataset) != fingerprint);
    mz_dataset_close(dataset);

    mz_free(scratch_write_text("follow.txt", "bbbbbbbbbbbbbbbbb"));
    options.tokenizer = byte_tokenizer;
    dataset = open_or_fail(&options, 0);
    int32_t ids[4], labels[4];
    mz_dataset_block(dataset, 0, ids, labels);
    assert_int_equal(ids[0], 'b');
    mz_dataset_close(dataset);
    mz_free(cache);
    mz_free(path);
}

/* Beside the file by default; where that cannot be, under $TMPDIR. */
static void places_of_the_cache(void **state)
{
    char *path = scratch_write_text("place.txt", "a text of two blocks"), *file = scratch_write_text("a-file", "x");
    char *blocked = mz_strprintf("%s/folder", file), *temporary = scratch_path("temporary");
    mz_dataset_options options = options_for(path, byte_tokenizer, 8);
    const char *before = getenv("TMPDIR");
    char *saved = before ? mz_strdup(before) : NULL;
    (void)state;
    assert_int_equal(mz_make_directories(temporary), MZ_OK);
    setenv("TMPDIR", temporary, 1);
    options.cache_folder = blocked;
    mz_dataset_close(open_or_fail(&options, 0));
    assert_int_equal(rmdir(temporary), -1); /* the cache is in there */
    options.cache_folder = NULL;
    mz_dataset_close(open_or_fail(&options, 0)); /* found there again */
    assert_int_equal(mz_remove_tree(temporary), MZ_OK);
    mz_dataset_close(open_or_fail(&options, 0));
    mz_free(find_cache("place.txt")); /* beside the file */
    if (saved)
        setenv("TMPDIR", saved, 1);
    else
        unsetenv("TMPDIR");
    mz_free(saved);
    mz_free(path);
    mz_free(file);
    mz_free(blocked);
    mz_free(temporary);
}

static void allocation_failures(void **state)
{
    char *path = scratch_write_text("sweep.txt", "the ranks share the weights and the gradients of a step");
    const mz_dataset_options options = options_for(path, byte_tokenizer, 8);
    (void)state;
    for (long n = 1;; n++) {
        mz_dataset *dataset = NULL;
        mz_memory_fail_at(n);
        const mz_status status = mz_dataset_open(NULL, &options, 0, &dataset);
        mz_memory_fail_at(0);
        mz_dataset_close(dataset);
        if (status == MZ_OK) {
            assert_true(n > 5);
            break;
        }
        assert_int_equal(status, MZ_ERR_MEMORY);
    }
    mz_free(path);
}

static int start(void **state)
{
    char *folder = source_path("tests/data/tiny_bpe");
    const int failed = scratch_make(state) || mz_tokenizer_open("byte", &byte_tokenizer) ||
                       mz_tokenizer_open(folder, &bpe_tokenizer);
    mz_free(folder);
    return failed ? -1 : 0;
}

static int finish(void **state)
{
    mz_tokenizer_close(byte_tokenizer);
    mz_tokenizer_close(bpe_tokenizer);
    return scratch_remove(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_and_labels),
        cmocka_unit_test(held_out_split),
        cmocka_unit_test(pieces_change_nothing),
        cmocka_unit_test(json_lines),
        cmocka_unit_test(bad_input),
        cmocka_unit_test(vocabulary_of_the_model),
        cmocka_unit_test(damaged_cache_is_made_anew),
        cmocka_unit_test(cache_follows_its_source),
        cmocka_unit_test(places_of_the_cache),
        cmocka_unit_test(allocation_failures),
    };
    return cmocka_run_group_tests(tests, start, finish);
}
