/* Memory bandwidth of a device's kernels at the shapes of GPT-2 124M (32 x 1024 tokens) and XL (16 x 1024), bf16.
 *
 *     bench_device [-d DEVICE] [-s SHARE] [-r REPEATS] [PATTERN]
 *
 * Each line counts the bytes that a kernel cannot do without: inputs read once, outputs written once. Between two
 * launches something larger than the caches is read. -s shrinks the batch (1: as said), PATTERN restricts the
 * output to lines that contain it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/half.h"
#include "core/memory.h"
#include "device/device.h"
#include "kernels/kernels.h"

enum { MOST_REPEATS = 100, MOST_BUFFERS = 32, WARM_UP = 2 };
#define FLUSH_BYTES ((size_t)256 << 20)

typedef struct bench {
    mz_device *device;
    mz_stream *stream;
    mz_event *begin, *end;
    mz_sum_squares_args flush; /* reads more than the caches hold */
    const char *pattern, *model;
    double copy_rate; /* bytes per second of a large copy */
    int repeats;
    void *buffers[MOST_BUFFERS]; /* of the running group */
    int n_buffers, n_kept;       /* the first are kept */
} bench;

typedef struct shape {
    const char *name;
    int64_t rows, period, width, vocab, params;
} shape;

static void must(mz_status status)
{
    if (status != MZ_OK) {
        fprintf(stderr, "bench_device: %s\n", mz_last_error());
        exit(1);
    }
}

/* ---- memory: random numbers in [-1, 1), ids, or any bytes ---- */

static void *take(bench *b, size_t bytes)
{
    if (b->n_buffers == MOST_BUFFERS)
        abort();
    void *memory;
    must(b->device->ops->alloc(b->device, bytes, &memory));
    return b->buffers[b->n_buffers++] = memory;
}

static void *upload(bench *b, const void *host, size_t bytes)
{
    void *memory = take(b, bytes);
    must(b->device->ops->copy(b->stream, memory, host, bytes));
    must(b->device->ops->stream_sync(b->stream));
    return memory;
}

static void *numbers(bench *b, mz_dtype dtype, int64_t n)
{
    enum { PERIOD = 1 << 20 };
    static uint8_t host[PERIOD * 4];
    const size_t size = mz_dtype_size(dtype);
    uint32_t x = 12345;
    for (int64_t i = 0; i < PERIOD; i++) {
        x = x * 1664525u + 1013904223u;
        mz_store_f32(host, dtype, i, (float)(x >> 8) * 0x1p-23f - 1.0f);
    }
    char *memory = take(b, (size_t)n * size);
    for (int64_t i = 0; i < n; i += PERIOD)
        must(b->device->ops->copy(b->stream, memory + (size_t)i * size, host,
                                  (size_t)(n - i < PERIOD ? n - i : PERIOD) * size));
    must(b->device->ops->stream_sync(b->stream));
    return memory;
}

/* Below `below`; a third of them among the first hundred, as words are. */
static int32_t *ids(bench *b, int64_t n, int64_t below)
{
    int32_t *host = mz_alloc((size_t)n * sizeof *host);
    uint32_t x = 99;
    if (!host)
        must(MZ_ERR_MEMORY);
    for (int64_t i = 0; i < n; i++) {
        x = x * 1664525u + 1013904223u;
        host[i] = (int32_t)((x >> 8) % (uint64_t)(i % 3 ? below : below < 100 ? below : 100));
    }
    int32_t *memory = upload(b, host, (size_t)n * sizeof *host);
    mz_free(host);
    return memory;
}

static void release(bench *b)
{
    while (b->n_buffers > b->n_kept)
        b->device->ops->free(b->device, b->buffers[--b->n_buffers]);
}

/* ---- timing ---- */

typedef mz_status (*launch_fn)(const bench *b, const void *args);

static bool wanted(const bench *b, const char *what, char *name, size_t bytes)
{
    snprintf(name, bytes, "%s %s", b->model, what);
    return !b->pattern || strstr(name, b->pattern);
}

