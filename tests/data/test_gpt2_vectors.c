/* GPT-2's own vocabulary against published vectors and token counts. Skipped where the shared data is not. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"
#include "data/tokenizer.h"
#include "data/utf8.h"
#include "tests/data/scratch.h"

static int n_checked, n_wrong;

static void check(const mz_tokenizer *tokenizer, const json_t *vector)
{
    const json_t *input = json_object_get(vector, "input"), *expected = json_object_get(vector, "ids");
    int32_t *ids = NULL;
    int64_t n = 0, capacity = 0;
    mz_status status = mz_tokenizer_encode(tokenizer, json_string_value(input), json_string_length(input), true,
                                           &ids, &n, &capacity);
    bool same = !status && n == (int64_t)json_array_size(expected);
    for (int64_t i = 0; same && i < n; i++)
        same = ids[i] == json_integer_value(json_array_get(expected, (size_t)i));
    n_checked++;
    if (!same) {
        n_wrong++;
        printf("wrong: \"%s\" %s\n", json_string_value(input), status ? mz_last_error() : "");
    }
    mz_free(ids);
}

static void check_all(const mz_tokenizer *tokenizer, const char *name, const char *key)
{
    char *path = source_path(name);
    json_t *root = json_load_file(path, JSON_ALLOW_NUL, NULL), *vector;
    size_t i;
    const int before = n_checked;
    json_array_foreach(json_object_get(root, key), i, vector) check(tokenizer, vector);
    printf("%s: %s: %d texts\n", name, key, n_checked - before);
    if (n_checked == before)
        n_wrong++; /* nothing was compared */
    json_decref(root);
    mz_free(path);
}

/* Token counts of the first 90 % of the characters and of the rest. */
static void check_counts(const mz_tokenizer *tokenizer)
{
    static const int64_t expected[2] = {301966, 36059};
    char *path = source_path("../shared/data/tinyshakespeare/input.txt"), *text;
    size_t bytes;
    if (mz_file_read(path, &text, &bytes)) {
        printf("%s\n", mz_last_error());
        n_wrong++;
        mz_free(path);
        return;
    }
    const size_t cut = bytes * 9 / 10; /* ASCII: a byte is a character */
    const size_t begin[2] = {0, cut}, end[2] = {cut, bytes};
    for (int part = 0; part < 2; part++) {
        int32_t *ids = NULL;
        int64_t n = 0, capacity = 0;
        if (mz_tokenizer_encode(tokenizer, text + begin[part], end[part] - begin[part], false, &ids, &n,
                                &capacity) ||
            n != expected[part]) {
            printf("tinyshakespeare: part %d: expected %ld tokens, found %ld\n", part, (long)expected[part],
                   (long)n);
            n_wrong++;
        }
        mz_free(ids);
    }
    mz_free(text);
    mz_free(path);
}

static int run(const char *folder)
{
    mz_tokenizer *tokenizer;
    if (mz_tokenizer_open(folder, &tokenizer)) {
        printf("%s\n", mz_last_error());
        return 1;
    }
    if (mz_tokenizer_vocab(tokenizer) != 50257 || mz_tokenizer_end_id(tokenizer) != 50256)
        n_wrong++;
    check_all(tokenizer, "../shared/data/tokenizer_vectors/gpt2.json", "datasets");
    check_all(tokenizer, "../shared/data/tokenizer_vectors/gpt2-xl.json", "datasets");
    check_all(tokenizer, "../shared/data/tokenizer_vectors/extra.json", "gpt2_tiktoken_tests");
    check_all(tokenizer, "../shared/data/tokenizer_vectors/extra.json", "gpt2_tiktoken_special");
    check_all(tokenizer, "../shared/data/tokenizer_vectors/extra.json", "gpt2_GPT-3-Encoder_tests");
    check_counts(tokenizer);
    mz_tokenizer_close(tokenizer);
    return 0;
}

/* The folder again with only the two files that older folders have. */
static int run_two_files(const char *folder)
{
    static const char *const names[2] = {"vocab.json", "merges.txt"};
    int failed = scratch_make(NULL);
    for (int i = 0; !failed && i < 2; i++) {
        char *path = mz_path_join(folder, names[i]), *copy = scratch_path(names[i]), *text = NULL;
        size_t bytes;
        failed = mz_file_read(path, &text, &bytes) || mz_file_write_atomic(copy, text, bytes);
        mz_free(path);
        mz_free(copy);
        mz_free(text);
    }
    if (!failed)
        failed = run(scratch_folder());
    return scratch_remove(NULL) || failed;
}

int main(void)
{
    char *folder = source_path("../shared/data/gpt2_bpe");
    int failed = 0;
    if (!mz_path_exists(folder)) {
        printf("skipped: %s is not there\n", folder);
        mz_free(folder);
        return 77;
    }
    failed = run(folder) || run_two_files(folder);
    mz_free(folder);
    printf("%d texts compared, %d wrong\n", n_checked, n_wrong);
    return failed || n_wrong;
}
