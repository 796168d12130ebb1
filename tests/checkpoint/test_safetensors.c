/* Safetensors: reading what is right, refusing everything else, writing what others read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "checkpoint/safetensors.h"
#include "core/file.h"
#include "core/half.h"
#include "core/memory.h"
#include "tests/checkpoint/scratch.h"

/* Writes a file of the header's text and `n` bytes 0, 1, 2 ... of data. */
static void write_weights(const char *path, const char *header, size_t n)
{
    size_t length = strlen(header);
    uint8_t *file = calloc(1, 8 + length + n);
    for (int i = 0; i < 8; i++)
        file[i] = (uint8_t)(length >> (8 * i));
    memcpy(file + 8, header, length);
    for (size_t i = 0; i < n; i++)
        file[8 + length + i] = (uint8_t)i;
    scratch_write(path, file, 8 + length + n);
    free(file);
}

/* Each file is refused, and the message says the words. */
static const struct refusal {
    const char *header;
    size_t data_bytes;
    const char *words;
} refusals[] = {
    {"", 0, "no JSON object"},
    {"[1]", 0, "no JSON object"},
    {"{\"a\":", 0, "no JSON object"},
    {"{\"a\":1}", 0, "dtype"},
    {"{\"a\":{\"dtype\":\"Q7\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "unknown dtype \"Q7\""},
    {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "shape"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4, "shape"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1.5],\"data_offsets\":[0,4]}}", 4, "shape"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1],\"data_offsets\":[0,4]}}", 4, "5 dimensions"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,4]}}", 4, "2^63"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904],\"data_offsets\":[0,0]}}", 0, "do not fit"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4, "do not fit"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, "data_offsets"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4, "backwards"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]}}", 4, "backwards"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 7, "cut short"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 8, "the tensors take 4"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8, "no tensor"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
     "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[2,6]}}",
     6, "overlap"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
     "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
     8, "duplicate"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,99999999999999999999999]}}", 4, "no JSON object"},
};

static void refuses_bad_headers(void **state)
{
    const char *path = scratch_path(*state, "bad.safetensors");
    mz_weights *weights = NULL;
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
        write_weights(path, refusals[i].header, refusals[i].data_bytes);
        assert_int_equal(mz_weights_open(path, &weights), MZ_ERR_MODEL);
        if (!strstr(mz_last_error(), refusals[i].words) || !strstr(mz_last_error(), path))
            fail_msg("case %zu: \"%s\" does not say \"%s\"", i, mz_last_error(), refusals[i].words);
    }
    static const uint8_t short_files[][12] = {
        {1, 2, 3}, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, '{', '}'}, {9, 0, 0, 0, 0, 0, 0, 0, '{', '}'}};
    for (size_t i = 0; i < 3; i++) {
        scratch_write(path, short_files[i], i ? 10 : 3);
        assert_int_equal(mz_weights_open(path, &weights), MZ_ERR_MODEL);
    }
    scratch_write(path, "", 0);
    assert_int_equal(mz_weights_open(path, &weights), MZ_ERR_MODEL);
    assert_int_equal(mz_weights_open(scratch_path(*state, "absent"), &weights), MZ_ERR_IO);
}

static void reads_all_floats(void **state)
{
    const char *path = scratch_path(*state, "floats.safetensors");
    const char *header = "{\"u8\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
                         "\"f64\":{\"dtype\":\"F64\",\"shape\":[2,1],\"data_offsets\":[1,17]},"
                         "\"f32\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[17,21]},"
                         "\"f16\":{\"dtype\":\"F16\",\"shape\":[3],\"data_offsets\":[21,27]},"
                         "\"empty\":{\"dtype\":\"F16\",\"shape\":[0,3],\"data_offsets\":[27,27]},"
                         "\"bf16\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[27,31]},"
                         "\"flag\":{\"dtype\":\"BOOL\",\"shape\":[1],\"data_offsets\":[31,32]}}";
    mz_weights *weights;
    write_weights(path, header, 32);
    assert_int_equal(mz_weights_open(path, &weights), MZ_OK);
    assert_int_equal(mz_weights_n_tensors(weights), 7);
    for (int i = 0; i < 7; i++) {
        const mz_weights_tensor *tensor = mz_weights_at(weights, i);
        float got[3] = {0};
        mz_status status = mz_weights_read(weights, tensor, 0, tensor->numel, got);
        if (!strcmp(tensor->name, "u8") || !strcmp(tensor->name, "flag")) {
            assert_int_equal(status, MZ_ERR_MODEL);
            continue;
        }
        assert_int_equal(status, MZ_OK);
        for (int64_t e = 0; e < tensor->numel; e++) {
            _Alignas(8) uint8_t raw[8];
            const size_t size = mz_dtype_size(tensor->dtype);
            memcpy(raw, (const uint8_t *)tensor->data + (size_t)e * size, size);
            const float expected = mz_load_f32(raw, tensor->dtype, 0);
            assert_memory_equal(&got[e], &expected, sizeof expected);
        }
        assert_int_equal(mz_weights_read(weights, tensor, 1, tensor->numel, got), MZ_ERR_ARGUMENT);
        assert_int_equal(mz_weights_read(weights, tensor, -1, 1, got), MZ_ERR_ARGUMENT);
    }
    assert_string_equal(mz_weights_find(weights, "bf16")->dtype_name, "BF16");
    assert_null(mz_weights_find(weights, "none"));
    assert_null(mz_weights_at(weights, 7));
    mz_weights_close(weights);
}

