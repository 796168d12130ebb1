#include "tests/core/cmocka_all.h"

#include <jansson.h>
#include <pthread.h>
#include <string.h>

#include "core/clock.h"
#include "core/file.h"
#include "core/memory.h"
#include "core/rng.h"
#include "data/tokenizer.h"
#include "data/utf8.h"
#include "tests/data/scratch.h"

static mz_tokenizer *open_tiny(void)
{
    mz_tokenizer *tokenizer = NULL;
    char *folder = source_path("tests/data/tiny_bpe");
    if (mz_tokenizer_open(folder, &tokenizer))
        fail_msg("%s", mz_last_error());
    mz_free(folder);
    return tokenizer;
}

/* Encodes, decodes, and compares with the text. */
static void round_trip(const mz_tokenizer *tokenizer, const char *text, size_t bytes)
{
    int32_t *ids = NULL;
    int64_t n = 0, capacity = 0;
    char *back;
    size_t back_bytes;
    assert_int_equal(mz_tokenizer_encode(tokenizer, text, bytes, true, &ids, &n, &capacity), MZ_OK);
    assert_int_equal(mz_tokenizer_decode(tokenizer, ids, n, &back, &back_bytes), MZ_OK);
    assert_int_equal(back_bytes, bytes);
    assert_memory_equal(back, text, bytes);
    mz_free(ids);
    mz_free(back);
}

static void bytes_are_ids(void **state)
{
    mz_tokenizer *tokenizer;
    int32_t *ids = NULL;
    int64_t n = 0, capacity = 0;
    char text[256];
    (void)state;
    assert_int_equal(mz_tokenizer_open("byte", &tokenizer), MZ_OK);
    assert_int_equal(mz_tokenizer_vocab(tokenizer), 257);
    assert_int_equal(mz_tokenizer_end_id(tokenizer), 256);
    assert_null(mz_tokenizer_folder(tokenizer));
    for (int i = 0; i < 256; i++)
        text[i] = (char)i;
    assert_int_equal(mz_tokenizer_encode(tokenizer, text, 256, true, &ids, &n, &capacity), MZ_OK);
    assert_int_equal(n, 256);
    for (int i = 0; i < 256; i++)
        assert_int_equal(ids[i], i);
    round_trip(tokenizer, text, sizeof text);

    char *back;
    size_t bytes;
    const int32_t with_end[] = {'a', 256, 'b'}, wrong[] = {257}, negative[] = {-1};
    assert_int_equal(mz_tokenizer_decode(tokenizer, with_end, 3, &back, &bytes), MZ_OK);
    assert_string_equal(back, "ab");
    mz_free(back);
    assert_int_equal(mz_tokenizer_decode(tokenizer, wrong, 1, &back, &bytes), MZ_ERR_ARGUMENT);
    assert_int_equal(mz_tokenizer_decode(tokenizer, negative, 1, &back, &bytes), MZ_ERR_ARGUMENT);
    mz_free(ids);
    mz_tokenizer_close(tokenizer);
}

/* Texts with the ids that Hugging Face's library gives them (make_tiny_bpe.py). */
static void vectors_of_the_fixture(void **state)
{
    mz_tokenizer *tokenizer = open_tiny();
    char *path = source_path("tests/data/tiny_bpe/vectors.json");
    json_t *vectors = json_load_file(path, JSON_ALLOW_NUL, NULL), *vector;
    size_t i;
    (void)state;
    assert_true(json_array_size(vectors) > 30);
    json_array_foreach(vectors, i, vector)
    {
        const json_t *input = json_object_get(vector, "input"), *expected = json_object_get(vector, "ids");
        int32_t *ids = NULL;
        int64_t n = 0, capacity = 0;
        assert_int_equal(mz_tokenizer_encode(tokenizer, json_string_value(input), json_string_length(input), true,
                                             &ids, &n, &capacity),
                         MZ_OK);
        if (n != (int64_t)json_array_size(expected))
            fail_msg("\"%s\": expected %zu ids, found %ld", json_string_value(input), json_array_size(expected),
                     (long)n);
        for (int64_t k = 0; k < n; k++)
            assert_int_equal(ids[k], json_integer_value(json_array_get(expected, (size_t)k)));
        mz_free(ids);
        round_trip(tokenizer, json_string_value(input), json_string_length(input));
    }
    json_decref(vectors);
    mz_free(path);
    mz_tokenizer_close(tokenizer);
}

