/* The meta device: hands out addresses that hold no memory, computes nothing, and counts what a real
 * device would do. Nothing that a stream is given is run, host_call's functions included; all work counts as done
 * at once. Pinned memory is real and cleared, since host code writes it. */
#include <pthread.h>
#include <stdio.h>

#include "core/error.h"
#include "core/memory.h"
#include "device/backends.h"
#include "device/meta.h"

#define ALIGNMENT ((size_t)256)
/* Addresses start where no process has memory, so that a slip faults at once. */
#define FIRST_ADDRESS ((uintptr_t)1 << 56)
/* What the device claims to have: nothing plans for as much. */
#define CAPACITY ((size_t)1 << 54)

typedef struct meta_device {
    pthread_mutex_t lock;
    uintptr_t next;
    mz_meta_counts counts;
    mz_meta_pace pace;
    double host; /* seconds: when the host is free */
} meta_device;

struct mz_stream {
    mz_device *device;
    double free; /* seconds: when all work given so far is done */
};

struct mz_event {
    uint64_t behind; /* first: mz_event_mark */
    mz_device *device;
    double seconds;
};

static int meta_count(void)
{
    return 1;
}

static void meta_near(cpu_set_t *cpus, int n)
{
    for (int i = 0; i < n; i++)
        CPU_ZERO(&cpus[i]);
}

static mz_status meta_open(mz_device *device)
{
    meta_device *meta = mz_calloc(1, sizeof *meta);
    if (!meta)
        return MZ_ERR_MEMORY;
    pthread_mutex_init(&meta->lock, NULL);
    meta->next = FIRST_ADDRESS;
    device->impl = meta;
    snprintf(device->label, sizeof device->label, "meta");
    return MZ_OK;
}

static void meta_close(mz_device *device)
{
    meta_device *meta = device->impl;
    if (!meta)
        return;
    pthread_mutex_destroy(&meta->lock);
    mz_free(meta);
}

static mz_status meta_alloc(mz_device *device, size_t bytes, void **memory)
{
    meta_device *meta = device->impl;
    mz_status status = MZ_OK;
    pthread_mutex_lock(&meta->lock);
    if (bytes > CAPACITY || meta->next - FIRST_ADDRESS > 32 * CAPACITY) {
        status = mz_fail(MZ_ERR_MEMORY, "meta device: no addresses left for %zu bytes", bytes);
    } else {
        *memory = (void *)meta->next;
        meta->next += (bytes / ALIGNMENT + 1) * ALIGNMENT;
    }
    pthread_mutex_unlock(&meta->lock);
    return status;
}

/* Addresses are not used twice. */
static void meta_free(mz_device *device, void *memory)
{
    (void)device;
    (void)memory;
}

static mz_status meta_alloc_pinned(mz_device *device, size_t bytes, void **memory)
{
    (void)device;
    void *p = mz_calloc(1, bytes);
    if (!p)
        return MZ_ERR_MEMORY;
    *memory = p;
    return MZ_OK;
}

static void meta_free_pinned(mz_device *device, void *memory)
{
    (void)device;
    mz_free(memory);
}

static mz_status meta_memory_info(mz_device *device, size_t *free_bytes, size_t *total_bytes)
{
    (void)device;
    *free_bytes = *total_bytes = CAPACITY;
    return MZ_OK;
}

/* When work that is given to the stream now can start. */
static double start_of(const mz_stream *stream)
{
    const meta_device *meta = stream->device->impl;
    return stream->free > meta->host ? stream->free : meta->host;
}

static void hold_host(meta_device *meta, double until)
{
    meta->host = until > meta->host ? until : meta->host;
}

static mz_status meta_stream_create(mz_device *device, mz_stream_kind kind, mz_stream **stream)
{
    (void)kind;
    mz_stream *s = mz_calloc(1, sizeof *s);
    if (!s)
        return MZ_ERR_MEMORY;
    s->device = device;
    *stream = s;
    return MZ_OK;
}

static void meta_stream_destroy(mz_stream *stream)
{
    mz_free(stream);
}

static mz_status meta_stream_sync(mz_stream *stream)
{
    hold_host(stream->device->impl, stream->free);
    return MZ_OK;
}

static mz_status meta_event_create(mz_device *device, mz_event **event)
{
    mz_event *e = mz_calloc(1, sizeof *e);
    if (!e)
        return MZ_ERR_MEMORY;
    e->device = device;
    *event = e;
    return MZ_OK;
}

static void meta_event_destroy(mz_event *event)
{
    mz_free(event);
}

static mz_status meta_event_record(mz_event *event, mz_stream *stream)
{
    event->seconds = start_of(stream);
    return MZ_OK;
}

static mz_status meta_event_sync(mz_event *event)
{
    hold_host(event->device->impl, event->seconds);
    return MZ_OK;
}

static bool meta_event_done(mz_event *event)
{
    (void)event;
    return true;
}

