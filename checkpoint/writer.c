#include "checkpoint/checkpoint.h"

#include <jansson.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>

#include "checkpoint/manifest.h"
#include "checkpoint/save.h"
#include "checkpoint/shard_source.h"
#include "comm/mpi_check.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/log.h"
#include "core/memory.h"

struct mz_writer {
    mz_world *world;
    mz_device *device;
    bool live;         /* the shards are host memory, and written from where they lie */
    mz_stream *stream; /* of copies: live: the caller's own; else one with a thread */
    MPI_Comm comm;     /* the thread's */
    mz_save_job job;   /* what the thread works on, or worked on last; strings owned */
    mz_shard_source source;
    mz_frame *frame; /* the thread's */
    void *pinned;    /* the snapshot is in it, from a page's begin */
    uint32_t *crcs;  /* room for the caller's */
    int64_t n_crcs;
    double blocked; /* seconds of the last save; the caller's */

    pthread_t thread;
    bool has_thread;
    pthread_mutex_t lock; /* over what follows */
    pthread_cond_t changed;
    bool copying, busy, quit, unreported; /* copying: a GPU's snapshot is not taken yet */
    double total;                         /* seconds of the thread */
    int64_t bytes;
    mz_status status;
    char message[1280];
};

/* ---- the thread ---- */

static void run_job(mz_writer *writer)
{
    int64_t bytes = 0;
    const double start = mz_clock_seconds();
    mz_status status = writer->live ? MZ_OK : writer->device->ops->stream_sync(writer->stream);
    pthread_mutex_lock(&writer->lock);
    writer->copying = false;
    pthread_cond_broadcast(&writer->changed);
    pthread_mutex_unlock(&writer->lock);
    status = mz_save_run(&writer->job, status, &bytes);
    mz_shard_source_end(&writer->source);
    pthread_mutex_lock(&writer->lock);
    writer->total = mz_clock_seconds() - start;
    writer->bytes = bytes;
    writer->status = status;
    writer->unreported = status != MZ_OK;
    strncpy(writer->message, status ? mz_last_error() : "", sizeof writer->message - 1);
    writer->busy = false;
    pthread_cond_broadcast(&writer->changed);
    pthread_mutex_unlock(&writer->lock);
}

static void *work(void *arg)
{
    mz_writer *writer = arg;
    for (;;) {
        pthread_mutex_lock(&writer->lock);
        while (!writer->busy && !writer->quit)
            pthread_cond_wait(&writer->changed, &writer->lock);
        const bool quit = !writer->busy;
        pthread_mutex_unlock(&writer->lock);
        if (quit)
            return NULL;
        run_job(writer);
    }
}

/* The signals that mean "save and stop" are for the thread that trains. */
static mz_status start_thread(mz_writer *writer)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int error = pthread_create(&writer->thread, NULL, work, writer);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    writer->has_thread = !error;
    return error ? mz_fail(MZ_ERR_MEMORY, "cannot start the checkpoint thread: %s", strerror(error)) : MZ_OK;
}

static void wait_idle(mz_writer *writer)
{
    pthread_mutex_lock(&writer->lock);
    while (writer->busy)
        pthread_cond_wait(&writer->changed, &writer->lock);
    pthread_mutex_unlock(&writer->lock);
}

/* The result of the last save, once: a failure that was told is not told again. */
static mz_status take_result(mz_writer *writer)
{
    pthread_mutex_lock(&writer->lock);
    mz_status status = writer->unreported ? mz_fail_adopt(writer->status, writer->message) : MZ_OK;
    writer->unreported = false;
    pthread_mutex_unlock(&writer->lock);
    return status;
}

/* ---- life ---- */