/* The text of one token from tiny_bpe's end. */
static void special_tokens_on_request(void **state)
{
    static const char text[] = "x<|endoftext|>";
    mz_tokenizer *tokenizer = open_tiny();
    const int32_t end = mz_tokenizer_end_id(tokenizer);
    int32_t *ids = NULL;
    int64_t n = 0, capacity = 0;
    (void)state;
    assert_int_equal(end, mz_tokenizer_vocab(tokenizer) - 2);
    assert_int_equal(mz_tokenizer_encode(tokenizer, text, strlen(text), true, &ids, &n, &capacity), MZ_OK);
    assert_int_equal(n, 2);
    assert_int_equal(ids[1], end);
    assert_int_equal(mz_tokenizer_encode(tokenizer, text, strlen(text), false, &ids, &n, &capacity), MZ_OK);
    assert_true(n > 6); /* appended, and cut as ordinary text */
    for (int64_t i = 2; i < n; i++)
        assert_int_not_equal(ids[i], end);
    mz_free(ids);
    mz_tokenizer_close(tokenizer);
}

/* A random code point: any, or from the blocks where words begin and end. */
static uint32_t random_code(uint64_t round, uint64_t i)
{
    static const uint32_t common[] = {' ', ' ', '\n', '\t', 'a',  'e',    't',    'h',  '\'',  's',
                                      '0', '9', '.',  0x85, 0xa0, 0x3000, 0x4f60, 0xe9, 0x301, 0x661};
    const uint32_t draw = mz_rng_u32(5, 1, round, i), kind = mz_rng_u32(5, 2, round, i) % 4;
    if (kind)
        return common[draw % (sizeof common / sizeof *common)];
    const uint32_t code = draw % 0x110000;
    return code >= 0xd800 && code < 0xe000 ? 'x' : code;
}

static void random_text_comes_back(void **state)
{
    mz_tokenizer *tokenizer = open_tiny();
    (void)state;
    for (uint64_t round = 0; round < 2000; round++) {
        char text[400];
        size_t bytes = 0;
        for (uint64_t i = 0; i < round % 100; i++)
            bytes += (size_t)mz_utf8_encode(random_code(round, i), text + bytes);
        assert_int_equal(mz_utf8_valid_prefix(text, bytes), bytes);
        round_trip(tokenizer, text, bytes);
    }
    mz_tokenizer_close(tokenizer);
}

static void malformed_utf8_is_refused(void **state)
{
    static const struct {
        const char *text;
        size_t bytes, valid;
    } cases[] = {
        {"abcdefgh\xff", 9, 8},
        {"\x80", 1, 0},
        {"a\xc3", 2, 1},
        {"\xc0\xaf", 2, 0},
        {"\xe0\x80\x80", 3, 0},
        {"\xed\xa0\x80", 3, 0},
        {"\xf4\x90\x80\x80", 4, 0},
        {"\xf0\x80\x80\x80", 4, 0},
        {"\xc3\xa9\xe2\x82", 4, 2},
        {"\xf8\x88\x80\x80", 4, 0},
    };
    mz_tokenizer *tokenizer = open_tiny();
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int32_t *ids = NULL;
        int64_t n = 0, capacity = 0;
        assert_int_equal(mz_utf8_valid_prefix(cases[i].text, cases[i].bytes), cases[i].valid);
        assert_int_equal(mz_tokenizer_encode(tokenizer, cases[i].text, cases[i].bytes, true, &ids, &n, &capacity),
                         MZ_ERR_DATA);
        assert_int_equal(n, 0);
        mz_free(ids);
    }
    mz_tokenizer_close(tokenizer);
}

/* Text without a space, and nothing but spaces: no square growth, no overflow of a stack. */
static void long_words(void **state)
{
    enum { BYTES = 4 << 20 };
    mz_tokenizer *tokenizer = open_tiny();
    char *text = mz_alloc(BYTES);
    static const char *const fills[] = {"the", " ", "\n \t", "e\xcc\x81", "..", "\xe3\x80\x80"};
    (void)state;
    for (size_t f = 0; f < sizeof fills / sizeof *fills; f++) {
        const size_t n = strlen(fills[f]), bytes = BYTES / n * n;
        for (size_t i = 0; i < bytes; i += n)
            memcpy(text + i, fills[f], n);
        const double start = mz_clock_seconds();
        round_trip(tokenizer, text, bytes);
        assert_true(mz_clock_seconds() - start < 30);
    }
    mz_free(text);
    mz_tokenizer_close(tokenizer);
}

/* ---- many threads on one tokenizer ---- */

typedef struct reader {
    pthread_t thread;
    const mz_tokenizer *tokenizer;
    int64_t n;
} reader;

