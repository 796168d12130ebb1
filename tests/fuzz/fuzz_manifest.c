/* A checkpoint's manifest: the input as it is, then with the CRC-32C that belongs to it, so that mutations get past
 * it. */
#include <string.h>

#include "checkpoint/manifest.h"
#include "core/file.h"
#include "core/memory.h"
#include "tests/fuzz/fuzz.h"

/* What a reader relies on: runs within their files, in order, and covering each tensor and kind once. */
static void check_manifest(const mz_manifest *manifest)
{
    int64_t n_runs = 0;
    for (int t = 0; t < manifest->n_tensors; t++) {
        const mz_checkpoint_tensor *tensor = &manifest->tensors[t];
        FUZZ_REQUIRE(mz_manifest_find(manifest, tensor->name) == t && tensor->n_dims <= MZ_MAX_DIMS);
        for (int k = 0; k < MZ_N_SHARD_KINDS; k++) {
            int64_t begin, end, covered = 0;
            mz_manifest_runs(manifest, t, (mz_shard_kind)k, &begin, &end);
            FUZZ_REQUIRE(begin <= end && end <= manifest->n_runs && (begin < end) == tensor->kinds[k]);
            for (int64_t r = begin; r < end; r++) {
                const mz_manifest_run *run = &manifest->runs[r];
                FUZZ_REQUIRE(run->offset == covered && run->count > 0 && run->tensor == t && (int)run->kind == k);
                FUZZ_REQUIRE(run->file >= 0 && run->file < manifest->n_files && run->position >= 0);
                FUZZ_REQUIRE(run->position + run->count * 4 <= manifest->files[run->file].bytes);
                covered += run->count;
            }
            FUZZ_REQUIRE(begin == end || covered == tensor->numel);
            n_runs += end - begin;
        }
    }
    FUZZ_REQUIRE(n_runs == manifest->n_runs && mz_manifest_find(manifest, "no such tensor") < 0);
}

static void parse(const char *text, size_t bytes)
{
    mz_manifest manifest;
    if (mz_manifest_parse("manifest.json", text, bytes, &manifest))
        return;
    check_manifest(&manifest);
    mz_manifest_free(&manifest);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    parse((const char *)data, bytes);
    char *text = mz_alloc(bytes + 64);
    FUZZ_REQUIRE(text);
    if (bytes)
        memcpy(text, data, bytes);
    const int n = snprintf(text + bytes, 64, ",\n \"crc32c\": \"%08x\"\n}\n", mz_crc32c(0, data, bytes));
    char *exact = mz_realloc(text, bytes + (size_t)n); /* so that reading past its end is found */
    FUZZ_REQUIRE(exact);
    parse(exact, bytes + (size_t)n);
    mz_free(exact);
    return 0;
}
