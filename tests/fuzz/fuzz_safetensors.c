/* A safetensors file: two sections, the JSON header and the data; the length in front is put there so that
 * mutations of the header reach the parser. Input that begins with "raw" and a newline is a whole file instead. */
#include <string.h>

#include "checkpoint/safetensors_header.h"
#include "core/memory.h"
#include "tests/fuzz/fuzz.h"

/* What a caller may rely on when a file was accepted. */
static void check_tensors(const uint8_t *file, size_t bytes, const mz_weights_tensor *tensors, int n)
{
    const uint8_t *end = n ? tensors[0].data : file + bytes;
    for (int i = 0; i < n; i++) {
        int64_t numel = 1;
        for (int d = 0; d < tensors[i].n_dims; d++)
            numel *= tensors[i].shape[d];
        FUZZ_REQUIRE(numel == tensors[i].numel && numel >= 0 && tensors[i].name && tensors[i].dtype_name);
        FUZZ_REQUIRE((const uint8_t *)tensors[i].data == end && end >= file + 8);
        end += mz_weights_tensor_bytes(&tensors[i]);
    }
    FUZZ_REQUIRE(end == file + bytes);
}

static void parse(const uint8_t *file, size_t bytes)
{
    mz_weights_tensor *tensors;
    int n;
    if (mz_safetensors_parse("fuzz.safetensors", file, bytes, &tensors, &n))
        return;
    check_tensors(file, bytes, tensors, n);
    mz_safetensors_free(tensors, n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    fuzz_section sections[2];
    if (bytes >= 4 && !memcmp(data, "raw\n", 4)) {
        parse(data + 4, bytes - 4);
        return 0;
    }
    fuzz_cut(data, bytes, sections, 2);
    const size_t n = sections[0].bytes;
    uint8_t *file = mz_alloc(8 + n + sections[1].bytes);
    FUZZ_REQUIRE(file);
    for (int i = 0; i < 8; i++)
        file[i] = (uint8_t)((uint64_t)n >> (8 * i));
    memcpy(file + 8, sections[0].data, n);
    if (sections[1].bytes)
        memcpy(file + 8 + n, sections[1].data, sections[1].bytes);
    parse(file, 8 + n + sections[1].bytes);
    mz_free(file);
    return 0;
}