static void *read_often(void *arg)
{
    static const char text[] = "the ranks share the gradients, don't they?";
    reader *r = arg;
    for (int i = 0; i < 2000; i++) {
        int32_t *ids = NULL;
        int64_t n = 0, capacity = 0;
        if (mz_tokenizer_encode(r->tokenizer, text, sizeof text - 1, true, &ids, &n, &capacity))
            return NULL;
        r->n += n;
        mz_free(ids);
    }
    return NULL;
}

static void threads_share_a_tokenizer(void **state)
{
    mz_tokenizer *tokenizer = open_tiny();
    reader readers[4] = {0};
    (void)state;
    for (int i = 0; i < 4; i++) {
        readers[i].tokenizer = tokenizer;
        assert_int_equal(pthread_create(&readers[i].thread, NULL, read_often, &readers[i]), 0);
    }
    for (int i = 0; i < 4; i++)
        pthread_join(readers[i].thread, NULL);
    for (int i = 0; i < 4; i++)
        assert_true(readers[i].n > 0 && readers[i].n == readers[0].n);
    mz_tokenizer_close(tokenizer);
}

/* ---- folders that are wrong ---- */

#define ABC                  "{\"a\": 0, \"b\": 1, \"ab\": 2, \"\xc4\xa0\": 3"
#define MODEL(vocab, merges) "{\"model\": {\"type\": \"BPE\", \"vocab\": " vocab ", \"merges\": " merges "}, "
#define BYTE_LEVEL           "\"pre_tokenizer\": {\"type\": \"ByteLevel\"}}"

static void wrong_folders(void **state)
{
    static const struct {
        const char *vocab, *merges, *json; /* files; NULL: absent */
        const char *expected;              /* in the message */
    } cases[] = {
        {NULL, NULL, NULL, "found no vocab.json"},
        {ABC "}", NULL, NULL, "found no merges.txt"},
        {ABC ",\n}", "#version\na b\nb  a\n", NULL, "merges.txt:3: expected two tokens"},
        {ABC "}", "#version\n\na b\na b\n", NULL, "merges.txt:4: merge \"a b\" is there twice"},
        {ABC "}", "a b\r\nb a\r\n", NULL, "merges.txt:2: merge \"b a\": the two joined are not"},
        {ABC "}", "a b\nx a\n", NULL, "merges.txt:2: merge \"x a\": its first part"},
        {ABC "}", "a x", NULL, "merges.txt:1: merge \"a x\": its second part"},
        {ABC "}", "ab\n", NULL, "merges.txt:1: expected two tokens"},
        {ABC ",\n\"c\": 2}", "", NULL, "vocab.json:2: token \"c\": its id 2 is there twice"},
        {ABC ",\n\"c\": -1}", "", NULL, "vocab.json:2: token \"c\": expected an id from 0"},
        {ABC ",\n\"c\": 4000000000}", "", NULL, "vocab.json:2: token \"c\": expected an id from 0"},
        {ABC ",\n\"c\": \"4\"}", "", NULL, "vocab.json:2: token \"c\": expected an integer"},
        {ABC ",\n\"a\": 9}", "", NULL, "vocab.json:2: not valid JSON: duplicate"},
        {"[]", "", NULL, "vocab.json:1"},
        {"{}", "", NULL, "vocab.json:1"},
        {NULL, NULL, "{\"model\":\n 3}", "tokenizer.json:2: model: expected an object"},
        {NULL, NULL, "{\"model\": {\n\"type\": \"Unigram\"}}", "tokenizer.json:2: model.type: expected \"BPE\""},
        {NULL, NULL, MODEL("{\"a\": 0}", "[]") "\n\"pre_tokenizer\": null}", "tokenizer.json:2: pre_tokenizer"},
        {NULL, NULL, MODEL("{\"a\": 0}", "[\n[\"a\"]]") BYTE_LEVEL, "tokenizer.json:2: expected a merge as"},
        {NULL, NULL, MODEL("{\"a\": 0}", "[\n\"a z\"]") BYTE_LEVEL, "tokenizer.json:2: merge \"a z\""},
        {NULL, NULL, MODEL("{\"a\": 0}", "7") BYTE_LEVEL, "model.merges: expected an array"},
        {NULL, NULL, MODEL("{\"a\": 0}", "[]") "\"normalizer\": {\"type\": \"NFC\"}, " BYTE_LEVEL, "normalizer"},
        {NULL, NULL, MODEL("{\"a\": 0}", "[]") "\"added_tokens\": [\n{\"id\": 1}], " BYTE_LEVEL,
         "tokenizer.json:2: expected an added token"},
        {NULL, NULL, MODEL("{\"a\": 0}", "[]") "\"added_tokens\": [{\"id\": 0, \"content\": \"z\"}], " BYTE_LEVEL,
         "token \"z\": its id 0 is there twice"},
        {NULL, NULL, MODEL("{\"a\": 0}", "[]") "\"added_tokens\": [{\"id\": -1, \"content\": \"z\"}], " BYTE_LEVEL,
         "token \"z\": expected an id from 0"},
    };
    static const char *const names[3] = {"vocab.json", "merges.txt", "tokenizer.json"};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *texts[3] = {cases[i].vocab, cases[i].merges, cases[i].json};
        char name[64];
        snprintf(name, sizeof name, "wrong-%zu", i);
        char *folder = scratch_path(name);
        assert_int_equal(mz_make_directories(folder), MZ_OK);
        for (int f = 0; f < 3; f++) {
            snprintf(name, sizeof name, "wrong-%zu/%s", i, names[f]);
            if (texts[f])
                mz_free(scratch_write_text(name, texts[f]));
        }
        mz_tokenizer *tokenizer;
        const mz_status status = mz_tokenizer_open(folder, &tokenizer);
        if (status != MZ_ERR_MODEL && status != MZ_ERR_UNSUPPORTED)
            fail_msg("case %zu: status %d", i, (int)status);
        if (!strstr(mz_last_error(), cases[i].expected))
            fail_msg("case %zu: expected \"%s\" in \"%s\"", i, cases[i].expected, mz_last_error());
        mz_free(folder);
    }
}

