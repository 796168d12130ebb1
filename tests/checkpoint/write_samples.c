/* write_samples OUT [MODEL]: what tests/checkpoint/read_samples.py looks at: a checkpoint, the weights made from
 * it, and a copy of the model folder MODEL, split into small files. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint/model_folder.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/tools.h"
#include "core/file.h"
#include "core/memory.h"
#include "tests/checkpoint/scratch.h"
#include "tests/checkpoint/synthetic.h"

static void write_checkpoint(const char *out)
{
    synthetic s;
    mz_device *device;
    mz_writer *writer;
    CHECK(!mz_device_open("cpu", 0, 1, &device));
    synthetic_create(&s, 21, 0, 1, 60000);
    CHECK(!mz_writer_create(&synthetic_world, device, s.shards, s.n_shards, 0, &writer));
    for (int64_t step = 6; step <= 7; step++) { /* HDF5 lays out the first; the second takes that over */
        const mz_save_request request = {out, step, 1, "{}", true, false, NULL};
        synthetic_fill(&s, step);
        CHECK(!mz_writer_save(writer, &request) && !mz_writer_wait(writer));
    }
    mz_writer_destroy(writer);
    synthetic_destroy(&s);
    mz_device_close(device);
}

static void write_weights(const char *out, const char *name, mz_dtype dtype, int64_t max_file_bytes)
{
    const mz_consolidate_options options = {
        .checkpoint = out, .output = scratch_path(out, name), .dtype = dtype, .max_file_bytes = max_file_bytes};
    mz_consolidate_facts facts;
    CHECK(!mz_consolidate(NULL, &options, &facts));
}

static void copy_model(const char *model, const char *to)
{
    mz_weights *weights;
    mz_weights_writer *writer;
    char *config;
    size_t bytes;
    CHECK(!mz_weights_open(model, &weights));
    const int n = mz_weights_n_tensors(weights);
    mz_weights_entry *entries = calloc((size_t)n, sizeof *entries);
    for (int i = 0; i < n; i++) {
        const mz_weights_tensor *tensor = mz_weights_at(weights, i);
        entries[i] = (mz_weights_entry){.name = tensor->name, .n_dims = tensor->n_dims};
        memcpy(entries[i].shape, tensor->shape, sizeof tensor->shape);
    }
    CHECK(!mz_weights_writer_open(to, entries, n, MZ_F32, 2000, true, &writer));
    for (int i = 0; i < n; i++) {
        const mz_weights_tensor *tensor = mz_weights_at(weights, i);
        float *values = malloc((size_t)tensor->numel * sizeof *values);
        CHECK(values && !mz_weights_read(weights, tensor, 0, tensor->numel, values));
        CHECK(!mz_weights_writer_put(writer, i, 0, tensor->numel, values));
        free(values);
    }
    CHECK(!mz_weights_writer_finish(writer));
    mz_weights_writer_close(writer);
    mz_weights_close(weights);
    free(entries);
    CHECK(!mz_file_read(scratch_path(model, "config.json"), &config, &bytes));
    CHECK(!mz_model_folder_write_config(to, config, MZ_F32));
    CHECK(!mz_model_folder_copy_tokenizer(model, to));
    mz_free(config);
}

int main(int argc, char **argv)
{
    CHECK(argc == 2 || argc == 3);
    write_checkpoint(argv[1]);
    write_weights(argv[1], "f32", MZ_F32, 0);
    write_weights(argv[1], "split", MZ_F32, 9000);
    write_weights(argv[1], "bf16", MZ_BF16, 0);
    if (argc == 3)
        copy_model(argv[2], scratch_path(argv[1], "model"));
    return 0;
}
