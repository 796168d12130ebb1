#include "train/bench.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "comm/conclude.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/memory.h"
#include "train/engine_impl.h"
#include "train/peak.h"
#include "train/predict.h"
#include "train/profile.h"
#include "train/setup.h"

#define GIB (1024.0 * 1024.0 * 1024.0)

/* What data sheets say of dense bf16 products (fp16 is the same), by a part of the device's name. */
static const struct {
    const char *name;
    double flops;
} data_sheets[] = {{"H200", 989e12}, {"H100", 989e12}, {"A100", 312e12}};

typedef struct spread {
    double median, least, most;
} spread;

typedef struct bench {
    mz_world *world;
    const mz_bench_options *options;
    mz_model *model;
    mz_config config;
    mz_engine *engine;
    mz_token_batch tokens;
    int64_t block_size;
    uint64_t draws;
    /* results */
    spread seconds; /* of a step */
    double loss, exposed_seconds, memory_bytes;
    double flops_per_token, peak_flops, sheet_flops; /* peaks of one rank; 0: not known */
    mz_profile_times profile;
} bench;

void mz_bench_options_default(mz_bench_options *options)
{
    *options = (mz_bench_options){.steps = 20, .warmup = 5};
    mz_config_defaults_init(&options->flags);
}

/* ---- start ---- */

static mz_status open_model(bench *b)
{
    bool is_folder;
    mz_config_defaults flags = b->options->flags;
    mz_status st = mz_setup_open_model(b->options->model, &is_folder, &b->model);
    if (st != MZ_OK)
        return st;
    const mz_model_info *info = mz_model_get_info(b->model);
    int64_t most = info->max_positions;
    b->block_size = b->options->block_size > 0 ? b->options->block_size : most < 1024 ? most : 1024;
    if (b->block_size > most)
        return mz_fail(MZ_ERR_USAGE, "--block-size %lld: the model has %lld positions", (long long)b->block_size,
                       (long long)most);
    flags.hidden_size = info->hidden;
    flags.total_steps = b->options->warmup + b->options->steps + 1;
    b->flops_per_token = mz_flops_per_token(b->model, b->block_size);
    return mz_config_load(b->options->config_path, &flags, b->world->size, &b->config);
}

static mz_status start(bench *b)
{
    const mz_engine_options engine_options = {.device = b->options->device, .n_threads = b->options->cpu_threads};
    mz_status st = mz_agree(b->world, open_model(b), "opening the model");
    if (st == MZ_OK)
        st = mz_engine_create(b->world, &b->config, b->model, &engine_options, &b->engine);
    if (st == MZ_OK)
        st = mz_agree(b->world, mz_token_batch_create(b->config.micro_batch_size, b->block_size, &b->tokens),
                      "making the batch");
    if (st == MZ_OK)
        st = mz_engine_plan(b->engine, &b->tokens.batch);
    if (st != MZ_OK)
        return st;
    b->draws = 0x9E3779B97F4A7C15u * (uint64_t)(b->world->rank + 1);
    b->peak_flops = mz_peak_flops(b->engine->device, b->engine->compute, b->config.dtype);
    for (size_t i = 0; i < sizeof data_sheets / sizeof *data_sheets; i++)
        if (b->config.dtype != MZ_F32 && strstr(b->engine->device->label, data_sheets[i].name))
            b->sheet_flops = data_sheets[i].flops;
    return MZ_OK;
}

/* ---- steps ---- */

/* Tokens drawn evenly from the vocabulary; each is the label of the one before. */
static void fill_batch(bench *b)
{
    const uint64_t vocab = (uint64_t)mz_model_get_info(b->model)->vocab;
    const int64_t samples = b->tokens.batch.n_samples, block = b->block_size;
    for (int64_t i = 0; i < samples * block; i++) {
        b->draws = b->draws * 6364136223846793005u + 1442695040888963407u;
        b->tokens.ids[i] = (int32_t)((b->draws >> 33) % vocab);
    }
    for (int64_t s = 0; s < samples; s++) {
        memcpy(b->tokens.labels + s * block, b->tokens.ids + s * block + 1, (size_t)(block - 1) * sizeof(int32_t));
        b->tokens.labels[s * block + block - 1] = -100;
    }
    b->tokens.batch.n_targets = samples * (block - 1);
    b->tokens.batch.n_targets_global = b->config.train_batch_size * (block - 1);
}