static int by_time(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median_time(bench *b, launch_fn launch, const void *args)
{
    const mz_device_ops *ops = b->device->ops;
    double times[MOST_REPEATS];
    for (int i = -WARM_UP; i < b->repeats; i++) {
        must(ops->kernels->sum_squares(&b->flush, b->stream));
        must(ops->event_record(b->begin, b->stream));
        must(launch(b, args));
        must(ops->event_record(b->end, b->stream));
        must(ops->event_sync(b->end));
        if (i >= 0)
            must(ops->event_elapsed(b->begin, b->end, &times[i]));
    }
    qsort(times, (size_t)b->repeats, sizeof *times, by_time);
    return times[b->repeats / 2];
}

static void measure(bench *b, const char *what, launch_fn launch, const void *args, double bytes)
{
    char name[96];
    if (!wanted(b, what, name, sizeof name))
        return;
    const double t = median_time(b, launch, args);
    printf("%-36s %9.1f us %9.1f MB %8.0f GB/s %6.1f %% of a copy\n", name, t * 1e6, bytes * 1e-6, bytes / t * 1e-9,
           100 * bytes / t / b->copy_rate);
    fflush(stdout);
}

#define LAUNCH(kernel)                                                                                             \
    static mz_status launch_##kernel(const bench *b, const void *args)                                             \
    {                                                                                                              \
        return b->device->ops->kernels->kernel(args, b->stream);                                                   \
    }
LAUNCH(layer_norm)
LAUNCH(layer_norm_grad)
LAUNCH(embedding)
LAUNCH(embedding_grad)
LAUNCH(activation)
LAUNCH(activation_grad)
LAUNCH(add)
LAUNCH(dropout)
LAUNCH(cast)
LAUNCH(column_sum)
LAUNCH(cross_entropy)
LAUNCH(sum_squares)
LAUNCH(sum)
LAUNCH(optim)

typedef struct copy_args {
    void *dst;
    const void *src;
    size_t bytes;
} copy_args;

static mz_status launch_copy(const bench *b, const void *args)
{
    const copy_args *a = args;
    return b->device->ops->copy(b->stream, a->dst, a->src, a->bytes);
}

static void bench_copy(bench *b, size_t bytes)
{
    const copy_args copy = {numbers(b, MZ_F32, (int64_t)bytes / 4), numbers(b, MZ_F32, (int64_t)bytes / 4), bytes};
    const double t = median_time(b, launch_copy, &copy);
    b->copy_rate = 2 * (double)bytes / t;
    printf("%-36s %9.1f us %9.1f MB %8.0f GB/s\n", "copy", t * 1e6, 2e-6 * (double)bytes, b->copy_rate * 1e-9);
    release(b);
}

/* ---- kernels ---- */

static void bench_norm(bench *b, const shape *s)
{
    const int64_t n = s->rows * s->width;
    const double pass = 2.0 * (double)n; /* bytes of one tensor */
    mz_layer_norm_args forward = {.rows = s->rows,
                                  .cols = s->width,
                                  .eps = 1e-5f,
                                  .x = numbers(b, MZ_BF16, n),
                                  .weight = numbers(b, MZ_BF16, s->width),
                                  .bias = numbers(b, MZ_BF16, s->width),
                                  .y = take(b, (size_t)pass),
                                  .mean = take(b, (size_t)s->rows * 4),
                                  .rstd = take(b, (size_t)s->rows * 4),
                                  .dtype = MZ_BF16};
    measure(b, "layer norm", launch_layer_norm, &forward, 2 * pass);
    forward.residual = numbers(b, MZ_BF16, n);
    forward.sum = take(b, (size_t)pass);
    measure(b, "layer norm, residual", launch_layer_norm, &forward, 4 * pass);
    mz_layer_norm_grad_args backward = {.rows = s->rows,
                                        .cols = s->width,
                                        .dy = forward.residual,
                                        .x = forward.x,
                                        .weight = forward.weight,
                                        .mean = forward.mean,
                                        .rstd = forward.rstd,
                                        .dx = forward.y,
                                        .dweight = take(b, (size_t)s->width * 2),
                                        .dbias = take(b, (size_t)s->width * 2),
                                        .dtype = MZ_BF16,
                                        .dtype_grad = MZ_BF16};
    measure(b, "layer norm grad", launch_layer_norm_grad, &backward, 3 * pass);
    backward.dresidual = numbers(b, MZ_BF16, n);
    measure(b, "layer norm grad, residual", launch_layer_norm_grad, &backward, 4 * pass);
    release(b);
}

static void bench_embedding(bench *b, const shape *s)
{
    const int64_t n = s->rows * s->width;
    const mz_embedding_args forward = {.n = s->rows,
                                       .cols = s->width,
                                       .vocab = s->vocab,
                                       .ids = ids(b, s->rows, s->vocab),
                                       .table = numbers(b, MZ_BF16, s->vocab * s->width),
                                       .period = s->period,
                                       .positions = numbers(b, MZ_BF16, s->period * s->width),
                                       .y = numbers(b, MZ_BF16, n),
                                       .dtype = MZ_BF16};
    measure(b, "embedding", launch_embedding, &forward, 4.0 * (double)n);
    const mz_embedding_grad_args backward = {.n = s->rows,
                                             .cols = s->width,
                                             .vocab = s->vocab,
                                             .n_positions = s->period,
                                             .ids = forward.ids,
                                             .period = s->period,
                                             .dy = forward.y,
                                             .dtable = (void *)(uintptr_t)forward.table,
                                             .dpositions = (void *)(uintptr_t)forward.positions,
                                             .accumulate_dtable = true,
                                             .dtype = MZ_BF16,
                                             .dtype_grad = MZ_BF16};
    measure(b, "embedding grad", launch_embedding_grad, &backward, 2.0 * (double)n);
    release(b);
}

static void bench_loss(bench *b, const shape *s)
{
    const int64_t rows = s->rows / 16, ld = (s->vocab + 63) / 64 * 64;
    const float one = 1;
    mz_cross_entropy_args args = {.rows = rows,
                                  .vocab = s->vocab,
                                  .ld = ld,
                                  .logits = numbers(b, MZ_BF16, rows * ld),
                                  .labels = ids(b, rows, s->vocab),
                                  .ignore_index = -100,
                                  .loss_scale = upload(b, &one, sizeof one),
                                  .grad_scale = upload(b, &one, sizeof one),
                                  .loss = upload(b, &one, sizeof one),
                                  .dtype = MZ_BF16};
    args.dlogits = (void *)(uintptr_t)args.logits;
    measure(b, "cross entropy, 1/16 of the rows", launch_cross_entropy, &args, 4.0 * (double)(rows * s->vocab));
    release(b);
}

static void bench_elements(bench *b, const shape *s)
{
    const int64_t n = s->rows * s->width;
    void *x = numbers(b, MZ_BF16, 4 * n), *y = numbers(b, MZ_BF16, 4 * n), *z = take(b, (size_t)n * 8);
    const mz_rng_state rng = {1, 2, 3};
    const mz_activation_args gelu = {4 * n, MZ_ACT_GELU_TANH, x, z, MZ_BF16};
    measure(b, "gelu", launch_activation, &gelu, 16.0 * (double)n);
    const mz_activation_grad_args gelu_grad = {4 * n, MZ_ACT_GELU_TANH, y, x, z, MZ_BF16};
    measure(b, "gelu grad", launch_activation_grad, &gelu_grad, 24.0 * (double)n);
    const mz_add_args add = {n, 1, 1, x, y, z, MZ_BF16};
    measure(b, "add", launch_add, &add, 6.0 * (double)n);
    const mz_dropout_args dropout = {n, {0.1f, 5, n, upload(b, &rng, sizeof rng)}, x, y, z, MZ_BF16};
    measure(b, "dropout, residual", launch_dropout, &dropout, 6.0 * (double)n);
    const mz_cast_args cast = {.n = n, .src = x, .src_dtype = MZ_BF16, .dst = z, .dst_dtype = MZ_F32, .scale = 1};
    measure(b, "cast bf16 to fp32", launch_cast, &cast, 6.0 * (double)n);
    const void *sources[] = {x, y};
    const mz_sum_args sums = {n, 2, sources, MZ_BF16, z, MZ_BF16, 0.5f};
    measure(b, "sum of two", launch_sum, &sums, 6.0 * (double)n);
    static const int factors[] = {1, 3, 4};
    for (int i = 0; i < 3; i++) {
        const mz_column_sum_args columns = {.rows = s->rows,
                                            .cols = factors[i] * s->width,
                                            .x = x,
                                            .dtype = MZ_BF16,
                                            .out = z,
                                            .dtype_out = MZ_BF16};
        char what[64];
        snprintf(what, sizeof what, "column sum, %lld wide", (long long)columns.cols);
        measure(b, what, launch_column_sum, &columns, 2.0 * (double)n * factors[i]);
    }
    release(b);
}

/* A step's state in 50 chunks of unequal sizes. */
static void bench_state(bench *b, const shape *s)
{
    enum { N_CHUNKS = 50 };
    const int64_t n = s->params;
    const mz_optim_hyper hyper = {.lr = 1e-3f,
                                  .beta1 = 0.9f,
                                  .beta2 = 0.999f,
                                  .eps = 1e-8f,
                                  .bias_correction1 = 0.5f,
                                  .bias_correction2 = 0.5f};
    const float one = 1;
    const uint64_t none = 0;
    const double zero = 0;
    float *master = numbers(b, MZ_F32, n), *state1 = numbers(b, MZ_F32, n), *state2 = take(b, (size_t)n * 4);
    uint16_t *grad = numbers(b, MZ_BF16, n), *param = numbers(b, MZ_BF16, n);
    mz_optim_chunk chunks[N_CHUNKS];
    int64_t begin = 0;
    must(b->device->ops->fill(b->stream, state2, 0, (size_t)n * 4));
    for (int i = 0; i < N_CHUNKS; i++) {
        const int64_t size = i + 1 == N_CHUNKS ? n - begin : n / 64 / 64 / (N_CHUNKS + 4) * 64 * (i % 2 ? 96 : 4);
        chunks[i] = (mz_optim_chunk){.master = master + begin,
                                     .state1 = state1 + begin,
                                     .state2 = state2 + begin,
                                     .grad = grad + begin,
                                     .param = param + begin,
                                     .n = size,
                                     .lr_scale = 1};
        begin += size;
    }
    mz_optim_args optim = {.kind = MZ_OPTIM_ADAMW,
                           .chunks = upload(b, chunks, sizeof chunks),
                           .n_chunks = N_CHUNKS,
                           .n_elements = n,
                           .hyper = upload(b, &hyper, sizeof hyper),
                           .grad_scale = upload(b, &one, sizeof one),
                           .nonfinite = upload(b, &none, sizeof none),
                           .grad_dtype = MZ_BF16,
                           .param_dtype = MZ_BF16};
    measure(b, "adamw", launch_optim, &optim, 28.0 * (double)n);
    const mz_rng_state rng = {.seed = 1, .step = 1};
    const mz_rng_state *rng_there = upload(b, &rng, sizeof rng);
    optim.no_master = true;
    measure(b, "adamw, no master", launch_optim, &optim, 22.0 * (double)n);
    optim.rounding.state = rng_there;
    measure(b, "adamw, stochastic", launch_optim, &optim, 22.0 * (double)n);
    optim.state_dtype = MZ_BF16;
    must(b->device->ops->fill(b->stream, state1, 0, (size_t)n * 4));
    must(b->device->ops->fill(b->stream, state2, 0, (size_t)n * 4));
    measure(b, "adamw, all bf16", launch_optim, &optim, 14.0 * (double)n);
    const mz_sum_squares_args squares = {
        n, grad, MZ_BF16, 1, upload(b, &zero, sizeof zero), upload(b, &none, sizeof none)};
    measure(b, "sum of squares", launch_sum_squares, &squares, 2.0 * (double)n);
    release(b);
}

int main(int argc, char **argv)
{
    static const shape shapes[] = {{"124M", 32 * 1024, 1024, 768, 50257, 124439808},
                                   {"XL", 16 * 1024, 1024, 1600, 50257, 1557611200}};
    const char *device = "cuda";
    bench b = {.repeats = 20};
    double share = 1;
    for (int option; (option = getopt(argc, argv, "d:s:r:")) != -1;) {
        if (option == 'd')
            device = optarg;
        else if (option == 's')
            share = atof(optarg);
        else if (option == 'r')
            b.repeats = atoi(optarg);
        if (option == '?' || share <= 0 || share > 1 || b.repeats < 1 || b.repeats > MOST_REPEATS) {
            fprintf(stderr, "usage: bench_device [-d DEVICE] [-s SHARE] [-r REPEATS] [PATTERN]\n");
            return 2;
        }
    }
    b.pattern = argv[optind];
    must(mz_device_open(device, 0, 0, &b.device));
    must(b.device->ops->stream_create(b.device, MZ_STREAM_COMPUTE, &b.stream));
    must(b.device->ops->event_create(b.device, &b.begin));
    must(b.device->ops->event_create(b.device, &b.end));
    const double zero[2] = {0, 0};
    const void *large = numbers(&b, MZ_F32, FLUSH_BYTES / 4);
    double *sums = upload(&b, zero, sizeof zero);
    b.flush = (mz_sum_squares_args){FLUSH_BYTES / 4, large, MZ_F32, 1, sums, (uint64_t *)(sums + 1)};
    b.n_kept = b.n_buffers;
    printf("device: %s\n", b.device->label);
    bench_copy(&b, (size_t)(share * (double)(1u << 30)) / 4 * 4);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        shape s = shapes[i];
        s.rows = (int64_t)((double)s.rows * share / 16) * 16;
        s.params = (int64_t)((double)s.params * share / 64) * 64;
        if (s.rows < s.period)
            s.period = s.rows;
        b.model = s.name;
        bench_norm(&b, &s);
        bench_embedding(&b, &s);
        bench_loss(&b, &s);
        bench_elements(&b, &s);
        bench_state(&b, &s);
    }
    b.n_kept = 0;
    release(&b);
    b.device->ops->event_destroy(b.begin);
    b.device->ops->event_destroy(b.end);
    b.device->ops->stream_destroy(b.stream);
    mz_device_close(b.device);
    return 0;
}
