/* What may be done while a stream awaits a word that comes later: work of other streams must go on, or collectives
 * between nodes (src/comm/relay.h) never end. Of calls that may wait for all streams it is only said whether they
 * do.
 *
 *     awaits [DEVICE [late]]        cpu unless told; late: CUDA loads kernels at their first launch, as it likes to
 *
 * Each deed is done by a thread of its own. One that is not done in time is let go by the word, and counts as
 * waiting. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/clock.h"
#include "core/memory.h"
#include "device/device.h"
#include "kernels/kernels.h"

enum { N = 1 << 20, SIDE = 256, MOST_STREAMS = 48, MANY_LAUNCHES = 5000 };
static const double patience_seconds = 2;

typedef struct rig {
    mz_device *device;
    const mz_device_ops *ops;
    mz_stream *waiting, *compute, *copying;
    mz_event *event;
    uint32_t *word; /* pinned */
    uint32_t value;
    uint32_t *posted; /* pinned */
    void *pinned, *plain, *memory, *other, *spare, *spare_pinned;
} rig;

typedef mz_status (*deed_fn)(rig *r);

static void must(mz_status status, const char *what)
{
    if (status) {
        fprintf(stderr, "%s: %s\n", what, mz_last_error());
        exit(1);
    }
}

/* ---- deeds ---- */

static mz_status copy_out(rig *r)
{
    mz_status status = r->ops->copy(r->copying, r->pinned, r->memory, N);
    return status ? status : r->ops->stream_sync(r->copying);
}

static mz_status copy_in(rig *r)
{
    mz_status status = r->ops->copy(r->copying, r->memory, r->pinned, N);
    return status ? status : r->ops->stream_sync(r->copying);
}

static mz_status copy_plain(rig *r)
{
    mz_status status = r->ops->copy(r->copying, r->memory, r->plain, N);
    return status ? status : r->ops->stream_sync(r->copying);
}

static mz_status fill(rig *r)
{
    mz_status status = r->ops->fill(r->copying, r->memory, 0, N);
    return status ? status : r->ops->stream_sync(r->copying);
}

static mz_status launch(rig *r)
{
    const mz_cast_args args = {.n = N / 4,
                               .src = r->memory,
                               .src_dtype = MZ_F32,
                               .dst = r->other,
                               .dst_dtype = MZ_F32,
                               .scale = 1,
                               .accumulate = true};
    mz_status status = r->ops->kernels->cast(&args, r->compute);
    return status ? status : r->ops->stream_sync(r->compute);
}

static mz_status use_event(rig *r)
{
    mz_status status = r->ops->event_record(r->event, r->compute);
    if (!status)
        status = r->ops->wait(r->copying, r->event);
    return status ? status : r->ops->event_sync(r->event);
}

static mz_status make_event(rig *r)
{
    mz_event *event = NULL;
    mz_status status = r->ops->event_create(r->device, &event);
    if (!status)
        status = r->ops->event_record(event, r->compute);
    if (!status)
        status = r->ops->event_sync(event);
    r->ops->event_destroy(event);
    return status;
}

static mz_status post(rig *r)
{
    mz_status status = r->ops->post(r->copying, r->posted, *r->posted + 1);
    return status ? status : r->ops->stream_sync(r->copying);
}

static mz_status nothing(void *arg)
{
    (void)arg;
    return MZ_OK;
}

static mz_status host_call(rig *r)
{
    mz_status status = r->ops->host_call(r->copying, nothing, NULL);
    return status ? status : r->ops->stream_sync(r->copying);
}

static mz_status multiply(rig *r, int64_t m, mz_dtype dtype)
{
    const mz_matmul_args args = {.m = m,
                                 .n = SIDE,
                                 .k = SIDE,
                                 .batch = 1,
                                 .a = r->memory,
                                 .b = r->memory,
                                 .c = r->other,
                                 .lda = SIDE,
                                 .ldb = SIDE,
                                 .ldc = SIDE,
                                 .dtype = dtype,
                                 .dtype_c = dtype,
                                 .alpha = 1};
    mz_status status = r->ops->kernels->matmul(&args, r->compute);
    return status ? status : r->ops->stream_sync(r->compute);
}

static mz_status multiply_f32(rig *r)
{
    return multiply(r, SIDE, MZ_F32);
}

static mz_status multiply_bf16(rig *r)
{
    return multiply(r, SIDE, MZ_BF16);
}

static mz_status multiply_few(rig *r)
{
    return multiply(r, 8, MZ_BF16);
}

static mz_status make_stream(rig *r)
{
    mz_stream *stream = NULL;
    mz_status status = r->ops->stream_create(r->device, MZ_STREAM_COPY, &stream);
    if (!status)
        status = r->ops->copy(stream, r->pinned, r->memory, N);
    if (!status)
        status = r->ops->stream_sync(stream);
    r->ops->stream_destroy(stream);
    return status;
}

static mz_status take(rig *r)
{
    return r->ops->alloc(r->device, (size_t)64 << 20, &r->spare);
}

