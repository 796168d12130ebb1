/* The CPU backend's streams and events: the part of its table that cpu.c fills in from cpu_queue.c. */
#ifndef MZ_DEVICE_CPU_QUEUE_H
#define MZ_DEVICE_CPU_QUEUE_H

#include "core/threads.h"
#include "device/device.h"

/* device->impl of a CPU device. */
typedef struct mz_cpu_device {
    mz_threads *threads;
} mz_cpu_device;

mz_status mz_cpu_stream_create(mz_device *device, mz_stream_kind kind, mz_stream **stream);
void mz_cpu_stream_destroy(mz_stream *stream);
mz_status mz_cpu_stream_sync(mz_stream *stream);
mz_status mz_cpu_event_create(mz_device *device, mz_event **event);
void mz_cpu_event_destroy(mz_event *event);
mz_status mz_cpu_event_record(mz_event *event, mz_stream *stream);
mz_status mz_cpu_event_sync(mz_event *event);
bool mz_cpu_event_done(mz_event *event);
mz_status mz_cpu_event_elapsed(mz_event *begin, mz_event *end, double *seconds);
mz_status mz_cpu_wait(mz_stream *stream, mz_event *event);
mz_status mz_cpu_copy(mz_stream *stream, void *dst, const void *src, size_t bytes);
mz_status mz_cpu_copy_2d(mz_stream *stream, void *dst, size_t dst_stride, const void *src, size_t src_stride,
                         size_t row_bytes, size_t n_rows);
mz_status mz_cpu_fill(mz_stream *stream, void *dst, uint8_t byte, size_t bytes);
mz_status mz_cpu_host_call(mz_stream *stream, mz_host_fn fn, void *arg);
mz_status mz_cpu_post(mz_stream *stream, uint32_t *word, uint32_t value);
mz_status mz_cpu_await(mz_stream *stream, uint32_t *word, uint32_t value);

#endif
