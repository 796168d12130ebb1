#include "recorder.h"

#include <string.h>

#include "core/error.h"
#include "core/memory.h"
#include "kernels/kernels.h"

typedef struct work work;
typedef mz_status (*again_fn)(const work *w, mz_stream *stream);

struct work {
    again_fn again;
    void *args; /* a copy */
};

struct mz_graph {
    work *work;
    int n, capacity;
};

static const mz_device_ops *own; /* the device's table */
static mz_device_ops table;
static mz_kernels kernels;
static mz_stream *recording; /* NULL: none */
static mz_graph *recorded;
static bool spoiled;

static mz_status keep(again_fn again, const void *args, size_t bytes)
{
    mz_graph *g = recorded;
    if (g->n == g->capacity) {
        g->capacity = g->capacity ? 2 * g->capacity : 64;
        work *grown = mz_realloc(g->work, (size_t)g->capacity * sizeof *grown);
        if (!grown)
            return MZ_ERR_MEMORY;
        g->work = grown;
    }
    work *w = &g->work[g->n];
    *w = (work){again, mz_alloc(bytes)};
    if (!w->args)
        return MZ_ERR_MEMORY;
    memcpy(w->args, args, bytes);
    g->n++;
    return MZ_OK;
}

/* ---- what is recorded ---- */

#define KERNEL(kernel)                                                                                             \
    static mz_status again_##kernel(const work *w, mz_stream *stream)                                              \
    {                                                                                                              \
        return own->kernels->kernel(w->args, stream);                                                              \
    }                                                                                                              \
    static mz_status take_##kernel(const mz_##kernel##_args *args, mz_stream *stream)                              \
    {                                                                                                              \
        return stream && stream == recording ? keep(again_##kernel, args, sizeof *args)                            \
                                             : own->kernels->kernel(args, stream);                                 \
    }
KERNEL(matmul)
KERNEL(layer_norm)
KERNEL(layer_norm_grad)
KERNEL(embedding)
KERNEL(embedding_grad)
KERNEL(attention)
KERNEL(attention_grad)
KERNEL(activation)
KERNEL(activation_grad)
KERNEL(add)
KERNEL(mul)
KERNEL(dropout)
KERNEL(cast)
KERNEL(column_sum)
KERNEL(cross_entropy)
KERNEL(mse)

typedef struct copy_args {
    void *dst;
    const void *src;
    size_t dst_stride, src_stride, row_bytes, n_rows;
} copy_args;

static mz_status again_copy(const work *w, mz_stream *stream)
{
    const copy_args *c = w->args;
    return own->copy_2d(stream, c->dst, c->dst_stride, c->src, c->src_stride, c->row_bytes, c->n_rows);
}

static mz_status take_copy_2d(mz_stream *stream, void *dst, size_t dst_stride, const void *src, size_t src_stride,
                              size_t row_bytes, size_t n_rows)
{
    const copy_args c = {dst, src, dst_stride, src_stride, row_bytes, n_rows};
    return stream == recording ? keep(again_copy, &c, sizeof c)
                               : own->copy_2d(stream, dst, dst_stride, src, src_stride, row_bytes, n_rows);
}

static mz_status take_copy(mz_stream *stream, void *dst, const void *src, size_t bytes)
{
    return stream == recording ? take_copy_2d(stream, dst, bytes, src, bytes, bytes, 1)
                               : own->copy(stream, dst, src, bytes);
}

typedef struct fill_args {
    void *dst;
    uint8_t byte;
    size_t bytes;
} fill_args;

static mz_status again_fill(const work *w, mz_stream *stream)
{
    const fill_args *f = w->args;
    return own->fill(stream, f->dst, f->byte, f->bytes);
}

static mz_status take_fill(mz_stream *stream, void *dst, uint8_t byte, size_t bytes)
{
    const fill_args f = {dst, byte, bytes};
    return stream == recording ? keep(again_fill, &f, sizeof f) : own->fill(stream, dst, byte, bytes);
}

/* ---- what spoils a recording ---- */

static mz_status spoil(const char *what)
{
    spoiled = true;
    return mz_fail(MZ_ERR_UNSUPPORTED, "%s while a stream is being recorded", what);
}

static mz_status take_alloc(mz_device *device, size_t bytes, void **memory)
{
    return recording ? spoil("alloc") : own->alloc(device, bytes, memory);
}

static mz_status take_stream_sync(mz_stream *stream)
{
    return stream == recording ? spoil("stream_sync") : own->stream_sync(stream);
}

static mz_status take_event_record(mz_event *event, mz_stream *stream)
{
    return stream == recording ? spoil("event_record") : own->event_record(event, stream);
}

static mz_status take_wait(mz_stream *stream, mz_event *event)
{
    return stream == recording ? spoil("wait") : own->wait(stream, event);
}

static mz_status take_host_call(mz_stream *stream, mz_host_fn fn, void *arg)
{
    return stream == recording ? spoil("host_call") : own->host_call(stream, fn, arg);
}

/* ---- graphs ---- */

static void destroy(mz_graph *graph)
{
    for (int i = 0; graph && i < graph->n; i++)
        mz_free(graph->work[i].args);
    if (graph)
        mz_free(graph->work);
    mz_free(graph);
}

static mz_status begin(mz_stream *stream)
{
    recorded = mz_calloc(1, sizeof *recorded);
    recording = recorded ? stream : NULL;
    spoiled = false;
    return recorded ? MZ_OK : MZ_ERR_MEMORY;
}

static mz_status end(mz_stream *stream, mz_graph **graph)
{
    (void)stream;
    recording = NULL;
    if (!spoiled) {
        *graph = recorded;
        return MZ_OK;
    }
    destroy(recorded);
    return mz_fail(MZ_ERR_DEVICE, "the recording was spoiled");
}

static mz_status launch(mz_graph *graph, mz_stream *stream)
{
    mz_status status = MZ_OK;
    for (int i = 0; !status && i < graph->n; i++)
        status = graph->work[i].again(&graph->work[i], stream);
    return status;
}

static const mz_graph_ops graphs = {.begin = begin, .end = end, .launch = launch, .destroy = destroy};

void recorder_install(mz_device *device)
{
    own = device->ops;
    kernels = *own->kernels;
    kernels.matmul = take_matmul;
    kernels.layer_norm = take_layer_norm;
    kernels.layer_norm_grad = take_layer_norm_grad;
    kernels.embedding = take_embedding;
    kernels.embedding_grad = take_embedding_grad;
    kernels.attention = take_attention;
    kernels.attention_grad = take_attention_grad;
    kernels.activation = take_activation;
    kernels.activation_grad = take_activation_grad;
    kernels.add = take_add;
    kernels.mul = take_mul;
    kernels.dropout = take_dropout;
    kernels.cast = take_cast;
    kernels.column_sum = take_column_sum;
    kernels.cross_entropy = take_cross_entropy;
    kernels.mse = take_mse;
    table = *own;
    table.kernels = &kernels;
    table.graphs = &graphs;
    table.copy = take_copy;
    table.copy_2d = take_copy_2d;
    table.fill = take_fill;
    table.alloc = take_alloc;
    table.stream_sync = take_stream_sync;
    table.event_record = take_event_record;
    table.wait = take_wait;
    table.host_call = take_host_call;
    device->ops = &table;
}
