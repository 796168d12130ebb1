#include "device/cpu_queue.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "core/clock.h"
#include "core/copy.h"
#include "core/error.h"
#include "core/memory.h"
#include "device/cpu_stream.h"

/* What went wrong, carried from the thread where it did to the one that asks. */
typedef struct failure {
    mz_status status;
    char message[1024];
} failure;

/* One operation given to a stream. */
typedef struct task task;
struct task {
    mz_status (*run)(const task *t);
    bool after_failure; /* runs even when the stream has failed: events and words */
    mz_stream *stream;
    void *dst;
    const void *src;
    size_t dst_stride, src_stride, row_bytes, n_rows;
    uint8_t byte;
    mz_event *event;
    uint64_t ticket; /* which recording of the event */
    mz_host_fn fn;
    void *arg;
    uint32_t *word;
    uint32_t value;
    task *next;
};

struct mz_stream {
    mz_device *device;
    bool has_worker; /* false: a compute stream, run in the caller */
    pthread_t worker;
    pthread_mutex_t lock;
    pthread_cond_t work, idle;
    task *first, *last; /* waiting, in order */
    task *spare;        /* used up, for the next submissions */
    bool busy, stop;
    failure failure; /* the first since the last sync; later work is skipped */
    void *scratch;   /* work space of kernels, compute streams only */
    size_t scratch_bytes;
    mz_cpu_rooms rooms;
};

/* Recordings are numbered; recording n is complete when n_reached >= n. They complete in order because a
 * recording on another stream first waits for those before it. */
struct mz_event {
    uint64_t behind; /* first: mz_event_mark */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    mz_stream *stream; /* of the last recording; compared only */
    uint64_t n_recorded, n_reached;
    int n_queued; /* tasks in queues that refer to this event */
    double seconds;
    failure failure;
};

static void keep_failure(failure *f, mz_status status)
{
    f->status = status;
    snprintf(f->message, sizeof f->message, "%s", mz_last_error());
}

/* ---- worker ---- */

