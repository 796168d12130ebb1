/* Time of each CPU kernel at the shapes of two training steps: GPT-2 124M (4 x 256 tokens) and nanoGPT's small
 * character model (12 x 64 tokens, 4 heads, 128 wide).
 *
 *     bench_kernels [-c] [-t THREADS] [-d fp32|bf16|fp16] [-i avx512_bf16|avx512|avx2|generic|ref] [-m SECONDS]
 *                   [-w MODEL] [PATTERN]
 *
 * PATTERN restricts the output to lines that contain it; -d is the type of activations, weights and their
 * gradients; -m is the time spent on each line, -w one of the two models; -c takes the calling thread's processor
 * time instead of the time passed (with -t 1, on a machine that is not idle). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/half.h"
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
    mz_dtype dtype;
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

/* The same numbers as the bench's type. */
static void *tensor(const bench *b, int64_t n)
{
    float *x = memory(n);
    if (b->dtype == MZ_F32)
        return x;
    uint16_t *y = (uint16_t *)memory((n + 1) / 2);
    for (int64_t i = 0; i < n; i++)
        y[i] = b->dtype == MZ_BF16 ? mz_f32_to_bf16(x[i]) : mz_f32_to_f16(x[i]);
    mz_free(x);
    return y;
}

static void *behind(const bench *b, void *p, int64_t n)
{
    return (char *)p + (size_t)n * mz_dtype_size(b->dtype);
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
LAUNCH(quantize)
LAUNCH(dequantize)

/* y = x W (forward), dx = dy W^T, dW = x^T dy, for a weight stored [in, out]. */
static void bench_linear(const bench *b, const char *model, const char *name, int64_t rows, int64_t in, int64_t out,
                         mz_epilogue forward)
{
    void *x = tensor(b, rows * in), *w = tensor(b, in * out), *y = tensor(b, rows * out);
    void *aux = tensor(b, rows * out), *dw = tensor(b, in * out), *bias = tensor(b, out),
         *dx = tensor(b, rows * in);
    void *aux_in = tensor(b, rows * in);
    const double flops = 2.0 * (double)rows * (double)in * (double)out;
    mz_matmul_args a = {
        .batch = 1, .dtype = b->dtype, .dtype_c = b->dtype, .alpha = 1.0f, .m = rows, .n = out, .k = in};
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
    void *all[] = {x, w, y, aux, dw, bias, dx, aux_in};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        mz_free(all[i]);
}

/* The tied head, by chunks of rows: logits = x E^T, dx = dlogits E, dE += dlogits^T x; and the loss. */
static void bench_head(const bench *b, const model_shape *s)
{
    const int64_t rows = s->head_rows, v = s->vocab, d = s->width;
    void *x = tensor(b, rows * d), *e = tensor(b, v * d), *logits = tensor(b, rows * v), *de = tensor(b, v * d);
    float loss = 0, scale = 1.0f / 1024;
    int32_t *labels = mz_calloc((size_t)rows, sizeof *labels);
    const double flops = 2.0 * (double)rows * (double)v * (double)d;
    mz_matmul_args a = {
        .batch = 1, .dtype = b->dtype, .dtype_c = b->dtype, .alpha = 1.0f, .m = rows, .n = v, .k = d};

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
                                             .dtype = b->dtype};
    measure(b, s->name, "cross-entropy", launch_cross_entropy, &loss_args, 0,
            3.0 * (double)mz_dtype_size(b->dtype) * (double)rows * (double)v);
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
    void *qkv = tensor(b, rows * 3 * d), *o = tensor(b, rows * d), *dqkv = tensor(b, rows * 3 * d);
    void *d_o = tensor(b, rows * d);
    float *lse = memory(s->batch * s->heads * s->context);
    mz_attention_shape shape = {.batch = s->batch,
                                .heads = s->heads,
                                .t_q = s->context,
                                .t_k = s->context,
                                .head_size = d / s->heads,
                                .scale = 0.125f,
                                .causal = true,
                                .dtype = b->dtype};
    shape.q_batch = shape.k_batch = shape.v_batch = s->context * 3 * d;
    shape.q_token = shape.k_token = shape.v_token = 3 * d;
    shape.q_head = shape.k_head = shape.v_head = shape.o_head = d / s->heads;
    shape.o_batch = s->context * d;
    shape.o_token = d;
    const double pairs = 0.5 * (double)s->batch * (double)s->heads * (double)s->context * (double)s->context;
    const double flops = 4.0 * pairs * (double)(d / s->heads);

    const mz_attention_args forward = {shape, qkv, behind(b, qkv, d), behind(b, qkv, 2 * d), o, lse};
    measure(b, s->name, "attention", launch_attention, &forward, flops, 0);
    mz_attention_grad_args backward = {.shape = shape,
                                       .q = qkv,
                                       .k = behind(b, qkv, d),
                                       .v = behind(b, qkv, 2 * d),
                                       .o = o,
                                       .d_o = d_o,
                                       .lse = lse,
                                       .dq = dqkv,
                                       .dk = behind(b, dqkv, d),
                                       .dv = behind(b, dqkv, 2 * d)};
    measure(b, s->name, "attention grad", launch_attention_grad, &backward, 2.5 * flops, 0);
    mz_free(qkv), mz_free(o), mz_free(dqkv), mz_free(lse), mz_free(d_o);
}

