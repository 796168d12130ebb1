/* The index of weights in several files, model.safetensors.index.json: the input is the index of a folder with
 * three weight files. Two belong together, the third repeats a tensor of the first. */
#include <string.h>
#include <unistd.h>

#include "checkpoint/safetensors.h"
#include "core/log.h"
#include "tests/fuzz/fuzz.h"

enum { N_FILES = 3, TEXT_ROOM = 256 };

typedef struct weights_file {
    const char *name, *header;
    int n_values;
} weights_file;

static const weights_file files[N_FILES] = {
    {"a.safetensors",
     "{\"w\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]},"
     "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[24,28]}}",
     7},
    {"b.safetensors", "{\"v\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}", 4},
    {"c.safetensors", "{\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 1},
};

static char folder[] = "/tmp/mpizero-fuzz-XXXXXX";
static char index_path[64];

static const char *path_of(const char *name)
{
    static char path[64];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void write_file(const char *path, const void *data, size_t bytes)
{
    FILE *file = fopen(path, "wb");
    FUZZ_REQUIRE(file != NULL);
    FUZZ_REQUIRE(fwrite(data, 1, bytes, file) == bytes);
    fclose(file);
}

static void write_weights(const weights_file *file)
{
    const float values[] = {1, 2, 3, 4, 5, 6, 7};
    uint8_t bytes[TEXT_ROOM + sizeof values] = {(uint8_t)strlen(file->header)}; /* little-endian, in 8 bytes */
    const size_t n = strlen(file->header), n_data = (size_t)file->n_values * sizeof *values;
    FUZZ_REQUIRE(n < TEXT_ROOM - 8);
    memcpy(bytes + 8, file->header, n);
    memcpy(bytes + 8 + n, values, n_data);
    write_file(path_of(file->name), bytes, 8 + n + n_data);
}

static void clean_up(void)
{
    for (int i = 0; i < N_FILES; i++)
        unlink(path_of(files[i].name));
    unlink(index_path);
    rmdir(folder);
}

static void set_up(void)
{
    if (*index_path)
        return;
    FUZZ_REQUIRE(mkdtemp(folder) != NULL);
    snprintf(index_path, sizeof index_path, "%s/model.safetensors.index.json", folder);
    for (int i = 0; i < N_FILES; i++)
        write_weights(&files[i]);
    atexit(clean_up);
    mz_log_set_level(MZ_LOG_ERROR);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    mz_weights *weights;
    set_up();
    write_file(index_path, data, bytes);
    if (mz_weights_open(folder, &weights)) {
        FUZZ_REQUIRE(*mz_last_error() != '\0');
        return 0;
    }
    const int n = mz_weights_n_tensors(weights);
    FUZZ_REQUIRE(n >= 1 && n <= 3);
    for (int i = 0; i < n; i++) {
        const mz_weights_tensor *tensor = mz_weights_at(weights, i);
        float values[6];
        FUZZ_REQUIRE(mz_weights_find(weights, tensor->name) == tensor && tensor->numel <= 6);
        FUZZ_REQUIRE(i == 0 || strcmp(mz_weights_at(weights, i - 1)->name, tensor->name) < 0);
        FUZZ_REQUIRE(mz_weights_read(weights, tensor, 0, tensor->numel, values) == MZ_OK && values[0] >= 1);
    }
    mz_weights_close(weights);
    return 0;
}