static void *worker_main(void *arg)
{
    mz_stream *s = arg;
    pthread_mutex_lock(&s->lock);
    for (;;) {
        while (!s->first && !s->stop)
            pthread_cond_wait(&s->work, &s->lock);
        task *t = s->first;
        if (!t)
            break;
        s->first = t->next;
        s->busy = true;
        bool skip = s->failure.status && !t->after_failure;
        pthread_mutex_unlock(&s->lock);

        mz_status status = skip ? MZ_OK : t->run(t);

        pthread_mutex_lock(&s->lock);
        if (status && !s->failure.status)
            keep_failure(&s->failure, status);
        t->next = s->spare;
        s->spare = t;
        s->busy = false;
        if (!s->first)
            pthread_cond_broadcast(&s->idle);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* Runs `t` at once on a compute stream, queues a copy of it on the others. */
static mz_status submit(mz_stream *s, task t)
{
    t.stream = s;
    if (!s->has_worker)
        return t.run(&t);

    pthread_mutex_lock(&s->lock);
    task *queued = s->spare;
    if (queued)
        s->spare = queued->next;
    else
        queued = mz_alloc(sizeof *queued);
    if (!queued) {
        pthread_mutex_unlock(&s->lock);
        return MZ_ERR_MEMORY;
    }
    *queued = t;
    queued->next = NULL;
    if (s->first)
        s->last->next = queued;
    else
        s->first = queued;
    s->last = queued;
    pthread_cond_signal(&s->work);
    pthread_mutex_unlock(&s->lock);
    return MZ_OK;
}

/* ---- streams ---- */

mz_status mz_cpu_stream_create(mz_device *device, mz_stream_kind kind, mz_stream **stream)
{
    mz_stream *s = mz_calloc(1, sizeof *s);
    if (!s)
        return MZ_ERR_MEMORY;
    s->device = device;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->work, NULL);
    pthread_cond_init(&s->idle, NULL);
    if (kind != MZ_STREAM_COMPUTE) {
        int error = pthread_create(&s->worker, NULL, worker_main, s);
        if (error) {
            mz_cpu_stream_destroy(s);
            return mz_fail(MZ_ERR_DEVICE, "cannot start a stream's worker thread: %s", strerror(error));
        }
        s->has_worker = true;
    }
    *stream = s;
    return MZ_OK;
}

static void free_tasks(task *t)
{
    while (t) {
        task *next = t->next;
        mz_free(t);
        t = next;
    }
}

void mz_cpu_stream_destroy(mz_stream *stream)
{
    if (!stream)
        return;
    if (stream->has_worker) {
        pthread_mutex_lock(&stream->lock);
        stream->stop = true;
        pthread_cond_signal(&stream->work);
        pthread_mutex_unlock(&stream->lock);
        pthread_join(stream->worker, NULL);
    }
    free_tasks(stream->spare);
    mz_free(stream->scratch);
    mz_free(stream->rooms.first);
    pthread_cond_destroy(&stream->idle);
    pthread_cond_destroy(&stream->work);
    pthread_mutex_destroy(&stream->lock);
    mz_free(stream);
}

mz_status mz_cpu_stream_sync(mz_stream *stream)
{
    pthread_mutex_lock(&stream->lock);
    while (stream->first || stream->busy)
        pthread_cond_wait(&stream->idle, &stream->lock);
    mz_status status = stream->failure.status;
    if (status) {
        mz_fail_adopt(status, stream->failure.message);
        stream->failure.status = MZ_OK;
    }
    pthread_mutex_unlock(&stream->lock);
    return status;
}

mz_threads *mz_cpu_stream_threads(mz_stream *stream)
{
    if (!stream || stream->has_worker)
        return NULL;
    return ((mz_cpu_device *)stream->device->impl)->threads;
}

mz_status mz_cpu_scratch_take(mz_stream *stream, size_t bytes, void **memory)
{
    if (!stream || stream->has_worker) {
        *memory = mz_alloc_aligned(bytes);
        return *memory ? MZ_OK : MZ_ERR_MEMORY;
    }
    if (stream->scratch_bytes < bytes) {
        mz_free(stream->scratch);
        stream->scratch = mz_alloc_aligned(bytes);
        stream->scratch_bytes = stream->scratch ? bytes : 0;
    }
    *memory = stream->scratch;
    return stream->scratch ? MZ_OK : MZ_ERR_MEMORY;
}

void mz_cpu_scratch_give(mz_stream *stream, void *memory)
{
    if (!stream || stream->has_worker)
        mz_free(memory);
}

/* Whole pages, and an odd number of cache lines more: the same place of several rooms falls on different sets. */
static size_t room_distance(size_t bytes)
{
    return (bytes + 4095) / 4096 * 4096 + 64;
}

mz_status mz_cpu_rooms_take(mz_stream *stream, size_t bytes, mz_cpu_rooms *rooms)
{
    if (!stream || stream->has_worker) {
        *rooms = (mz_cpu_rooms){.first = mz_alloc_aligned(bytes), .distance = bytes};
        return rooms->first ? MZ_OK : MZ_ERR_MEMORY;
    }
    if (stream->rooms.distance < bytes) {
        const size_t distance = room_distance(bytes);
        mz_free(stream->rooms.first);
        stream->rooms.first = mz_alloc_aligned(distance * (size_t)mz_threads_count(mz_cpu_stream_threads(stream)));
        stream->rooms.distance = stream->rooms.first ? distance : 0;
    }
    *rooms = stream->rooms;
    return rooms->first ? MZ_OK : MZ_ERR_MEMORY;
}

void mz_cpu_rooms_give(mz_stream *stream, mz_cpu_rooms *rooms)
{
    if (!stream || stream->has_worker)
        mz_free(rooms->first);
}

/* ---- events ---- */

mz_status mz_cpu_event_create(mz_device *device, mz_event **event)
{
    (void)device;
    mz_event *e = mz_calloc(1, sizeof *e);
    if (!e)
        return MZ_ERR_MEMORY;
    pthread_mutex_init(&e->lock, NULL);
    pthread_cond_init(&e->changed, NULL);
    *event = e;
    return MZ_OK;
}

void mz_cpu_event_destroy(mz_event *event)
{
    if (!event)
        return;
    pthread_mutex_lock(&event->lock);
    while (event->n_queued)
        pthread_cond_wait(&event->changed, &event->lock);
    pthread_mutex_unlock(&event->lock);
    pthread_cond_destroy(&event->changed);
    pthread_mutex_destroy(&event->lock);
    mz_free(event);
}

/* Takes back what event_record or wait noted in the event when the stream could not take the task. */
static void unqueue(mz_event *event, bool recording)
{
    pthread_mutex_lock(&event->lock);
    event->n_queued--;
    if (recording)
        event->n_recorded--;
    pthread_mutex_unlock(&event->lock);
}

static mz_status run_record(const task *t)
{
    mz_event *e = t->event;
    pthread_mutex_lock(&t->stream->lock);
    failure f = t->stream->failure;
    pthread_mutex_unlock(&t->stream->lock);

    pthread_mutex_lock(&e->lock);
    e->failure = f;
    e->seconds = mz_clock_seconds();
    e->n_reached = t->ticket;
    e->n_queued--;
    pthread_cond_broadcast(&e->changed);
    pthread_mutex_unlock(&e->lock);
    return MZ_OK;
}

mz_status mz_cpu_event_record(mz_event *event, mz_stream *stream)
{
    pthread_mutex_lock(&event->lock);
    if (event->stream != stream)
        while (event->n_reached < event->n_recorded)
            pthread_cond_wait(&event->changed, &event->lock);
    event->stream = stream;
    event->n_queued++;
    uint64_t ticket = ++event->n_recorded;
    pthread_mutex_unlock(&event->lock);

    mz_status status =
        submit(stream, (task){.run = run_record, .after_failure = true, .event = event, .ticket = ticket});
    if (status)
        unqueue(event, true);
    return status;
}

/* Blocks until recording `ticket` is complete; the failure that it carries becomes this thread's. */
static mz_status await(mz_event *event, uint64_t ticket)
{
    while (event->n_reached < ticket)
        pthread_cond_wait(&event->changed, &event->lock);
    return event->failure.status ? mz_fail_adopt(event->failure.status, event->failure.message) : MZ_OK;
}

mz_status mz_cpu_event_sync(mz_event *event)
{
    pthread_mutex_lock(&event->lock);
    mz_status status = await(event, event->n_recorded);
    pthread_mutex_unlock(&event->lock);
    return status;
}

bool mz_cpu_event_done(mz_event *event)
{
    pthread_mutex_lock(&event->lock);
    bool done = event->n_reached == event->n_recorded;
    pthread_mutex_unlock(&event->lock);
    return done;
}

/* When the event was reached; false when it was not, or never recorded. */
static bool reached_at(mz_event *event, double *seconds)
{
    pthread_mutex_lock(&event->lock);
    bool reached = event->n_recorded > 0 && event->n_reached == event->n_recorded;
    *seconds = event->seconds;
    pthread_mutex_unlock(&event->lock);
    return reached;
}

mz_status mz_cpu_event_elapsed(mz_event *begin, mz_event *end, double *seconds)
{
    double t0, t1;
    if (!reached_at(begin, &t0) || !reached_at(end, &t1))
        return mz_fail(MZ_ERR_ARGUMENT, "elapsed time asked for between events that are not both complete");
    *seconds = t1 - t0;
    return MZ_OK;
}

static mz_status run_wait(const task *t)
{
    mz_event *e = t->event;
    pthread_mutex_lock(&e->lock);
    mz_status status = await(e, t->ticket);
    e->n_queued--;
    pthread_cond_broadcast(&e->changed);
    pthread_mutex_unlock(&e->lock);
    return status;
}

mz_status mz_cpu_wait(mz_stream *stream, mz_event *event)
{
    pthread_mutex_lock(&event->lock);
    uint64_t ticket = event->n_recorded;
    event->n_queued++;
    pthread_mutex_unlock(&event->lock);

    if (!stream->has_worker)
        return run_wait(&(task){.event = event, .ticket = ticket});
    mz_status status =
        submit(stream, (task){.run = run_wait, .after_failure = true, .event = event, .ticket = ticket});
    if (status)
        unqueue(event, false);
    return status;
}

/* ---- stream-ordered work ---- */

/* A part of a large copy. */
static void copy_lines(void *arg, int64_t begin, int64_t end, int thread)
{
    const task *t = arg;
    (void)thread;
    mz_copy_large((char *)t->dst + begin, (const char *)t->src + begin, (size_t)(end - begin));
}

static mz_status run_copy(const task *t)
{
    const size_t all_threads = (size_t)8 << 20; /* from here on one core does not use the memory fully */
    const char *from = t->src, *to = t->dst;
    if (t->n_rows == 1 && t->row_bytes >= all_threads && (from + t->row_bytes <= to || to + t->row_bytes <= from)) {
        mz_threads_for(mz_cpu_stream_threads(t->stream), (int64_t)t->row_bytes, 4096, copy_lines,
                       (void *)(uintptr_t)t);
        return MZ_OK;
    }
    for (size_t row = 0; row < t->n_rows; row++) {
        char *dst = (char *)t->dst + row * t->dst_stride;
        const char *src = (const char *)t->src + row * t->src_stride;
        if (dst + t->row_bytes <= src || src + t->row_bytes <= dst)
            mz_copy_large(dst, src, t->row_bytes);
        else
            memmove(dst, src, t->row_bytes);
    }
    return MZ_OK;
}

mz_status mz_cpu_copy(mz_stream *stream, void *dst, const void *src, size_t bytes)
{
    return mz_cpu_copy_2d(stream, dst, bytes, src, bytes, bytes, bytes ? 1 : 0);
}

mz_status mz_cpu_copy_2d(mz_stream *stream, void *dst, size_t dst_stride, const void *src, size_t src_stride,
                         size_t row_bytes, size_t n_rows)
{
    return submit(stream, (task){.run = run_copy,
                                 .dst = dst,
                                 .src = src,
                                 .dst_stride = dst_stride,
                                 .src_stride = src_stride,
                                 .row_bytes = row_bytes,
                                 .n_rows = n_rows});
}

static mz_status run_fill(const task *t)
{
    if (t->row_bytes)
        memset(t->dst, t->byte, t->row_bytes);
    return MZ_OK;
}

mz_status mz_cpu_fill(mz_stream *stream, void *dst, uint8_t byte, size_t bytes)
{
    return submit(stream, (task){.run = run_fill, .dst = dst, .byte = byte, .row_bytes = bytes});
}

static mz_status run_host_call(const task *t)
{
    return t->fn(t->arg);
}

mz_status mz_cpu_host_call(mz_stream *stream, mz_host_fn fn, void *arg)
{
    return submit(stream, (task){.run = run_host_call, .fn = fn, .arg = arg});
}

static mz_status run_post(const task *t)
{
    __atomic_store_n(t->word, t->value, __ATOMIC_RELEASE);
    return MZ_OK;
}

mz_status mz_cpu_post(mz_stream *stream, uint32_t *word, uint32_t value)
{
    return submit(stream, (task){.run = run_post, .after_failure = true, .word = word, .value = value});
}

static mz_status run_await(const task *t)
{
    const struct timespec nap = {0, 20000};
    while ((int32_t)(__atomic_load_n(t->word, __ATOMIC_ACQUIRE) - t->value) < 0)
        nanosleep(&nap, NULL);
    return MZ_OK;
}

mz_status mz_cpu_await(mz_stream *stream, uint32_t *word, uint32_t value)
{
    return submit(stream, (task){.run = run_await, .after_failure = true, .word = word, .value = value});
}