static mz_status give(rig *r)
{
    r->ops->free(r->device, r->spare);
    r->spare = NULL;
    return MZ_OK;
}

static mz_status take_pinned(rig *r)
{
    return r->ops->alloc_pinned(r->device, (size_t)8 << 20, &r->spare_pinned);
}

static mz_status give_pinned(rig *r)
{
    r->ops->free_pinned(r->device, r->spare_pinned);
    r->spare_pinned = NULL;
    return MZ_OK;
}

static const struct {
    const char *name;
    deed_fn run;
    bool must_go_on; /* the relay does it while the caller's stream waits */
} deeds[] = {
    {"a copy from device to pinned memory", copy_out, true},
    {"a copy from pinned to device memory", copy_in, true},
    {"an event", use_event, true},
    {"a word posted by another stream", post, true},
    {"a kernel's first launch", launch, true},
    {"its second launch", launch, true},
    {"filling memory", fill, true},
    {"a host function", host_call, true},
    {"making an event", make_event, false},
    {"a copy from plain memory", copy_plain, false},
    {"a first product in fp32", multiply_f32, false},
    {"a first product in bf16", multiply_bf16, false},
    {"a product of another shape", multiply_few, false},
    {"making a stream, and destroying it", make_stream, false},
    {"taking device memory", take, false},
    {"giving it back", give, false},
    {"taking pinned memory", take_pinned, false},
    {"giving it back", give_pinned, false},
};
enum { N_DEEDS = sizeof deeds / sizeof *deeds };

/* ---- doing them ---- */

typedef struct errand {
    rig *rig;
    deed_fn run;
    bool done; /* atomic */
    mz_status status;
    char message[512];
} errand;

static void *run_errand(void *arg)
{
    errand *e = arg;
    e->status = e->rig->ops->check(e->rig->compute); /* binds the thread */
    if (!e->status)
        e->status = e->run(e->rig);
    snprintf(e->message, sizeof e->message, "%s", e->status ? mz_last_error() : "");
    __atomic_store_n(&e->done, true, __ATOMIC_RELEASE);
    return NULL;
}

static void let_go(rig *r)
{
    __atomic_store_n(r->word, r->value, __ATOMIC_RELEASE);
}

/* Did it go on while the word was not set? */
static bool goes_on(rig *r, deed_fn run, double *seconds)
{
    const struct timespec nap = {0, 100000};
    errand e = {.rig = r, .run = run};
    pthread_t thread;
    double begin = mz_clock_seconds();
    if (pthread_create(&thread, NULL, run_errand, &e))
        exit(1);
    while (!__atomic_load_n(&e.done, __ATOMIC_ACQUIRE) && mz_clock_seconds() - begin < patience_seconds)
        nanosleep(&nap, NULL);
    bool done = __atomic_load_n(&e.done, __ATOMIC_ACQUIRE);
    *seconds = mz_clock_seconds() - begin;
    if (!done)
        let_go(r);
    pthread_join(thread, NULL);
    if (e.status) {
        fprintf(stderr, "%s\n", e.message);
        exit(1);
    }
    return done;
}

static void hold(rig *r)
{
    r->value++;
    must(r->ops->await(r->waiting, r->word, r->value), "await");
}

/* The largest number of streams that await a word beside which another stream goes on. */
static int streams_beside(rig *r)
{
    mz_stream *streams[MOST_STREAMS];
    int most = 0;
    double seconds;
    for (int i = 0; i < MOST_STREAMS; i++)
        must(r->ops->stream_create(r->device, i % 2 ? MZ_STREAM_COMM : MZ_STREAM_COPY, &streams[i]), "a stream");
    for (int n = 1; n <= MOST_STREAMS; n++) {
        r->value++;
        for (int i = 0; i < n; i++)
            must(r->ops->await(streams[i], r->word, r->value), "await");
        bool on = goes_on(r, copy_out, &seconds) && goes_on(r, launch, &seconds);
        let_go(r);
        for (int i = 0; i < n; i++)
            must(r->ops->stream_sync(streams[i]), "after an await");
        if (!on)
            break;
        most = n;
    }
    for (int i = 0; i < MOST_STREAMS; i++)
        r->ops->stream_destroy(streams[i]);
    return most;
}

typedef struct filler {
    rig *rig;
    mz_stream *stream;
    int n_launched; /* atomic */
} filler;

static void *fill_queue(void *arg)
{
    filler *f = arg;
    rig *r = f->rig;
    const mz_cast_args args = {
        .n = 64, .src = r->memory, .src_dtype = MZ_F32, .dst = r->other, .dst_dtype = MZ_F32, .scale = 1};
    must(r->ops->check(f->stream), "check");
    for (int i = 0; i < MANY_LAUNCHES; i++) {
        must(r->ops->kernels->cast(&args, f->stream), "cast");
        __atomic_fetch_add(&f->n_launched, 1, __ATOMIC_RELAXED);
    }
    return NULL;
}