static mz_status build(mz_writer *writer, const mz_shard *shards, int64_t n_shards)
{
    const mz_device_ops *ops = writer->device->ops;
    const size_t page = 4096, bytes = mz_shard_source_room(shards, n_shards);
    int64_t n_crcs = 0;
    for (int64_t i = 0; i < n_shards; i++)
        n_crcs += mz_run_n_blocks(shards[i].count);
    writer->crcs = mz_calloc((size_t)n_crcs, sizeof *writer->crcs);
    writer->n_crcs = n_crcs;
    mz_status status =
        writer->crcs ? ops->alloc_pinned(writer->device, bytes + page, &writer->pinned) : MZ_ERR_MEMORY;
    if (status)
        return status;
    writer->live = strcmp(ops->name, "cpu") == 0;
    if (!writer->live)
        memset(writer->pinned, 0,
               bytes + page); /* the pages are there before the first save has to wait for them */
    char *snapshot = (char *)writer->pinned + (page - (uintptr_t)writer->pinned % page) % page;
    status = mz_shard_source_init(&writer->source, shards, n_shards, snapshot);
    if (!status)
        status =
            ops->stream_create(writer->device, writer->live ? MZ_STREAM_COMPUTE : MZ_STREAM_COPY, &writer->stream);
    return status ? status : start_thread(writer);
}

static mz_status agree(mz_world *world, mz_status status, const char *where)
{
    return world->size > 1 ? mz_agree(world, status, where) : status;
}

