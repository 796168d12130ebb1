/* A sharded checkpoint as a weights folder: the values, whole and split, the same bytes from one process and from
 * many; then what `inspect` says of both. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint/safetensors.h"
#include "checkpoint/tools.h"
#include "core/file.h"
#include "core/half.h"
#include "core/memory.h"
#include "tests/checkpoint/scratch.h"
#include "tests/checkpoint/synthetic.h"

static mz_world *world;
static char run_folder[4096];

static void share_folder(char **mine)
{
    if (world->rank == 0)
        snprintf(run_folder, sizeof run_folder, "%s", *mine = scratch_create("consolidate"));
    MPI_Bcast(run_folder, sizeof run_folder, MPI_CHAR, 0, world->comm);
}

/* What a value of fp32 becomes in a file of this dtype. */
static float stored(float value, mz_dtype dtype)
{
    uint32_t raw;
    mz_store_f32(&raw, dtype, 0, value);
    return mz_load_f32(&raw, dtype, 0);
}

static void check_values(const synthetic *s, const char *folder, mz_dtype dtype)
{
    mz_weights *weights;
    CHECK(!mz_weights_open(folder, &weights));
    CHECK(mz_weights_n_tensors(weights) == s->n_tensors);
    for (int t = 0; t < s->n_tensors; t++) {
        const mz_weights_tensor *tensor = mz_weights_find(weights, s->names[t]);
        CHECK(tensor && tensor->dtype == dtype && tensor->numel == s->numel[t] && tensor->n_dims == s->n_dims[t]);
        float *got = malloc((size_t)tensor->numel * sizeof *got);
        CHECK(got && !mz_weights_read(weights, tensor, 0, tensor->numel, got));
        for (int64_t e = 0; e < tensor->numel; e++)
            CHECK(got[e] == stored(synthetic_value(s, t, MZ_SHARD_PARAM, e, 7), dtype));
        free(got);
    }
    mz_weights_close(weights);
}

static void check_same_file(const char *a, const char *b)
{
    char *text_a, *text_b;
    size_t bytes_a, bytes_b;
    CHECK(!mz_file_read(a, &text_a, &bytes_a) && !mz_file_read(b, &text_b, &bytes_b));
    CHECK(bytes_a == bytes_b && !memcmp(text_a, text_b, bytes_a));
    mz_free(text_a);
    mz_free(text_b);
}

/* Both folders hold the same files with the same bytes; returns how many. */
static int check_same_folder(const char *a, const char *b)
{
    int n = 0, n_other = 0;
    DIR *folder = opendir(a);
    CHECK(folder);
    for (struct dirent *entry = readdir(folder); entry; entry = readdir(folder))
        if (*entry->d_name != '.' && ++n)
            check_same_file(scratch_path(a, entry->d_name), scratch_path(b, entry->d_name));
    closedir(folder);
    CHECK((folder = opendir(b)));
    for (struct dirent *entry = readdir(folder); entry; entry = readdir(folder))
        n_other += *entry->d_name != '.';
    closedir(folder);
    CHECK(n == n_other);
    return n;
}

/* alone: as the command does offline. */
static void consolidate(const char *output, mz_dtype dtype, int64_t max_file_bytes, bool alone)
{
    const mz_consolidate_options options = {.checkpoint = run_folder,
                                            .output = output,
                                            .dtype = dtype,
                                            .max_file_bytes = max_file_bytes,
                                            .buffer_bytes = 70001};
    mz_consolidate_facts facts;
    CHECK(!mz_consolidate(alone ? NULL : world, &options, &facts));
    CHECK(facts.step == 7 && facts.n_tensors == SYNTHETIC_TENSORS);
    CHECK(facts.bytes_written == facts.n_parameters * (int64_t)mz_dtype_size(dtype));
}