static void bench_rows(const bench *b, const model_shape *s)
{
    const int64_t rows = s->batch * s->context, d = s->width, n = rows * d;
    const double bytes = (double)mz_dtype_size(b->dtype) * (double)n;
    void *x = tensor(b, n), *residual = tensor(b, n), *sum = tensor(b, n), *y = tensor(b, n),
         *weight = tensor(b, d);
    void *bias = tensor(b, d), *table = tensor(b, s->vocab * d);
    float *mean = memory(rows), *rstd = memory(rows);
    int32_t *ids = mz_calloc((size_t)rows, sizeof *ids);
    for (int64_t i = 0; i < rows; i++)
        ids[i] = (int32_t)(i * 7919 % s->vocab);

    const mz_layer_norm_args norm = {rows, d, 1e-5f, x, residual, weight, bias, sum, y, mean, rstd, b->dtype};
    measure(b, s->name, "layer norm", launch_layer_norm, &norm, 0, 4 * bytes);
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
                                               .dbias = bias,
                                               .dtype = b->dtype,
                                               .dtype_grad = b->dtype};
    measure(b, s->name, "layer norm grad", launch_layer_norm_grad, &norm_grad, 0, 4 * bytes);
    const mz_embedding_args look_up = {.n = rows,
                                       .cols = d,
                                       .vocab = s->vocab,
                                       .ids = ids,
                                       .table = table,
                                       .period = s->context,
                                       .positions = table,
                                       .y = y,
                                       .dtype = b->dtype};
    measure(b, s->name, "embedding", launch_embedding, &look_up, 0, 3 * bytes);
    const mz_embedding_grad_args scatter = {.n = rows,
                                            .cols = d,
                                            .vocab = s->vocab,
                                            .n_positions = s->context,
                                            .ids = ids,
                                            .period = s->context,
                                            .dy = y,
                                            .dtable = table,
                                            .dpositions = x,
                                            .accumulate_dtable = true,
                                            .dtype = b->dtype,
                                            .dtype_grad = b->dtype};
    measure(b, s->name, "embedding grad", launch_embedding_grad, &scatter, 0, 3 * bytes);
    mz_free(x), mz_free(residual), mz_free(sum), mz_free(y), mz_free(weight), mz_free(bias), mz_free(mean);
    mz_free(rstd), mz_free(table), mz_free(ids);
}

static void bench_elements(const bench *b, const char *model, int64_t n)
{
    void *x = tensor(b, n), *y = tensor(b, n), *z = tensor(b, n);
    double sum = 0;
    uint64_t nonfinite = 0;
    mz_rng_state state = {1, 2, 3};
    const double bytes = (double)mz_dtype_size(b->dtype) * (double)n;

    const mz_activation_args gelu = {n, MZ_ACT_GELU_TANH, x, y, b->dtype};
    measure(b, model, "gelu", launch_activation, &gelu, 0, 2 * bytes);
    const mz_activation_grad_args gelu_grad = {n, MZ_ACT_GELU_TANH, y, x, z, b->dtype};
    measure(b, model, "gelu grad", launch_activation_grad, &gelu_grad, 0, 3 * bytes);
    const mz_add_args add = {n, 1, 1, x, y, z, b->dtype};
    measure(b, model, "add", launch_add, &add, 0, 3 * bytes);
    const mz_dropout_args dropout = {n, {0.1f, 5, n, &state}, x, NULL, z, b->dtype};
    measure(b, model, "dropout", launch_dropout, &dropout, 0, 2 * bytes);
    float *wide = memory(n);
    const mz_cast_args cast = {
        .n = n, .src = wide, .src_dtype = MZ_F32, .dst = y, .dst_dtype = MZ_BF16, .scale = 1};
    measure(b, model, "cast to bf16", launch_cast, &cast, 0, 6.0 * (double)n);
    mz_free(wide);
    const mz_sum_squares_args squares = {n, z, b->dtype, 1, &sum, &nonfinite};
    measure(b, model, "sum of squares", launch_sum_squares, &squares, 0, bytes);
    const void *sources[] = {x, z};
    const mz_sum_args sums = {n, 2, sources, b->dtype, z, b->dtype, 1.0f};
    measure(b, model, "sum of two", launch_sum, &sums, 0, 3 * bytes);
    for (int bits = 8; bits >= 4; bits -= 4) {
        char what[32];
        const double moved = bytes + (double)mz_quantized_bytes(n, bits);
        const mz_quantize_args quantize = {n, bits, x, b->dtype, y};
        snprintf(what, sizeof what, "quantise to %d bits", bits);
        measure(b, model, what, launch_quantize, &quantize, 0, moved);
        const mz_dequantize_args dequantize = {n, bits, y, z, b->dtype};
        snprintf(what, sizeof what, "back from %d bits", bits);
        measure(b, model, what, launch_dequantize, &dequantize, 0, moved);
    }
    mz_free(x), mz_free(y), mz_free(z);
}

