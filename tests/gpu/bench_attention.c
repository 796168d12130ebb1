/* Time of attention on a GPU, forward and backward, at the shapes of GPT-2 124M and XL and at heads of 128
 * features: median milliseconds, and TFLOP/s of the products that a causal mask leaves (half of all).
 *
 *     bench_attention [REPEATS] */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/half.h"
#include "core/memory.h"
#include "kernels/kernels.h"

typedef struct bench {
    mz_device *device;
    mz_stream *stream;
    int repeats;
} bench;

typedef struct setting {
    const char *name;
    int64_t batch, heads, context, head_size;
    float p;
    bool masked;
} setting;

static const setting settings[] = {
    {"GPT-2 124M", 32, 12, 1024, 64, 0.0f, false},    {"GPT-2 XL", 16, 25, 1024, 64, 0.0f, false},
    {"heads of 128", 16, 16, 1024, 128, 0.0f, false}, {"4096 tokens", 8, 12, 4096, 64, 0.0f, false},
    {"124M, dropout", 32, 12, 1024, 64, 0.1f, false}, {"124M, padding", 32, 12, 1024, 64, 0.0f, true},
};

static void check(mz_status status)
{
    if (status) {
        fprintf(stderr, "bench_attention: %s\n", mz_last_error());
        exit(1);
    }
}

static void *room(const bench *b, size_t bytes)
{
    void *memory;
    check(b->device->ops->alloc(b->device, bytes, &memory));
    return memory;
}

/* n values of bf16, uniform in -1..1. */
static void *values(const bench *b, int64_t n)
{
    void *memory = room(b, (size_t)n * 2);
    uint16_t *host = mz_alloc((size_t)n * 2);
    uint32_t x = 12345;
    if (!host)
        check(MZ_ERR_MEMORY);
    for (int64_t i = 0; i < n; i++) {
        x = x * 1664525u + 1013904223u;
        mz_store_f32(host, MZ_BF16, i, (float)(x >> 8) * 0x1p-23f - 1.0f);
    }
    check(b->device->ops->copy(b->stream, memory, host, (size_t)n * 2));
    check(b->device->ops->stream_sync(b->stream));
    mz_free(host);
    return memory;
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Median seconds of one pass. */
static double seconds(const bench *b, const mz_attention_args *forward, const mz_attention_grad_args *backward)
{
    const mz_device_ops *ops = b->device->ops;
    mz_event *begin, *end;
    double times[1000];
    check(ops->event_create(b->device, &begin));
    check(ops->event_create(b->device, &end));
    for (int r = -3; r < b->repeats; r++) {
        check(ops->event_record(begin, b->stream));
        check(forward ? ops->kernels->attention(forward, b->stream)
                      : ops->kernels->attention_grad(backward, b->stream));
        check(ops->event_record(end, b->stream));
        check(ops->event_sync(end));
        if (r >= 0)
            check(ops->event_elapsed(begin, end, &times[r]));
    }
    ops->event_destroy(begin);
    ops->event_destroy(end);
    qsort(times, (size_t)b->repeats, sizeof *times, by_size);
    return times[b->repeats / 2];
}

static void run(const bench *b, const setting *s)
{
    const mz_device_ops *ops = b->device->ops;
    const int64_t width = s->heads * s->head_size, tokens = s->batch * s->context, token = 3 * width;
    const mz_rng_state state = {.seed = 1};
    mz_attention_shape shape = {.batch = s->batch,
                                .heads = s->heads,
                                .t_q = s->context,
                                .t_k = s->context,
                                .head_size = s->head_size,
                                .q_batch = s->context * token,
                                .q_token = token,
                                .q_head = s->head_size,
                                .k_batch = s->context * token,
                                .k_token = token,
                                .k_head = s->head_size,
                                .v_batch = s->context * token,
                                .v_token = token,
                                .v_head = s->head_size,
                                .o_batch = s->context * width,
                                .o_token = width,
                                .o_head = s->head_size,
                                .scale = 1.0f / sqrtf((float)s->head_size),
                                .causal = true,
                                .dtype = MZ_BF16,
                                .dropout = {.p = s->p, .sample_elements = s->heads * s->context * s->context}};
    uint16_t *qkv = values(b, tokens * token), *d_qkv = room(b, (size_t)(tokens * token) * 2);
    uint16_t *o = room(b, (size_t)(tokens * width) * 2), *d_o = values(b, tokens * width);
    float *lse = room(b, (size_t)(tokens * s->heads) * sizeof *lse);
    void *rng = room(b, sizeof state), *mask = room(b, (size_t)tokens);
    check(ops->copy(b->stream, rng, &state, sizeof state));
    check(ops->fill(b->stream, mask, 1, (size_t)tokens));
    shape.dropout.state = rng;
    shape.key_mask = s->masked ? mask : NULL;
    const size_t workspace_bytes = ops->kernels->attention_grad_workspace(&shape);
    void *workspace = room(b, workspace_bytes + 1);
    const mz_attention_args forward = {shape, qkv, qkv + width, qkv + 2 * width, o, lse};
    const mz_attention_grad_args backward = {.shape = shape,
                                             .q = qkv,
                                             .k = qkv + width,
                                             .v = qkv + 2 * width,
                                             .o = o,
                                             .d_o = d_o,
                                             .lse = lse,
                                             .dq = d_qkv,
                                             .dk = d_qkv + width,
                                             .dv = d_qkv + 2 * width,
                                             .workspace = workspace,
                                             .workspace_bytes = workspace_bytes};
    const double t_forward = seconds(b, &forward, NULL), t_backward = seconds(b, NULL, &backward);
    const double flops = 2.0 * (double)(tokens * width) * (double)s->context;
    printf("%-14s %3lldx%lldx%lldx%-4lld forward %7.3f ms %6.1f TFLOP/s   backward %7.3f ms %6.1f TFLOP/s\n",
           s->name, (long long)s->batch, (long long)s->heads, (long long)s->context, (long long)s->head_size,
           1e3 * t_forward, 1e-12 * flops / t_forward, 1e3 * t_backward, 2.5e-12 * flops / t_backward);
    void *const rooms[] = {qkv, d_qkv, o, d_o, lse, rng, mask, workspace};
    for (size_t i = 0; i < sizeof rooms / sizeof *rooms; i++)
        ops->free(b->device, rooms[i]);
}

int main(int argc, char **argv)
{
    bench b = {.repeats = argc > 1 ? atoi(argv[1]) : 30};
    if (b.repeats < 1 || b.repeats > 1000) {
        fprintf(stderr, "usage: bench_attention [REPEATS], 1000 at most\n");
        return 1;
    }
    if (mz_device_count("cuda") == 0) {
        printf("SKIP: no GPU here\n");
        return 77;
    }
    check(mz_device_open("cuda", 0, 0, &b.device));
    check(b.device->ops->stream_create(b.device, MZ_STREAM_COMPUTE, &b.stream));
    printf("%s, bf16, causal, median of %d\n", b.device->label, b.repeats);
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        run(&b, &settings[i]);
    b.device->ops->stream_destroy(b.stream);
    mz_device_close(b.device);
    return 0;
}
