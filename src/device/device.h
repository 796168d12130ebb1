/* Devices: where tensors live and kernels run. A device is a const table of exactly typed operations;
 * "cpu" is always there, "cuda" when built with it, and "meta" computes nothing: it hands out addresses
 * that hold no memory and counts the work, so that a step can be planned before it is run.
 *
 * Streams. Work given to a stream runs in order. Two streams are ordered by events or words only. On the CPU a
 * MZ_STREAM_COMPUTE stream runs each operation at once in the calling thread, and the other kinds have a
 * worker thread each; on CUDA they are CUDA streams. Code written for one is right for the other:
 *   - copy, copy_2d, fill, host_call, post and await are stream-ordered on every kind of stream;
 *   - kernels are given the compute stream, or are called from within a host_call (where on the CPU they
 *     run in that thread, with stream NULL).
 * A failure inside a worker is kept by its stream and returned by the next stream_sync, event_sync or
 * wait that depends on it. Until a stream_sync has returned it, the stream's later work is skipped: host
 * functions are not called, events are still reached, words posted. */
#ifndef MZ_DEVICE_DEVICE_H
#define MZ_DEVICE_DEVICE_H

#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mpizero/dtype.h"
#include "mpizero/status.h"

typedef struct mz_device mz_device;
typedef struct mz_stream mz_stream;   /* defined by each backend */
typedef struct mz_event mz_event;     /* defined by each backend; begins with what mz_event_mark keeps */
typedef struct mz_graph mz_graph;     /* defined by each backend that has graphs */
typedef struct mz_kernels mz_kernels; /* kernels/kernels.h */

typedef enum mz_stream_kind { MZ_STREAM_COMPUTE, MZ_STREAM_COMM, MZ_STREAM_COPY } mz_stream_kind;

typedef mz_status (*mz_host_fn)(void *arg);

/* Work that is recorded once and given to a stream again as one piece, which costs the host one launch rather than
 * one for each kernel. From begin to end, both called by one thread, the stream does nothing that it is given:
 * kernels, copies between device memory and fills are recorded, with their arguments as they are. Nothing else may
 * be given to it (not stream_sync, nor events, waits, host calls and words), and no memory be taken: that spoils
 * the recording, which the call itself or end says. */
typedef struct mz_graph_ops {
    mz_status (*begin)(mz_stream *stream);
    /* Ends the recording in any case; afterwards the stream works as before. *graph is set on success only. */
    mz_status (*end)(mz_stream *stream, mz_graph **graph);
    /* Stream-ordered. What was recorded is done, on the same addresses. */
    mz_status (*launch)(mz_graph *graph, mz_stream *stream);
    void (*destroy)(mz_graph *graph); /* NULL is legal; no launch of it may be under way */
} mz_graph_ops;

typedef struct mz_device_ops {
    const char *name; /* "cpu", "cuda", "meta" */

    /* Lifecycle. count tells how many of these devices this process can see, 0 where there is no driver; open
     * fills device->impl; close takes a half-open device. */
    int (*count)(void);
    /* The processors near each of n devices, from number 0; empty where it cannot be told. No device need be open.
     */
    void (*near)(cpu_set_t *cpus, int n);
    mz_status (*open)(mz_device *device);
    void (*close)(mz_device *device);

    /* Memory. Device memory is 256-byte aligned and not cleared. Pinned memory is host memory of exactly
     * the size asked for, that copies reach asynchronously. */
    mz_status (*alloc)(mz_device *device, size_t bytes, void **memory);
    void (*free)(mz_device *device, void *memory);
    mz_status (*alloc_pinned)(mz_device *device, size_t bytes, void **memory);
    void (*free_pinned)(mz_device *device, void *memory);
    mz_status (*memory_info)(mz_device *device, size_t *free_bytes, size_t *total_bytes);

    /* Streams and events. An event not recorded yet counts as complete. `wait` orders `stream` behind the
     * event without blocking the host (but a CPU compute stream is the host). */
    mz_status (*stream_create)(mz_device *device, mz_stream_kind kind, mz_stream **stream);
    void (*stream_destroy)(mz_stream *stream);
    mz_status (*stream_sync)(mz_stream *stream);
    mz_status (*event_create)(mz_device *device, mz_event **event);
    void (*event_destroy)(mz_event *event);
    mz_status (*event_record)(mz_event *event, mz_stream *stream);
    mz_status (*event_sync)(mz_event *event);
    bool (*event_done)(mz_event *event);
    mz_status (*event_elapsed)(mz_event *begin, mz_event *end, double *seconds); /* both complete */
    mz_status (*wait)(mz_stream *stream, mz_event *event);

    /* Stream-ordered. Addresses may be device, pinned or plain host memory. */
    mz_status (*copy)(mz_stream *stream, void *dst, const void *src, size_t bytes);
    /* n_rows rows of row_bytes; the strides are in bytes. */
    mz_status (*copy_2d)(mz_stream *stream, void *dst, size_t dst_stride, const void *src, size_t src_stride,
                         size_t row_bytes, size_t n_rows);
    mz_status (*fill)(mz_stream *stream, void *dst, uint8_t byte, size_t bytes);
    /* Runs fn(arg) on a host thread once all earlier work of the stream is done; later work waits for it.
     * fn may not call operations of this table that take a stream. */
    mz_status (*host_call)(mz_stream *stream, mz_host_fn fn, void *arg);

    /* Counters that wrap, in pinned memory: they order a stream behind work that is not issued yet, which events
     * cannot. post sets *word once all earlier work of the stream is done. await holds the stream's later work, and
     * no thread, until *word has reached `value`; the host may set it too, by an atomic store. */
    mz_status (*post)(mz_stream *stream, uint32_t *word, uint32_t value);
    mz_status (*await)(mz_stream *stream, uint32_t *word, uint32_t value);

    /* From any thread, which it binds to the device; waits for nothing: has the device failed? */
    mz_status (*check)(mz_stream *stream);

    /* What other devices, such as network cards, have written to device memory is seen by work that is given to
     * streams from now on. NULL: device memory is host memory. */
    mz_status (*see_writes)(mz_device *device);

    const mz_graph_ops *graphs; /* NULL: the backend has none */
    const mz_kernels *kernels;  /* every slot filled; checked when the device is opened */
} mz_device_ops;