/* A vocabulary without all bytes: text within it encodes, other text is refused or becomes the unknown token. */
static void bytes_without_a_token(void **state)
{
    mz_tokenizer *tokenizer;
    int32_t *ids = NULL;
    int64_t n = 0, capacity = 0;
    (void)state;
    char *folder = scratch_path("few");
    assert_int_equal(mz_make_directories(folder), MZ_OK);
    mz_free(scratch_write_text("few/vocab.json", ABC "}"));
    mz_free(scratch_write_text("few/merges.txt", "a b"));
    assert_int_equal(mz_tokenizer_open(folder, &tokenizer), MZ_OK);
    const uint64_t fingerprint = mz_tokenizer_fingerprint(tokenizer);
    assert_int_equal(mz_tokenizer_end_id(tokenizer), -1);
    assert_int_equal(mz_tokenizer_encode(tokenizer, "ab a", 4, true, &ids, &n, &capacity), MZ_OK);
    assert_int_equal(n, 3);
    assert_int_equal(mz_tokenizer_encode(tokenizer, "abc", 3, true, &ids, &n, &capacity), MZ_ERR_DATA);
    assert_non_null(strstr(mz_last_error(), "byte 0x63"));
    assert_int_equal(n, 3);
    mz_tokenizer_close(tokenizer);

    mz_free(scratch_write_text("few/tokenizer_config.json", "{\"unk_token\": {\"content\": \"b\"}}"));
    assert_int_equal(mz_tokenizer_open(folder, &tokenizer), MZ_OK);
    assert_int_equal(mz_tokenizer_encode(tokenizer, "c", 1, true, &ids, &n, &capacity), MZ_OK);
    assert_int_equal(ids[3], 1);
    assert_true(mz_tokenizer_fingerprint(tokenizer) != fingerprint);
    mz_tokenizer_close(tokenizer);
    mz_free(folder);
    mz_free(ids);
}