static void bench_optim(const bench *b, const char *model, int64_t n)
{
    float *w = memory(n), *m = memory(n), *v = memory(n), scale = 1.0f;
    void *g = tensor(b, n), *copy = b->dtype == MZ_F32 ? NULL : tensor(b, n);
    for (int64_t i = 0; i < n; i++)
        v[i] *= v[i];
    const uint64_t nonfinite = 0;
    const mz_optim_hyper hyper = {.lr = 1e-3f,
                                  .beta1 = 0.9f,
                                  .beta2 = 0.999f,
                                  .eps = 1e-8f,
                                  .bias_correction1 = 0.5f,
                                  .bias_correction2 = 0.5f};
    const mz_optim_chunk chunk = {
        .master = w, .state1 = m, .state2 = v, .grad = g, .param = copy, .n = n, .lr_scale = 1};
    mz_optim_args args = {.kind = MZ_OPTIM_ADAMW,
                          .chunks = &chunk,
                          .n_chunks = 1,
                          .n_elements = n,
                          .hyper = &hyper,
                          .grad_scale = &scale,
                          .nonfinite = &nonfinite,
                          .grad_dtype = b->dtype,
                          .param_dtype = b->dtype};
    const double bytes = 24.0 + (double)mz_dtype_size(b->dtype) * (copy ? 2.0 : 1.0);
    measure(b, model, "adamw", launch_optim, &args, 0, bytes * (double)n);
    for (int variant = 0; b->dtype == MZ_BF16 && variant < 4; variant++) {
        static const char *const names[] = {"adamw, no master", "adamw, stochastic", "adamw, all bf16",
                                            "adamw, all stochastic"};
        static const mz_rng_state rng = {.seed = 1, .step = 1};
        const bool small = variant >= 2;
        args.no_master = true;
        args.state_dtype = small ? MZ_BF16 : MZ_F32;
        args.rounding.state = variant % 2 ? &rng : NULL;
        if (small) { /* what may stand in a square: as fp32, these bits are */
            memset(m, 0, (size_t)n * sizeof *m);
            memset(v, 0, (size_t)n * sizeof *v);
        }
        measure(b, model, names[variant], launch_optim, &args, 0, (small ? 14.0 : 22.0) * (double)n);
    }
    mz_free(w), mz_free(m), mz_free(v), mz_free(g), mz_free(copy);
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
    bench b = {.kernels = &mz_kernels_cpu, .seconds = 0.5, .clock = CLOCK_MONOTONIC, .dtype = MZ_F32};
    int threads = 0;
    for (int c; (c = getopt(argc, argv, "ct:d:i:m:w:")) != -1;) {
        if (c == 'c')
            b.clock = CLOCK_THREAD_CPUTIME_ID;
        else if (c == 'w')
            b.model = optarg;
        else if (c == 't')
            threads = atoi(optarg);
        else if (c == 'i')
            b.kernels = strcmp(optarg, "ref") == 0 ? &mz_kernels_ref : mz_kernels_cpu_table(optarg);
        else if (c == 'd')
            b.dtype = strcmp(optarg, "bf16") == 0 ? MZ_BF16 : strcmp(optarg, "fp16") == 0 ? MZ_F16 : MZ_F32;
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