static mz_status run_step(bench *b)
{
    mz_step_info info = {0};
    mz_status st = MZ_OK;
    for (int64_t micro = 0; micro < b->config.gradient_accumulation_steps && st == MZ_OK; micro++) {
        fill_batch(b);
        st = mz_engine_forward(b->engine, &b->tokens.batch);
        if (st == MZ_OK)
            st = mz_engine_backward(b->engine);
        if (st == MZ_OK)
            st = mz_engine_step(b->engine, &info);
    }
    b->loss = info.loss;
    return st;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* A step's time is from the end of the step before it; the first one starts with nothing under way. */
static mz_status run_timed(bench *b)
{
    const int64_t n = b->options->steps;
    mz_stream *compute = b->engine->compute;
    double *times = mz_alloc((size_t)n * sizeof *times);
    mz_status st = times ? MZ_OK : MZ_ERR_MEMORY;
    for (int64_t i = 0; i < b->options->warmup && st == MZ_OK; i++)
        st = run_step(b);
    if (st == MZ_OK)
        st = b->engine->device->ops->stream_sync(compute);
    if (st == MZ_OK)
        mz_zero_exposed_seconds(b->engine->zero);
    double before = mz_clock_seconds();
    for (int64_t i = 0; i < n && st == MZ_OK; i++) {
        st = run_step(b);
        if (st == MZ_OK && i + 1 == n)
            st = b->engine->device->ops->stream_sync(compute);
        double now = mz_clock_seconds();
        times[i] = now - before;
        before = now;
    }
    if (st == MZ_OK) {
        b->exposed_seconds = mz_zero_exposed_seconds(b->engine->zero) / (double)n;
        qsort(times, (size_t)n, sizeof *times, by_value);
        b->seconds = (spread){times[n / 2], times[0], times[n - 1]};
    }
    mz_free(times);
    return st;
}

static mz_status run_profiled(bench *b)
{
    mz_profile *profile = NULL;
    mz_status st = mz_agree(b->world, mz_profile_begin(b->engine, &profile), "starting the profile");
    if (st == MZ_OK)
        st = run_step(b);
    mz_status ended = mz_profile_end(profile, st == MZ_OK ? &b->profile : NULL);
    return st == MZ_OK ? ended : st;
}

/* What the rank with the most has; and a rank's memory is all that its device has given away. */
static mz_status gather(bench *b)
{
    const mz_device_ops *ops = b->engine->device->ops;
    size_t free_bytes = 0, total = 0;
    mz_status st = MZ_OK;
    if (strcmp(ops->name, "cpu") == 0)
        total = mz_memory_peak();
    else
        st = ops->memory_info(b->engine->device, &free_bytes, &total);
    double values[2] = {(double)(total - free_bytes), b->exposed_seconds};
    st = mz_agree(b->world, st, "asking for memory");
    if (st == MZ_OK && b->engine->comm)
        st = mz_all_reduce_host(b->engine->comm, values, 2, true, "memory and stalls");
    b->memory_bytes = values[0];
    b->exposed_seconds = values[1];
    return st;
}

/* ---- report ---- */

static double tokens_per_step(const bench *b)
{
    return (double)b->config.train_batch_size * (double)b->block_size;
}

/* Share of a peak of all ranks that the median step reaches; 0 where the peak is not known. */
static double share_of(const bench *b, double peak)
{
    if (peak <= 0)
        return 0;
    return b->flops_per_token * tokens_per_step(b) / b->seconds.median / (peak * b->world->size);
}

static json_t *profile_json(const mz_profile_times *p)
{
    json_t *families = json_object(), *units = json_array();
    double rest = p->step;
    for (int f = 0; f < MZ_N_FAMILIES; f++) {
        rest -= p->seconds[f];
        json_object_set_new(
            families, mz_family_name(f),
            json_pack("{s:f, s:I}", "ms", 1e3 * p->seconds[f], "launches", (json_int_t)p->launches[f]));
    }
    for (int u = 0; u < p->n_units; u++)
        json_array_append_new(units,
                              json_pack("{s:s, s:f, s:f}", "name", p->units[u].name, "forward_ms",
                                        1e3 * p->units[u].forward, "backward_ms", 1e3 * p->units[u].backward));
    return json_pack("{s:f, s:o, s:f, s:o}", "step_ms", 1e3 * p->step, "families", families, "rest_ms", 1e3 * rest,
                     "units", units);
}

static json_t *spread_json(double median, double least, double most)
{
    return json_pack("{s:f, s:f, s:f}", "median", median, "min", least, "max", most);
}

static mz_status print_json(const bench *b, FILE *out)
{
    const double n = tokens_per_step(b);
    json_t *root =
        json_pack("{s:s, s:s, s:I, s:s, s:i, s:i, s:I, s:I, s:I, s:I}", "device", b->engine->device->label, "model",
                  mz_model_get_info(b->model)->family, "parameters", (json_int_t)mz_model_n_params(b->model),
                  "dtype", mz_dtype_name(b->config.dtype), "zero_stage", b->config.zero.stage, "ranks",
                  b->world->size, "micro_batch_size", (json_int_t)b->config.micro_batch_size,
                  "gradient_accumulation_steps", (json_int_t)b->config.gradient_accumulation_steps, "block_size",
                  (json_int_t)b->block_size, "steps", (json_int_t)b->options->steps);
    if (!root)
        return mz_fail(MZ_ERR_MEMORY, "no memory for the report");
    json_object_set_new(root, "tokens_per_second",
                        spread_json(n / b->seconds.median, n / b->seconds.most, n / b->seconds.least));
    json_object_set_new(root, "step_ms",
                        spread_json(1e3 * b->seconds.median, 1e3 * b->seconds.least, 1e3 * b->seconds.most));
    json_object_set_new(root, "loss", json_real(b->loss));
    json_object_set_new(root, "flops_per_token", json_real(b->flops_per_token));
    json_object_set_new(root, "peak_flops_measured", json_real(b->peak_flops));
    json_object_set_new(root, "mfu_measured", json_real(share_of(b, b->peak_flops)));
    json_object_set_new(root, "peak_flops_data_sheet",
                        b->sheet_flops > 0 ? json_real(b->sheet_flops) : json_null());
    json_object_set_new(root, "mfu_data_sheet",
                        b->sheet_flops > 0 ? json_real(share_of(b, b->sheet_flops)) : json_null());
    json_object_set_new(root, "memory_bytes", json_integer((json_int_t)b->memory_bytes));
    json_object_set_new(root, "exposed_communication_ms", json_real(1e3 * b->exposed_seconds));
    json_object_set_new(root, "profile", profile_json(&b->profile));
    json_dumpf(root, out, JSON_INDENT(1) | JSON_REAL_PRECISION(8));
    fputc('\n', out);
    json_decref(root);
    return MZ_OK;
}

static void print_row(FILE *out, const char *name, double seconds, double whole, int64_t launches)
{
    fprintf(out, "  %-16s %10.3f ms %5.1f %%", name, 1e3 * seconds, whole > 0 ? 100 * seconds / whole : 0);
    if (launches > 0)
        fprintf(out, " %7lld", (long long)launches);
    fputc('\n', out);
}

static void print_profile(const mz_profile_times *p, FILE *out)
{
    double rest = p->step;
    fprintf(out, "\none more step, each launch timed: %.3f ms, and how often\n", 1e3 * p->step);
    for (int f = 0; f < MZ_N_FAMILIES; f++) {
        print_row(out, mz_family_name(f), p->seconds[f], p->step, p->launches[f]);
        rest -= p->seconds[f];
    }
    print_row(out, "host and gaps", rest, p->step, 0);
    fprintf(out, "\n  %-20s %13s %13s\n", "unit", "forward", "backward");
    for (int u = 0; u < p->n_units; u++)
        fprintf(out, "  %-20s %10.3f ms %10.3f ms\n", p->units[u].name, 1e3 * p->units[u].forward,
                1e3 * p->units[u].backward);
}

static void print_text(const bench *b, FILE *out)
{
    const double n = tokens_per_step(b);
    fprintf(out, "%s, %.1f M parameters, %s, ZeRO-%d over %d rank%s; %s\n", mz_model_get_info(b->model)->family,
            1e-6 * (double)mz_model_n_params(b->model), mz_dtype_name(b->config.dtype), b->config.zero.stage,
            b->world->size, b->world->size == 1 ? "" : "s", b->engine->device->label);
    fprintf(out, "global batch %lld (%lld x %lld x %d) of %lld tokens; %lld steps after %lld\n\n",
            (long long)b->config.train_batch_size, (long long)b->config.micro_batch_size,
            (long long)b->config.gradient_accumulation_steps, b->world->size, (long long)b->block_size,
            (long long)b->options->steps, (long long)b->options->warmup);
    fprintf(out, "tokens/s       %.0f (median; %.0f to %.0f)\n", n / b->seconds.median, n / b->seconds.most,
            n / b->seconds.least);
    fprintf(out, "step           %.3f ms (%.3f to %.3f), loss %.4f\n", 1e3 * b->seconds.median,
            1e3 * b->seconds.least, 1e3 * b->seconds.most, b->loss);
    fprintf(out, "work           %.4g FLOP per token (6 N + 12 L H Q T)\n", b->flops_per_token);
    fprintf(out, "MFU            %.1f %% of %.4g TFLOP/s per rank, a matrix product measured here\n",
            100 * share_of(b, b->peak_flops), 1e-12 * b->peak_flops);
    if (b->sheet_flops > 0)
        fprintf(out, "               %.1f %% of %.4g TFLOP/s per rank, the data sheet's\n",
                100 * share_of(b, b->sheet_flops), 1e-12 * b->sheet_flops);
    fprintf(out, "memory         %.2f GiB on the rank with the most\n", b->memory_bytes / GIB);
    fprintf(out, "communication  %.3f ms per step that compute did not hide\n", 1e3 * b->exposed_seconds);
    print_profile(&b->profile, out);
}

mz_status mz_bench_train(mz_world *world, const mz_bench_options *options, FILE *out)
{
    bench b = {.world = world, .options = options};
    mz_status st = start(&b);
    if (st == MZ_OK)
        st = run_timed(&b);
    if (st == MZ_OK)
        st = gather(&b);
    if (st == MZ_OK)
        st = run_profiled(&b);
    if (st == MZ_OK && world->rank == 0) {
        if (options->json)
            st = print_json(&b, out);
        else
            print_text(&b, out);
    }
    mz_conclude_early(world, st);
    mz_profile_times_free(&b.profile);
    mz_token_batch_free(&b.tokens);
    mz_engine_destroy(b.engine);
    mz_model_destroy(b.model);
    return st;
}
