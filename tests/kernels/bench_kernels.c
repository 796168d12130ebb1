/* Time of each CPU kernel at the shapes of two training steps: GPT-2 124M (4 x 256 tokens) and nanoGPT's small
 * character model (12 x 64 tokens, 4 heads, 128 wide).
 *
 *     bench_kernels [-c] [-t THREADS] [-i avx512|avx2|generic|ref] [-m SECONDS] [-w MODEL] [PATTERN]
 *
 * PATTERN restricts the output to lines that contain it; -m is the time spent on each line, -w one of the two
 * models; -c takes the calling thread's processor time instead of the time passed (with -t 1, on a machine that is
 * not idle). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/memory.h"
#include "kernels/cpu/cpu.h"

typedef struct bench {
    const mz_kernels *kernels;
    mz_device *device;
    mz_stream *stream;
    const char *pattern;
    const char *model; /* NULL: all */
    double seconds;
    clockid_t clock;
} bench;

/* A model's step, as far as kernels see it. */
typedef struct model_shape {
    const char *name;
    int64_t batch, context, width, heads, vocab, head_rows;
} model_shape;

typedef mz_status (*launch_fn)(const bench *b, const void *args);

static float *memory(int64_t n)
{
    float *p = mz_alloc_aligned((size_t)n * sizeof *p);
    if (!p) {
        fprintf(stderr, "%s\n", mz_last_error());
        exit(1);
    }
    uint32_t x = 12345;
    for (int64_t i = 0; i < n; i++) {
        x = x * 1664525u + 1013904223u;
        p[i] = (float)(x >> 8) * 0x1p-24f - 0.5f;
    }
    return p;
}

static void swap_down(double *times, int n)
{
    for (int i = n - 1; i > 0 && times[i] < times[i - 1]; i--) {
        const double t = times[i];
        times[i] = times[i - 1];
        times[i - 1] = t;
    }
}