/* Many files, then few, then one in the same folder: what is stale goes. */
static void check_layouts(const synthetic *s)
{
    char alone[4200], together[4200];
    snprintf(alone, sizeof alone, "%s/alone", run_folder);
    snprintf(together, sizeof together, "%s/together", run_folder);
    static const struct {
        mz_dtype dtype;
        int64_t max_file_bytes;
        int min_files, max_files; /* config.json and index included */
    } layouts[] = {{MZ_F32, 1, SYNTHETIC_TENSORS + 2, SYNTHETIC_TENSORS + 2},
                   {MZ_BF16, 9000, 4, SYNTHETIC_TENSORS + 1},
                   {MZ_F32, 0, 2, 2},
                   {MZ_F32, 1, SYNTHETIC_TENSORS + 2, SYNTHETIC_TENSORS + 2}};
    for (size_t i = 0; i < sizeof layouts / sizeof layouts[0]; i++) {
        if (world->rank == 0)
            consolidate(alone, layouts[i].dtype, layouts[i].max_file_bytes, true);
        consolidate(together, layouts[i].dtype, layouts[i].max_file_bytes, false);
        if (world->rank == 0) {
            const int n = check_same_folder(alone, together);
            if (n < layouts[i].min_files || n > layouts[i].max_files)
                fprintf(stderr, "layout %zu: %d files\n", i, n);
            CHECK(n >= layouts[i].min_files && n <= layouts[i].max_files);
        }
        check_values(s, together, layouts[i].dtype);
        MPI_Barrier(world->comm);
    }
}

static void check_fp16_range(void)
{
    const mz_consolidate_options options = {
        .checkpoint = run_folder, .output = scratch_path(run_folder, "half"), .dtype = MZ_F16};
    mz_consolidate_facts facts;
    CHECK(mz_consolidate(NULL, &options, &facts) == MZ_OK);
}

static void check_inspect(const synthetic *s)
{
    json_t *facts;
    char *text;
    CHECK(!mz_inspect(run_folder, true, &facts));
    CHECK(!strcmp(json_string_value(json_object_get(facts, "kind")), "checkpoint"));
    CHECK(json_is_true(json_object_get(facts, "whole")) && json_is_true(json_object_get(facts, "verified")));
    CHECK(json_integer_value(json_object_get(facts, "step")) == 7);
    CHECK(json_integer_value(json_object_get(facts, "world_size")) == world->size);
    CHECK(json_array_size(json_object_get(facts, "kinds")) == MZ_N_SHARD_KINDS);
    CHECK(json_array_size(json_object_get(facts, "tensors")) == (size_t)s->n_tensors);
    CHECK((text = mz_inspect_text(facts)) && strstr(text, "step 7") && strstr(text, "all checksums right"));
    mz_free(text);
    json_decref(facts);
    CHECK(!mz_inspect(scratch_path(run_folder, "together"), false, &facts));
    CHECK(!strcmp(json_string_value(json_object_get(facts, "kind")), "weights"));
    CHECK((text = mz_inspect_text(facts)) && strstr(text, "h.0.attn.c_attn.weight"));
    mz_free(text);
    json_decref(facts);
    CHECK(mz_inspect(scratch_path(run_folder, "none"), false, &facts) == MZ_ERR_IO && !facts);
    CHECK(!mz_make_directories(scratch_path(run_folder, "empty")));
    CHECK(mz_inspect(scratch_path(run_folder, "empty"), false, &facts) == MZ_ERR_CHECKPOINT && !facts);
    CHECK(!mz_make_directories(scratch_path(run_folder, "step-000003")));
    CHECK(mz_inspect(scratch_path(run_folder, "step-000003"), false, &facts) == MZ_ERR_CHECKPOINT);
    CHECK(json_is_false(json_object_get(facts, "whole")));
    CHECK((text = mz_inspect_text(facts)) && strstr(text, "DAMAGED"));
    mz_free(text);
    json_decref(facts);
}

int main(void)
{
    char *mine = NULL;
    synthetic s;
    mz_device *device;
    mz_writer *writer;
    CHECK(!mz_world_create(NULL, &world));
    CHECK(!mz_device_open("cpu", 0, 1, &device));
    share_folder(&mine);
    synthetic_create(&s, 11, world->rank, world->size, 60000);
    CHECK(!mz_writer_create(world, device, s.shards, s.n_shards, 0, &writer));
    synthetic_fill(&s, 7);
    const mz_save_request request = {run_folder, 7,    0, "{\"model_config\": {\"model_type\": \"none\"}}",
                                     false,      false, NULL};
    CHECK(!mz_writer_save(writer, &request));
    mz_writer_destroy(writer);
    check_layouts(&s);
    if (world->rank == 0) {
        check_fp16_range();
        check_inspect(&s);
    }
    MPI_Barrier(world->comm);
    synthetic_destroy(&s);
    mz_device_close(device);
    if (mine)
        scratch_remove(mine);
    mz_world_destroy(world);
    return 0;
}