/* A thread launches more behind the wait than a queue holds, and is held up: does that hold up other threads? On a
 * CPU, kernels do not go to such streams. */
static bool goes_on_beside_full_queue(rig *r)
{
    const struct timespec while_filling = {1, 0};
    filler f = {.rig = r};
    pthread_t thread;
    double seconds;
    if (strcmp(r->ops->name, "cuda") != 0)
        return true;
    must(r->ops->stream_create(r->device, MZ_STREAM_COMPUTE, &f.stream), "a stream");
    hold(r);
    must(r->ops->event_record(r->event, r->waiting), "an event");
    must(r->ops->wait(f.stream, r->event), "an event");
    if (pthread_create(&thread, NULL, fill_queue, &f))
        exit(1);
    nanosleep(&while_filling, NULL);
    int n_launched = __atomic_load_n(&f.n_launched, __ATOMIC_RELAXED);
    bool on = goes_on(r, copy_out, &seconds) && goes_on(r, launch, &seconds);
    printf("%-8s with %d of %d launches behind the wait, the next one %s\n", on ? "goes on" : "STANDS", n_launched,
           MANY_LAUNCHES, n_launched < MANY_LAUNCHES ? "held up" : "being done");
    let_go(r);
    pthread_join(thread, NULL);
    must(r->ops->stream_sync(f.stream), "after many launches");
    must(r->ops->stream_sync(r->waiting), "after an await");
    r->ops->stream_destroy(f.stream);
    return on;
}

static void open_rig(rig *r, const char *name)
{
    void *word = NULL, *posted = NULL;
    must(mz_device_open(name, 0, 1, &r->device), "the device");
    r->ops = r->device->ops;
    must(r->ops->stream_create(r->device, MZ_STREAM_COMM, &r->waiting), "a stream");
    must(r->ops->stream_create(r->device, MZ_STREAM_COMPUTE, &r->compute), "a stream");
    must(r->ops->stream_create(r->device, MZ_STREAM_COPY, &r->copying), "a stream");
    must(r->ops->event_create(r->device, &r->event), "an event");
    must(r->ops->alloc_pinned(r->device, sizeof *r->word, &word), "pinned memory");
    must(r->ops->alloc_pinned(r->device, sizeof *r->posted, &posted), "pinned memory");
    must(r->ops->alloc_pinned(r->device, N, &r->pinned), "pinned memory");
    must(r->ops->alloc(r->device, N, &r->memory), "memory");
    must(r->ops->alloc(r->device, N, &r->other), "memory");
    r->plain = mz_calloc(1, N);
    r->word = memset(word, 0, sizeof *r->word);
    r->posted = memset(posted, 0, sizeof *r->posted);
    if (!r->plain)
        exit(1);
    must(r->ops->fill(r->copying, r->memory, 0, N), "filling");
    must(r->ops->fill(r->copying, r->other, 0, N), "filling");
    must(r->ops->stream_sync(r->copying), "filling");
}

static void close_rig(rig *r)
{
    r->ops->stream_destroy(r->waiting);
    r->ops->stream_destroy(r->compute);
    r->ops->stream_destroy(r->copying);
    r->ops->event_destroy(r->event);
    r->ops->free(r->device, r->memory);
    r->ops->free(r->device, r->other);
    r->ops->free_pinned(r->device, r->pinned);
    r->ops->free_pinned(r->device, r->word);
    r->ops->free_pinned(r->device, r->posted);
    mz_free(r->plain);
    mz_device_close(r->device);
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "cpu";
    bool late = argc > 2 && strcmp(argv[2], "late") == 0;
    int n_wrong = 0;
    rig r = {.value = 0};
    mz_device_expect_awaits();
    if (late)
        setenv("CUDA_MODULE_LOADING", "LAZY", 1);
    if (mz_device_count(name) == 0) {
        printf("SKIP: no device \"%s\" here\n", name);
        return 77;
    }
    open_rig(&r, name);
    printf("device: %s, which loads kernels %s\n", r.device->label, r.device->loads_late ? "late" : "at once");
    for (int i = 0; i < N_DEEDS; i++) {
        double seconds;
        hold(&r);
        bool on = goes_on(&r, deeds[i].run, &seconds);
        printf("%-8s %-40s %9.3f ms\n",
               on                             ? "goes on"
               : deeds[i].must_go_on && !late ? "STANDS"
                                              : "waits",
               deeds[i].name, 1e3 * seconds);
        n_wrong += !on && deeds[i].must_go_on && !late;
        let_go(&r);
        must(r.ops->stream_sync(r.waiting), "after an await");
        fflush(stdout);
    }
    n_wrong += !late && !goes_on_beside_full_queue(&r);
    int most = late ? 0 : streams_beside(&r);
    if (!late)
        printf("beside %d%s streams that wait, others go on\n", most, most == MOST_STREAMS ? " or more" : "");
    close_rig(&r);
    return n_wrong > 0 || (!late && most < 8);
}