/* tokenizer.json with a prefix space, an added token that swallows blanks, and both forms of merges. */
static void settings_of_tokenizer_json(void **state)
{
    static const char json[] =
        "{\"model\": {\"type\": \"BPE\", \"vocab\": " ABC ", \"\xc4\xa0"
        "a\": 4, \"\xc4\x8a\": 5}, \"merges\": [[\"\xc4\xa0\", \"a\"], "
        "\"a b\"]}, \"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": true}, \"added_tokens\": "
        "[{\"id\": 9, \"content\": \"<m>\", \"special\": true, \"lstrip\": true, \"rstrip\": false},"
        "{\"id\": 8, \"content\": \"<mm>\", \"special\": false, \"rstrip\": true}]}";
    static const struct {
        const char *text;
        int n, ids[5];
    } cases[] = {
        {"ab", 2, {4, 1}},          {" ab", 2, {4, 1}},     {"\nb", 3, {3, 5, 1}}, {"a  <m> a", 3, {4, 9, 4}},
        {"a<m>b", 4, {4, 9, 3, 1}}, {"<mm>  a", 2, {8, 4}}, {"", 0, {0}}};
    mz_tokenizer *tokenizer;
    (void)state;
    char *folder = scratch_path("settings");
    assert_int_equal(mz_make_directories(folder), MZ_OK);
    mz_free(scratch_write_text("settings/tokenizer.json", json));
    if (mz_tokenizer_open(folder, &tokenizer))
        fail_msg("%s", mz_last_error());
    assert_int_equal(mz_tokenizer_vocab(tokenizer), 10);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int32_t *ids = NULL;
        int64_t n = 0, capacity = 0;
        assert_int_equal(
            mz_tokenizer_encode(tokenizer, cases[i].text, strlen(cases[i].text), true, &ids, &n, &capacity), MZ_OK);
        if (n != cases[i].n || (n && memcmp(ids, cases[i].ids, (size_t)n * sizeof *ids) != 0))
            fail_msg("\"%s\": %ld ids, first %d", cases[i].text, (long)n, n ? ids[0] : -1);
        mz_free(ids);
    }
    char *text;
    size_t bytes;
    const int32_t hole[] = {7};
    assert_int_equal(mz_tokenizer_decode(tokenizer, hole, 1, &text, &bytes), MZ_ERR_ARGUMENT);
    mz_tokenizer_close(tokenizer);
    mz_free(folder);
}

/* vocab.json's tokenizers put the space in front of the text as a whole, unless it begins with white space. */
static void prefix_of_two_files(void **state)
{
    static const struct {
        const char *text;
        int n, ids[4];
    } cases[] = {{"ab", 2, {3, 2}},
                 {" ab", 2, {3, 2}},
                 {"\nb", 2, {5, 1}},
                 {"<m>b", 3, {3, 9, 1}},
                 {"a<m>b", 4, {3, 0, 9, 1}}};
    mz_tokenizer *tokenizer;
    (void)state;
    char *folder = scratch_path("prefix");
    assert_int_equal(mz_make_directories(folder), MZ_OK);
    mz_free(scratch_write_text("prefix/vocab.json", ABC ", \"\xc4\x8a\": 5}"));
    mz_free(scratch_write_text("prefix/merges.txt", "#version: 0.2\r\na b\r\n"));
    mz_free(scratch_write_text(
        "prefix/tokenizer_config.json",
        "{\"add_prefix_space\": true, \"added_tokens_decoder\": {\"9\": {\"content\": \"<m>\"}}}"));
    if (mz_tokenizer_open(folder, &tokenizer))
        fail_msg("%s", mz_last_error());
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int32_t *ids = NULL;
        int64_t n = 0, capacity = 0;
        assert_int_equal(
            mz_tokenizer_encode(tokenizer, cases[i].text, strlen(cases[i].text), true, &ids, &n, &capacity), MZ_OK);
        if (n != cases[i].n || memcmp(ids, cases[i].ids, (size_t)n * sizeof *ids) != 0)
            fail_msg("\"%s\": %ld ids, first %d", cases[i].text, (long)n, n ? ids[0] : -1);
        mz_free(ids);
    }
    mz_tokenizer_close(tokenizer);
    mz_free(folder);
}

static void allocation_failures(void **state)
{
    char *folder = source_path("tests/data/tiny_bpe");
    (void)state;
    for (long n = 1;; n++) {
        mz_tokenizer *tokenizer = NULL;
        int32_t *ids = NULL;
        int64_t n_ids = 0, capacity = 0;
        mz_memory_fail_at(n);
        mz_status status = mz_tokenizer_open(folder, &tokenizer);
        if (!status)
            status = mz_tokenizer_encode(tokenizer, "the ranks<|endoftext|>", 22, true, &ids, &n_ids, &capacity);
        mz_memory_fail_at(0);
        mz_free(ids);
        mz_tokenizer_close(tokenizer);
        if (status == MZ_OK) {
            assert_true(n > 20);
            break;
        }
        assert_int_equal(status, MZ_ERR_MEMORY);
    }
    mz_free(folder);
    mz_tokenizer_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_are_ids),
        cmocka_unit_test(vectors_of_the_fixture),
        cmocka_unit_test(special_tokens_on_request),
        cmocka_unit_test(random_text_comes_back),
        cmocka_unit_test(malformed_utf8_is_refused),
        cmocka_unit_test(long_words),
        cmocka_unit_test(threads_share_a_tokenizer),
        cmocka_unit_test(wrong_folders),
        cmocka_unit_test(bytes_without_a_token),
        cmocka_unit_test(settings_of_tokenizer_json),
        cmocka_unit_test(prefix_of_two_files),
        cmocka_unit_test(allocation_failures),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