mz_status mz_writer_create(mz_world *world, mz_device *device, const mz_shard *shards, int64_t n_shards,
                           double rate_bytes_per_second, mz_writer **writer)
{
    mz_writer *w = mz_calloc(1, sizeof *w);
    mz_status status = w ? MZ_OK : MZ_ERR_MEMORY;
    if (w) {
        pthread_mutex_init(&w->lock, NULL);
        pthread_cond_init(&w->changed, NULL);
        w->world = world;
        w->device = device;
        w->comm = MPI_COMM_NULL;
        w->job = (mz_save_job){.rank = world->rank,
                               .size = world->size,
                               .source = &w->source,
                               .frame = &w->frame,
                               .rate_bytes_per_second = rate_bytes_per_second};
        status = build(w, shards, n_shards);
    }
    status = agree(world, status, "creating the checkpoint writer");
    if (!status && world->size > 1) {
        status = mz_mpi_check(MPI_Comm_dup(world->comm, &w->comm), "MPI_Comm_dup");
        if (!status)
            status = mz_mpi_check(MPI_Comm_set_errhandler(w->comm, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
        w->job.comm = w->comm;
    }
    if (status) {
        mz_writer_destroy(w);
        return status;
    }
    *writer = w;
    return MZ_OK;
}

static void forget_job(mz_writer *writer)
{
    mz_free((char *)writer->job.run_folder);
    mz_free((char *)writer->job.state);
    writer->job.run_folder = writer->job.state = NULL;
}

void mz_writer_destroy(mz_writer *writer)
{
    if (!writer)
        return;
    if (writer->has_thread) {
        pthread_mutex_lock(&writer->lock);
        writer->quit = true;
        pthread_cond_broadcast(&writer->changed);
        pthread_mutex_unlock(&writer->lock);
        pthread_join(writer->thread, NULL);
    }
    if (writer->comm != MPI_COMM_NULL)
        MPI_Comm_free(&writer->comm);
    if (writer->stream)
        writer->device->ops->stream_destroy(writer->stream);
    if (writer->pinned)
        writer->device->ops->free_pinned(writer->device, writer->pinned);
    forget_job(writer);
    mz_shard_source_free(&writer->source);
    mz_frame_destroy(writer->frame);
    mz_free(writer->crcs);
    pthread_cond_destroy(&writer->changed);
    pthread_mutex_destroy(&writer->lock);
    mz_free(writer);
}

/* ---- saving ---- */

static mz_status check_state(const char *state)
{
    json_error_t error;
    json_t *json = json_loads(state, JSON_REJECT_DUPLICATES, &error);
    const bool object = json_is_object(json);
    mz_status status =
        object ? MZ_OK
               : mz_fail(MZ_ERR_ARGUMENT, "checkpoint state: expected a JSON object, found %s (line %d)",
                         json ? "another value" : error.text, json ? 1 : error.line);
    json_decref(json);
    return status;
}

static mz_status set_job(mz_writer *writer, const mz_save_request *request)
{
    forget_job(writer);
    if (!request->run_folder || request->step < 0 || request->keep < 0)
        return mz_fail(MZ_ERR_ARGUMENT, "checkpoint: expected a folder, a step and a number to keep from 0 on");
    const char *state = writer->world->rank == 0 && request->state ? request->state : "{}";
    mz_status status = check_state(state);
    if (status)
        return status;
    writer->job.step = request->step;
    writer->job.keep = request->keep;
    writer->job.crcs = request->crcs ? writer->crcs : NULL;
    if (request->crcs)
        memcpy(writer->crcs, request->crcs, (size_t)writer->n_crcs * sizeof *writer->crcs);
    writer->job.run_folder = mz_strdup(request->run_folder);
    writer->job.state = mz_strdup(state);
    return writer->job.run_folder && writer->job.state ? MZ_OK : MZ_ERR_MEMORY;
}

/* Of a GPU's shards: gives the copies to the stream; the thread waits for them. */
static mz_status start_snapshot(mz_writer *writer)
{
    const mz_device_ops *ops = writer->device->ops;
    const mz_shard_source *source = &writer->source;
    mz_status status = MZ_OK;
    for (int64_t i = 0; i < source->n_shards && !status; i++)
        if (source->shards[i].count)
            status = ops->copy(writer->stream, source->copies[i], source->shards[i].data,
                               mz_shard_bytes(&source->shards[i], source->shards[i].count));
    return status;
}

mz_status mz_writer_settle(mz_writer *writer)
{
    const double start = mz_clock_seconds();
    size_t copied = 0;
    pthread_mutex_lock(&writer->lock);
    const bool waits = writer->copying, busy = writer->busy;
    while (writer->copying)
        pthread_cond_wait(&writer->changed, &writer->lock);
    pthread_mutex_unlock(&writer->lock);
    mz_status status = MZ_OK;
    if (writer->live && busy)
        status = mz_shard_source_settle(&writer->source, writer->device, writer->stream, &copied);
    if (waits || copied)
        writer->blocked += mz_clock_seconds() - start;
    return status;
}

static void hand_over(mz_writer *writer)
{
    pthread_mutex_lock(&writer->lock);
    writer->busy = true;
    writer->copying = !writer->live;
    pthread_cond_broadcast(&writer->changed);
    pthread_mutex_unlock(&writer->lock);
}

static mz_status check_same(mz_writer *writer, const mz_save_request *request)
{
    if (writer->world->size == 1)
        return MZ_OK;
    char *text = mz_strprintf("%lld %s", (long long)request->step, request->run_folder ? request->run_folder : "");
    mz_status status = agree(writer->world, text ? MZ_OK : MZ_ERR_MEMORY, "saving a checkpoint");
    if (!status)
        status = mz_agree_same(writer->world, text, strlen(text), "step and folder of a checkpoint");
    mz_free(text);
    return status;
}

mz_status mz_writer_save(mz_writer *writer, const mz_save_request *request)
{
    const double start = mz_clock_seconds();
    wait_idle(writer);
    mz_status earlier = take_result(writer);
    char *earlier_message = earlier ? mz_strdup(mz_last_error()) : NULL;
    mz_status status = check_same(writer, request);
    if (!status) {
        status = set_job(writer, request);
        if (!status && !writer->live)
            status = start_snapshot(writer);
        mz_shard_source_begin(&writer->source, !writer->live);
        status = agree(writer->world, status, "taking a checkpoint's snapshot");
    }
    if (!status) {
        hand_over(writer);
        if (!request->asynchronous) {
            wait_idle(writer);
            status = take_result(writer);
        } else if (!request->overlap_snapshot) {
            status = mz_writer_settle(writer);
        }
    }
    writer->blocked = mz_clock_seconds() - start;
    if (status && earlier) /* one status, two failures */
        mz_log_root(MZ_LOG_WARN, "%s", earlier_message ? earlier_message : "an earlier checkpoint was not saved");
    if (!status && earlier)
        status = mz_fail_adopt(earlier, earlier_message ? earlier_message : "an earlier checkpoint was not saved");
    mz_free(earlier_message);
    return status;
}

mz_status mz_writer_wait(mz_writer *writer)
{
    wait_idle(writer);
    return take_result(writer);
}

void mz_writer_times(const mz_writer *writer, double *blocked, double *total, int64_t *bytes)
{
    mz_writer *w = (mz_writer *)writer;
    pthread_mutex_lock(&w->lock);
    *blocked = w->blocked;
    *total = w->total;
    *bytes = w->bytes;
    pthread_mutex_unlock(&w->lock);
}