/* How to wait until all is launched that comes before words which streams await. */
typedef struct mz_settler {
    void (*settle)(void *context, uint64_t ticket); /* what took tickets up to this one */
    void *context;
    struct mz_settler *next;
} mz_settler;

struct mz_device {
    const mz_device_ops *ops;
    int ordinal;   /* CUDA device number; 0 elsewhere */
    int n_threads; /* CPU threads for kernels, >= 1 */
    bool tf32;     /* CUDA: fp32 products round their operands to TF32; off at open, may be set before first use */
    void *impl;    /* the backend's own state */
    char label[128];  /* "CPU AMD EPYC, avx512, 2 threads", "NVIDIA H200" */
    char address[32]; /* a GPU's on the PCI bus: "0000:1b:00.0"; "" elsewhere */
    int n_sharing;    /* ranks of the job that have this device, 1 but in tests (MPIZERO_SHARE_GPU) */
    bool loads_late;  /* CUDA: a kernel is loaded at its first launch, which may wait for all streams to be idle */
    pthread_mutex_t lock; /* of the settlers */
    mz_settler *settlers;
    uint64_t n_tickets; /* taken so far; atomic */
};

/* Opens a device by name. ordinal and n_threads as above; n_threads 0 takes mz_cores_available().
 * Errors: MZ_ERR_UNSUPPORTED for a backend that this build lacks, MZ_ERR_DEVICE, MZ_ERR_MEMORY. */
mz_status mz_device_open(const char *name, int ordinal, int n_threads, mz_device **device);
void mz_device_close(mz_device *device);

/* Number of devices of a backend that this process can see: 1 for "cpu" and "meta", 0 for a backend that this
 * build lacks. */
int mz_device_count(const char *name);

/* ---- streams that await what this process has yet to launch ----
 *
 * A GPU's calls that take or give back memory, or load kernels, may wait until all streams are idle, and keep other
 * threads from launching meanwhile. Beside a stream that awaits a word which only such a launch brings, they never
 * return. So who makes streams wait in that way
 * - calls mz_device_expect_awaits before any device is opened or counted: by its environment CUDA is told to load
 * all kernels when it starts (where it was not, loads_late is set), and to give each stream a hardware queue, as a
 *   stream that waits holds up those behind it in its queue; and NCCL to connect all it may ever use at once;
 * - adds a settler, which mz_device_settle calls: from the thread that issues, before calls of that kind. A backend
 *   does so itself in alloc, free, alloc_pinned, free_pinned, stream_create and stream_destroy, and where a library
 *   loads kernels of its own at their first use;
 * - takes a ticket for each await. A stream that is given a thousand launches behind an await may fill its queue,
 * and the thread that launches is held up in CUDA. So who lets a compute stream wait for an event that lies behind
 * awaits marks it when it is recorded, and has what came before launched before the stream waits (mz_event_settle).
 */
void mz_device_expect_awaits(void);
/* Borrowed until it is removed. */
void mz_device_add_settler(mz_device *device, mz_settler *settler);
void mz_device_remove_settler(mz_device *device, mz_settler *settler);
void mz_device_settle(mz_device *device);
uint64_t mz_device_take_ticket(mz_device *device);
/* The event lies behind all that took tickets so far; until it is marked, behind nothing. */
void mz_event_mark(mz_device *device, mz_event *event);
void mz_event_settle(mz_device *device, const mz_event *event);

/* The processors near each of its n devices, as the table's operation of that name. */
void mz_device_near(const char *name, cpu_set_t *cpus, int n);

/* What a meta device counted since it was opened: floating-point operations (a multiply-add is 2) and
 * bytes of device memory read and written, per kernel family. */
typedef struct mz_meta_counts {
    double matmul_flops, attention_flops, other_flops;
    double bytes;
    double updates; /* elements that an optimiser updated */
    int64_t n_launches;
} mz_meta_counts;
mz_status mz_device_meta_counts(const mz_device *device, mz_meta_counts *counts);

/* A meta device's streams and events keep time: that of the work they are given, at a pace that is set. Work starts
 * when its stream, what that waited for, and the host are free; the host is held up by stream_sync and event_sync
 * only. No pace set: work takes no time. */
typedef struct mz_meta_pace {
    double seconds_per_flop;   /* of matrix products and attention, which stand for all that lies between them */
    double seconds_per_update; /* of an optimiser's element, the gradients' norm included */
} mz_meta_pace;
mz_status mz_device_meta_set_pace(mz_device *device, const mz_meta_pace *pace);
/* The stream is busy for so long with something that the device does not count; NULL: the host is. */
mz_status mz_device_meta_pass(mz_device *device, mz_stream *stream, double seconds);
/* When the stream will have done all that it was given, counted from the device's opening. */
mz_status mz_device_meta_now(mz_device *device, mz_stream *stream, double *seconds);

#endif