static mz_status meta_event_elapsed(mz_event *begin, mz_event *end, double *seconds)
{
    *seconds = end->seconds - begin->seconds;
    return MZ_OK;
}

static mz_status meta_wait(mz_stream *stream, mz_event *event)
{
    double start = start_of(stream);
    stream->free = event->seconds > start ? event->seconds : start;
    return MZ_OK;
}

static mz_status meta_copy(mz_stream *stream, void *dst, const void *src, size_t bytes)
{
    (void)dst;
    (void)src;
    mz_meta_count(stream, &(mz_meta_counts){.bytes = 2.0 * (double)bytes, .n_launches = 1});
    return MZ_OK;
}

static mz_status meta_copy_2d(mz_stream *stream, void *dst, size_t dst_stride, const void *src, size_t src_stride,
                              size_t row_bytes, size_t n_rows)
{
    (void)dst_stride;
    (void)src_stride;
    return meta_copy(stream, dst, src, row_bytes * n_rows);
}

static mz_status meta_fill(mz_stream *stream, void *dst, uint8_t byte, size_t bytes)
{
    (void)dst;
    (void)byte;
    mz_meta_count(stream, &(mz_meta_counts){.bytes = (double)bytes, .n_launches = 1});
    return MZ_OK;
}

static mz_status meta_host_call(mz_stream *stream, mz_host_fn fn, void *arg)
{
    (void)stream;
    (void)fn;
    (void)arg;
    return MZ_OK;
}

void mz_meta_count(mz_stream *stream, const mz_meta_counts *more)
{
    if (!stream)
        return;
    meta_device *meta = stream->device->impl;
    pthread_mutex_lock(&meta->lock);
    meta->counts.matmul_flops += more->matmul_flops;
    meta->counts.attention_flops += more->attention_flops;
    meta->counts.other_flops += more->other_flops;
    meta->counts.bytes += more->bytes;
    meta->counts.updates += more->updates;
    meta->counts.n_launches += more->n_launches;
    stream->free = start_of(stream) + meta->pace.seconds_per_flop * (more->matmul_flops + more->attention_flops) +
                   meta->pace.seconds_per_update * more->updates;
    pthread_mutex_unlock(&meta->lock);
}

static mz_status check_meta(const mz_device *device)
{
    return device->ops == &mz_meta_ops
               ? MZ_OK
               : mz_fail(MZ_ERR_ARGUMENT, "only a meta device counts its work, and this is \"%s\"",
                         device->ops->name);
}

mz_status mz_device_meta_set_pace(mz_device *device, const mz_meta_pace *pace)
{
    mz_status status = check_meta(device);
    if (!status)
        ((meta_device *)device->impl)->pace = *pace;
    return status;
}

mz_status mz_device_meta_pass(mz_device *device, mz_stream *stream, double seconds)
{
    mz_status status = check_meta(device);
    if (status)
        return status;
    meta_device *meta = device->impl;
    if (stream)
        stream->free = start_of(stream) + seconds;
    else
        meta->host += seconds;
    return MZ_OK;
}

mz_status mz_device_meta_now(mz_device *device, mz_stream *stream, double *seconds)
{
    mz_status status = check_meta(device);
    if (!status)
        *seconds = start_of(stream);
    return status;
}

mz_status mz_device_meta_counts(const mz_device *device, mz_meta_counts *counts)
{
    mz_status status = check_meta(device);
    if (status)
        return status;
    meta_device *meta = device->impl;
    pthread_mutex_lock(&meta->lock);
    *counts = meta->counts;
    pthread_mutex_unlock(&meta->lock);
    return MZ_OK;
}

static mz_status meta_word(mz_stream *stream, uint32_t *word, uint32_t value)
{
    (void)stream;
    (void)word;
    (void)value;
    return MZ_OK;
}

static mz_status meta_check(mz_stream *stream)
{
    (void)stream;
    return MZ_OK;
}

const mz_device_ops mz_meta_ops = {
    .name = "meta",
    .count = meta_count,
    .near = meta_near,
    .open = meta_open,
    .close = meta_close,
    .alloc = meta_alloc,
    .free = meta_free,
    .alloc_pinned = meta_alloc_pinned,
    .free_pinned = meta_free_pinned,
    .memory_info = meta_memory_info,
    .stream_create = meta_stream_create,
    .stream_destroy = meta_stream_destroy,
    .stream_sync = meta_stream_sync,
    .event_create = meta_event_create,
    .event_destroy = meta_event_destroy,
    .event_record = meta_event_record,
    .event_sync = meta_event_sync,
    .event_done = meta_event_done,
    .event_elapsed = meta_event_elapsed,
    .wait = meta_wait,
    .copy = meta_copy,
    .copy_2d = meta_copy_2d,
    .fill = meta_fill,
    .host_call = meta_host_call,
    .post = meta_word,
    .await = meta_word,
    .check = meta_check,
    .kernels = &mz_kernels_meta,
};