static double now(const bench *b)
{
    struct timespec t;
    clock_gettime(b->clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Prints the median time of a launch; flops and bytes may be 0. */
static void measure(const bench *b, const char *model, const char *what, launch_fn launch, const void *args,
                    double flops, double bytes)
{
    enum { MOST = 2000 };
    static double times[MOST];
    char name[96];
    snprintf(name, sizeof name, "%s %s", model, what);
    if (b->pattern && !strstr(name, b->pattern))
        return;
    int n = 0;
    if (launch(b, args)) {
        printf("%-28s %s\n", name, mz_last_error());
        return;
    }
    for (const double end = mz_clock_seconds() + b->seconds; n < MOST && (n < 3 || mz_clock_seconds() < end);) {
        const double begin = now(b);
        launch(b, args);
        times[n++] = now(b) - begin;
        swap_down(times, n);
    }
    const double t = times[n / 2];
    printf("%-28s %10.1f us (least %10.1f)", name, t * 1e6, times[0] * 1e6);
    if (flops > 0)
        printf(" %8.1f GFLOP/s", flops / t * 1e-9);
    if (bytes > 0)
        printf(" %8.1f GB/s", bytes / t * 1e-9);
    printf("\n");
    fflush(stdout);
}

#define LAUNCH(kernel)                                                                                             \
    static mz_status launch_##kernel(const bench *b, const void *args)                                             \
    {                                                                                                              \
        return b->kernels->kernel(args, b->stream);                                                                \
    }
LAUNCH(matmul)
LAUNCH(layer_norm)
LAUNCH(layer_norm_grad)
LAUNCH(embedding)
LAUNCH(embedding_grad)
LAUNCH(attention)
LAUNCH(attention_grad)
LAUNCH(activation)
LAUNCH(activation_grad)
LAUNCH(add)
LAUNCH(dropout)
LAUNCH(cast)
LAUNCH(cross_entropy)
LAUNCH(sum_squares)
LAUNCH(sum)
LAUNCH(optim)

/* y = x W (forward), dx = dy W^T, dW = x^T dy, for a weight stored [in, out]. */
static void bench_linear(const bench *b, const char *model, const char *name, int64_t rows, int64_t in, int64_t out,
                         mz_epilogue forward)
{
    float *x = memory(rows * in), *w = memory(in * out), *y = memory(rows * out), *aux = memory(rows * out);
    float *dw = memory(in * out), *bias = memory(out), *dx = memory(rows * in), *aux_in = memory(rows * in);
    const double flops = 2.0 * (double)rows * (double)in * (double)out;
    mz_matmul_args a = {
        .batch = 1, .dtype = MZ_F32, .dtype_c = MZ_F32, .alpha = 1.0f, .m = rows, .n = out, .k = in};
    char what[64];

    a.a = x, a.lda = in, a.b = w, a.ldb = out, a.c = y, a.ldc = out;
    a.epilogue = forward, a.activation = MZ_ACT_GELU_TANH, a.bias = bias, a.aux = aux;
    snprintf(what, sizeof what, "%s forward", name);
    measure(b, model, what, launch_matmul, &a, flops, 0);

    a.m = rows, a.n = in, a.k = out, a.a = y, a.lda = out, a.b = w, a.ldb = out, a.trans_b = true;
    a.c = dx, a.ldc = in, a.epilogue = in > out ? MZ_EPI_DACT : MZ_EPI_NONE, a.aux = aux_in;
    snprintf(what, sizeof what, "%s grad x", name);
    measure(b, model, what, launch_matmul, &a, flops, 0);

    a.m = in, a.n = out, a.k = rows, a.a = x, a.lda = in, a.trans_a = true, a.b = y, a.ldb = out, a.trans_b = false;
    a.c = dw, a.ldc = out, a.epilogue = MZ_EPI_BGRAD_B, a.bias_grad = bias;
    snprintf(what, sizeof what, "%s grad w", name);
    measure(b, model, what, launch_matmul, &a, flops, 0);
    float *all[] = {x, w, y, aux, dw, bias, dx, aux_in};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        mz_free(all[i]);
}

/* The tied head, by chunks of rows: logits = x E^T, dx = dlogits E, dE += dlogits^T x; and the loss. */
static void bench_head(const bench *b, const model_shape *s)
{
    const int64_t rows = s->head_rows, v = s->vocab, d = s->width;
    float *x = memory(rows * d), *e = memory(v * d), *logits = memory(rows * v), *de = memory(v * d);
    float loss = 0, scale = 1.0f / 1024;
    int32_t *labels = mz_calloc((size_t)rows, sizeof *labels);
    const double flops = 2.0 * (double)rows * (double)v * (double)d;
    mz_matmul_args a = {.batch = 1, .dtype = MZ_F32, .dtype_c = MZ_F32, .alpha = 1.0f, .m = rows, .n = v, .k = d};

    a.a = x, a.lda = d, a.b = e, a.ldb = d, a.trans_b = true, a.c = logits, a.ldc = v;
    measure(b, s->name, "head forward", launch_matmul, &a, flops, 0);
    const mz_cross_entropy_args loss_args = {.rows = rows,
                                             .vocab = v,
                                             .ld = v,
                                             .logits = logits,
                                             .labels = labels,
                                             .ignore_index = -100,
                                             .loss_scale = &scale,
                                             .grad_scale = &scale,
                                             .dlogits = logits,
                                             .loss = &loss,
                                             .dtype = MZ_F32};
    measure(b, s->name, "cross-entropy", launch_cross_entropy, &loss_args, 0, 12.0 * (double)rows * (double)v);
    a.m = rows, a.n = d, a.k = v, a.a = logits, a.lda = v, a.b = e, a.ldb = d, a.trans_b = false, a.c = x,
    a.ldc = d;
    measure(b, s->name, "head grad x", launch_matmul, &a, flops, 0);
    a.m = v, a.n = d, a.k = rows, a.a = logits, a.lda = v, a.trans_a = true, a.b = x, a.ldb = d, a.c = de,
    a.ldc = d;
    a.accumulate = true;
    measure(b, s->name, "head grad w", launch_matmul, &a, flops, 0);
    mz_free(x), mz_free(e), mz_free(logits), mz_free(de), mz_free(labels);
}

static void bench_attention(const bench *b, const model_shape *s)
{
    const int64_t rows = s->batch * s->context, d = s->width;
    float *qkv = memory(rows * 3 * d), *o = memory(rows * d), *dqkv = memory(rows * 3 * d);
    float *lse = memory(s->batch * s->heads * s->context), *d_o = memory(rows * d);
    mz_attention_shape shape = {.batch = s->batch,
                                .heads = s->heads,
                                .t_q = s->context,
                                .t_k = s->context,
                                .head_size = d / s->heads,
                                .scale = 0.125f,
                                .causal = true,
                                .dtype = MZ_F32};
    shape.q_batch = shape.k_batch = shape.v_batch = s->context * 3 * d;
    shape.q_token = shape.k_token = shape.v_token = 3 * d;
    shape.q_head = shape.k_head = shape.v_head = shape.o_head = d / s->heads;
    shape.o_batch = s->context * d;
    shape.o_token = d;
    const double pairs = 0.5 * (double)s->batch * (double)s->heads * (double)s->context * (double)s->context;
    const double flops = 4.0 * pairs * (double)(d / s->heads);

    const mz_attention_args forward = {shape, qkv, qkv + d, qkv + 2 * d, o, lse};
    measure(b, s->name, "attention", launch_attention, &forward, flops, 0);
    mz_attention_grad_args backward = {.shape = shape,
                                       .q = qkv,
                                       .k = qkv + d,
                                       .v = qkv + 2 * d,
                                       .o = o,
                                       .d_o = d_o,
                                       .lse = lse,
                                       .dq = dqkv,
                                       .dk = dqkv + d,
                                       .dv = dqkv + 2 * d};
    measure(b, s->name, "attention grad", launch_attention_grad, &backward, 2.5 * flops, 0);
    mz_free(qkv), mz_free(o), mz_free(dqkv), mz_free(lse), mz_free(d_o);
}

static void bench_rows(const bench *b, const model_shape *s)
{
    const int64_t rows = s->batch * s->context, d = s->width, n = rows * d;
    float *x = memory(n), *residual = memory(n), *sum = memory(n), *y = memory(n), *weight = memory(d);
    float *bias = memory(d), *mean = memory(rows), *rstd = memory(rows), *table = memory(s->vocab * d);
    int32_t *ids = mz_calloc((size_t)rows, sizeof *ids);
    for (int64_t i = 0; i < rows; i++)
        ids[i] = (int32_t)(i * 7919 % s->vocab);

    const mz_layer_norm_args norm = {rows, d, 1e-5f, x, residual, weight, bias, sum, y, mean, rstd, MZ_F32};
    measure(b, s->name, "layer norm", launch_layer_norm, &norm, 0, 16.0 * (double)n);
    const mz_layer_norm_grad_args norm_grad = {.rows = rows,
                                               .cols = d,
                                               .dy = y,
                                               .x = sum,
                                               .weight = weight,
                                               .dresidual = residual,
                                               .mean = mean,
                                               .rstd = rstd,
                                               .dx = x,
                                               .dweight = weight,
                                               .dbias = bias};
    measure(b, s->name, "layer norm grad", launch_layer_norm_grad, &norm_grad, 0, 16.0 * (double)n);
    const mz_embedding_args look_up = {.n = rows,
                                       .cols = d,
                                       .vocab = s->vocab,
                                       .ids = ids,
                                       .table = table,
                                       .period = s->context,
                                       .positions = table,
                                       .y = y};
    measure(b, s->name, "embedding", launch_embedding, &look_up, 0, 12.0 * (double)n);
    const mz_embedding_grad_args scatter = {.n = rows,
                                            .cols = d,
                                            .vocab = s->vocab,
                                            .n_positions = s->context,
                                            .ids = ids,
                                            .period = s->context,
                                            .dy = y,
                                            .dtable = table,
                                            .dpositions = x,
                                            .accumulate_dtable = true};
    measure(b, s->name, "embedding grad", launch_embedding_grad, &scatter, 0, 12.0 * (double)n);
    mz_free(x), mz_free(residual), mz_free(sum), mz_free(y), mz_free(weight), mz_free(bias), mz_free(mean);
    mz_free(rstd), mz_free(table), mz_free(ids);
}

static void bench_elements(const bench *b, const char *model, int64_t n)
{
    float *x = memory(n), *y = memory(n), *z = memory(n), scale = 1.0f;
    double sum = 0;
    uint64_t nonfinite = 0;
    mz_rng_state state = {1, 2, 3};
    const double bytes = (double)n;

    const mz_activation_args gelu = {n, MZ_ACT_GELU_TANH, x, y, MZ_F32};
    measure(b, model, "gelu", launch_activation, &gelu, 0, 8 * bytes);
    const mz_activation_grad_args gelu_grad = {n, MZ_ACT_GELU_TANH, y, x, z, MZ_F32};
    measure(b, model, "gelu grad", launch_activation_grad, &gelu_grad, 0, 12 * bytes);
    const mz_add_args add = {n, 1, 1, x, y, z, MZ_F32};
    measure(b, model, "add", launch_add, &add, 0, 12 * bytes);
    const mz_dropout_args dropout = {n, {0.1f, 5, n, &state}, x, NULL, z, MZ_F32};
    measure(b, model, "dropout", launch_dropout, &dropout, 0, 8 * bytes);
    const mz_cast_args cast = {.n = n, .src = x, .src_dtype = MZ_F32, .dst = y, .dst_dtype = MZ_BF16, .scale = 1};
    measure(b, model, "cast to bf16", launch_cast, &cast, 0, 6 * bytes);
    const mz_sum_squares_args squares = {n, z, MZ_F32, 1, &sum, &nonfinite};
    measure(b, model, "sum of squares", launch_sum_squares, &squares, 0, 4 * bytes);
    const void *sources[] = {x, z};
    const mz_sum_args sums = {n, 2, sources, MZ_F32, z, MZ_F32, scale};
    measure(b, model, "sum of two", launch_sum, &sums, 0, 12 * bytes);
    mz_free(x), mz_free(y), mz_free(z);
}

static void bench_optim(const bench *b, const char *model, int64_t n)
{
    float *w = memory(n), *m = memory(n), *v = memory(n), *g = memory(n), scale = 1.0f;
    for (int64_t i = 0; i < n; i++)
        v[i] *= v[i];
    const uint64_t nonfinite = 0;
    const mz_optim_hyper hyper = {.lr = 1e-3f,
                                  .beta1 = 0.9f,
                                  .beta2 = 0.999f,
                                  .eps = 1e-8f,
                                  .bias_correction1 = 0.5f,
                                  .bias_correction2 = 0.5f};
    const mz_optim_chunk chunk = {.master = w, .state1 = m, .state2 = v, .grad = g, .n = n, .lr_scale = 1};
    const mz_optim_args args = {.kind = MZ_OPTIM_ADAMW,
                                .chunks = &chunk,
                                .n_chunks = 1,
                                .n_elements = n,
                                .hyper = &hyper,
                                .grad_scale = &scale,
                                .nonfinite = &nonfinite};
    measure(b, model, "adamw", launch_optim, &args, 0, 28.0 * (double)n);
    mz_free(w), mz_free(m), mz_free(v), mz_free(g);
}

static void bench_model(const bench *b, const model_shape *s)
{
    const int64_t rows = s->batch * s->context, d = s->width;
    if (b->model && strcmp(b->model, s->name) != 0)
        return;
    bench_linear(b, s->name, "qkv", rows, d, 3 * d, MZ_EPI_BIAS);
    bench_linear(b, s->name, "projection", rows, d, d, MZ_EPI_BIAS);
    bench_linear(b, s->name, "up", rows, d, 4 * d, MZ_EPI_ACT);
    bench_linear(b, s->name, "down", rows, 4 * d, d, MZ_EPI_BIAS);
    bench_head(b, s);
    bench_attention(b, s);
    bench_rows(b, s);
    bench_elements(b, s->name, rows * 4 * d);
    bench_optim(b, s->name, 12 * d * d * (d == 768 ? 12 : 4) + s->vocab * d);
}

int main(int argc, char **argv)
{
    static const model_shape shapes[] = {{"gpt2", 4, 256, 768, 12, 50257, 256}, {"char", 12, 64, 128, 4, 65, 768}};
    bench b = {.kernels = &mz_kernels_cpu, .seconds = 0.5, .clock = CLOCK_MONOTONIC};
    int threads = 0;
    for (int c; (c = getopt(argc, argv, "ct:i:m:w:")) != -1;) {
        if (c == 'c')
            b.clock = CLOCK_THREAD_CPUTIME_ID;
        else if (c == 'w')
            b.model = optarg;
        else if (c == 't')
            threads = atoi(optarg);
        else if (c == 'i')
            b.kernels = strcmp(optarg, "ref") == 0 ? &mz_kernels_ref : mz_kernels_cpu_table(optarg);
        else if (c == 'm')
            b.seconds = atof(optarg);
        else
            return 2;
    }
    b.pattern = argv[optind];
    if (!b.kernels) {
        fprintf(stderr, "this processor or this build lacks that instruction set\n");
        return 2;
    }
    if (mz_device_open("cpu", 0, threads, &b.device) ||
        b.device->ops->stream_create(b.device, MZ_STREAM_COMPUTE, &b.stream)) {
        fprintf(stderr, "%s\n", mz_last_error());
        return 1;
    }
    printf("device: %s\n", b.device->label);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        bench_model(&b, &shapes[i]);
    b.device->ops->stream_destroy(b.stream);
    mz_device_close(b.device);
    return 0;
}