static void reads_shared_model(void **state)
{
    (void)state;
    const char *folder = shared_data("tiny_gpt2");
    if (!folder) {
        print_message("skipped: ../shared/data/tiny_gpt2 is not there\n");
        skip();
    }
    mz_weights *weights;
    assert_true(mz_weights_present(folder));
    assert_int_equal(mz_weights_open(folder, &weights), MZ_OK);
    const mz_weights_tensor *wte = mz_weights_find(weights, "wte.weight");
    if (!wte)
        wte = mz_weights_find(weights, "transformer.wte.weight");
    assert_non_null(wte);
    assert_int_equal(wte->n_dims, 2);
    mz_weights_close(weights);
}

static void follows_index(void **state)
{
    char folder[4096];
    mz_weights *weights;
    snprintf(folder, sizeof folder, "%s", scratch_path(*state, "indexed"));
    assert_false(mz_weights_present(folder));
    assert_int_equal(mz_make_directories(folder), MZ_OK);
    assert_false(mz_weights_present(folder));
    write_weights(scratch_path(folder, "x.safetensors"),
                  "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4);
    write_weights(scratch_path(folder, "y.safetensors"),
                  "{\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4);
    static const struct {
        const char *text;
        mz_status status;
        const char *words;
    } cases[] = {
        {"{\"weight_map\":{\"a\":\"x.safetensors\",\"b\":\"y.safetensors\"}}", MZ_OK, ""},
        {"{\"weight_map\":{\"a\":\"y.safetensors\"}}", MZ_ERR_MODEL, "does not have it"},
        {"{\"weight_map\":{\"a\":\"../x.safetensors\"}}", MZ_ERR_MODEL, "without folder"},
        {"{\"weight_map\":{\"a\":\"z.safetensors\"}}", MZ_ERR_IO, "z.safetensors"},
        {"{\"weight_map\":{\"a\":3}}", MZ_ERR_MODEL, "file name"},
        {"{\"weight_map\":{}}", MZ_ERR_MODEL, "weight_map"},
        {"[]", MZ_ERR_MODEL, "weight_map"},
        {"{", MZ_ERR_MODEL, "not JSON"},
    };
    const char *index = scratch_path(folder, "model.safetensors.index.json");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        scratch_write(index, cases[i].text, strlen(cases[i].text));
        assert_true(mz_weights_present(folder));
        mz_status status = mz_weights_open(folder, &weights);
        assert_int_equal(status, cases[i].status);
        if (status)
            assert_non_null(strstr(mz_last_error(), cases[i].words));
        else
            mz_weights_close(weights);
    }
    assert_int_equal(unlink(index), 0);
    scratch_write(scratch_path(folder, "pytorch_model.bin"), "x", 1);
    assert_true(mz_weights_present(folder));
    assert_int_equal(mz_weights_open(folder, &weights), MZ_ERR_MODEL);
    assert_non_null(strstr(mz_last_error(), "safe_serialization=True"));
}

static int set_up(void **state)
{
    *state = scratch_create("safetensors");
    return 0;
}

static int tear_down(void **state)
{
    scratch_remove(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_bad_headers),
        cmocka_unit_test(reads_all_floats),
        cmocka_unit_test(reads_shared_model),
        cmocka_unit_test(follows_index),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
