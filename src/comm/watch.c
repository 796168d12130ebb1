#include "comm/watch.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "comm/wire_card.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/memory.h"

static const double period_seconds = 0.01;
/* So long what a rank left behind may take to arrive when its process has ended. */
static const double grace_seconds = 1.0;

/* A collective under way. */
typedef struct flight {
    mz_op_info op;
    mz_event *begin, *end;
    bool launched; /* `end` is recorded */
    double since;  /* when the stream was seen to have reached it; 0: not yet */
} flight;

struct mz_watch {
    mz_watch_options options;
    double *gone_since; /* [members] when a member's end was noticed; 0: it lives */
    mz_waiter waiter;   /* this and the next: the watching thread's, of the oldest collective under way */
    double doubted;
    uint64_t doubted_at; /* its sequence number */
    pthread_t thread;
    bool has_thread;
    uint64_t n_slow; /* number, plus one, of the newest that was said to be slow */

    pthread_mutex_t telling; /* held until a failure is marked */
    pthread_mutex_t lock;    /* of what follows */
    pthread_cond_t quit_changed;
    bool quit;
    flight flights[MZ_WATCH_FLIGHTS];
    uint64_t n_begun, n_ended; /* under way: n_ended .. n_begun - 1, modulo the ring */
    double seconds;
    mz_status failed;
    char message[1024];
};

static flight *flight_at(mz_watch *w, uint64_t number)
{
    return &w->flights[number % MZ_WATCH_FLIGHTS];
}

/* Puts away what has ended. The lock is held. */
static void retire(mz_watch *w)
{
    const mz_device_ops *ops = w->options.device->ops;
    for (; w->n_ended < w->n_begun; w->n_ended++) {
        flight *f = flight_at(w, w->n_ended);
        double seconds = 0;
        if (!f->launched || !ops->event_done(f->end))
            break;
        if (ops->event_elapsed(f->begin, f->end, &seconds) == MZ_OK)
            w->seconds += seconds;
    }
}

/* The oldest collective under way; false when there is none. */
static bool find_oldest(mz_watch *w, flight *oldest)
{
    bool found = false;
    pthread_mutex_lock(&w->lock);
    retire(w);
    if (w->n_ended < w->n_begun) {
        flight *f = flight_at(w, w->n_ended);
        if (f->since == 0 && (!f->launched || w->options.device->ops->event_done(f->begin)))
            f->since = mz_clock_seconds();
        *oldest = *f;
        found = true;
    }
    pthread_mutex_unlock(&w->lock);
    return found;
}

/* What one member has to do with a collective that has not ended. */
static mz_status inspect_member(mz_watch *w, const mz_op_info *op, int member)
{
    mz_shm_sync *sync = w->options.sync;
    bool there = mz_shm_sync_entered(sync, member, op);
    uint64_t newest = atomic_load(&sync->ranks[member].entered);
    bool has_card = there && newest - op->sequence <= MZ_WATCH_FLIGHTS; /* it may be far ahead of a broadcast */
    mz_status status = MZ_OK;
    if (has_card && sync->checked[member] <= op->sequence)
        status = mz_shm_sync_compare(sync, op, member);
    if (status || mz_shm_segment_alive(sync->segment, member))
        return status;
    double now = mz_clock_seconds();
    if (w->gone_since[member] == 0)
        w->gone_since[member] = now;
    return there && now - w->gone_since[member] < grace_seconds ? MZ_OK : mz_shm_sync_gone(sync, op, member);
}

/* The stream waits in `oldest`. absent: a member that has not entered it; none: -1. */
static mz_status judge_wait(mz_watch *w, const flight *oldest, int absent)
{
    const mz_members *members = &w->options.sync->members;
    double now = mz_clock_seconds(), overdue = now - oldest->since - w->options.timeout_seconds;
    mz_wait wait;
    if (absent >= 0)
        mz_board_wait(members->board, &w->waiter, &oldest->op, members->ranks[absent], now);
    else
        mz_board_go_on(members->board, &w->waiter);
    if (w->doubted_at != oldest->op.sequence) {
        w->doubted_at = oldest->op.sequence;
        w->doubted = 0;
    }
    if (overdue <= 0)
        return MZ_OK;
    mz_board_read_own(members->board, &wait);
    /* What a collective between nodes waits for is the courier's to say. */
    if (absent < 0 && wait.rank >= 0 && overdue < MZ_BOARD_EXCUSE_SECONDS + MZ_BOARD_FRESH_SECONDS)
        return MZ_OK;
    return mz_shm_sync_overdue(w->options.sync, &oldest->op, (members->rank + 1) % members->size, overdue,
                               &w->doubted);
}

static mz_status inspect(mz_watch *w, const flight *oldest)
{
    const mz_members *members = &w->options.sync->members;
    mz_status status = MZ_OK;
    int absent = -1;
    for (int i = 0; i < members->size && !status; i++) {
        if (i == members->rank)
            continue;
        status = inspect_member(w, &oldest->op, i);
        if (absent < 0 && !mz_shm_sync_entered(w->options.sync, i, &oldest->op))
            absent = i;
    }
    double seconds = oldest->since > 0 ? mz_clock_seconds() - oldest->since : 0;
    if (!status && w->options.slow && seconds > w->options.timeout_seconds / 2 &&
        w->n_slow <= oldest->op.sequence) {
        w->n_slow = oldest->op.sequence + 1;
        w->options.slow(w->options.context, &oldest->op);
    }
    return !status && oldest->since > 0 ? judge_wait(w, oldest, absent) : status;
}

void mz_watch_fail(mz_watch *w, mz_status status)
{
    const mz_members *members = &w->options.sync->members;
    char message[1024];
    mz_wire_note note;
    snprintf(message, sizeof message, "%s", mz_last_error());
    pthread_mutex_lock(&w->telling);
    pthread_mutex_lock(&w->lock);
    bool is_first = w->failed == MZ_OK;
    if (is_first) {
        w->failed = status;
        memcpy(w->message, message, sizeof message);
    }
    pthread_mutex_unlock(&w->lock);
    if (is_first) {
        mz_status theirs = mz_wire_note_words(members->ranks[members->rank], status, message, note.message);
        mz_shm_sync_abort(w->options.sync, theirs, note.message);
        w->options.mark(w->options.context, status, message);
    }
    pthread_mutex_unlock(&w->telling);
    if (is_first)
        w->options.abort(w->options.context, status, message);
}

/* Puts the collective at which something went wrong before the message. */
static mz_status blame(const mz_op_info *op, mz_status status)
{
    char reason[900];
    snprintf(reason, sizeof reason, "%s", mz_last_error());
    return mz_fail(status, "%s #%" PRIu64 " (%s): %s", op->kind, op->sequence, op->label, reason);
}

static void *run(void *arg)
{
    mz_watch *w = arg;
    bool quit = false;
    while (!quit) {
        flight oldest;
        struct timespec until;
        mz_status status = w->options.check(w->options.context);
        bool waiting = find_oldest(w, &oldest);
        if (status && waiting)
            status = blame(&oldest.op, status);
        if (!status)
            status = mz_shm_sync_failure(w->options.sync);
        if (!status && waiting)
            status = inspect(w, &oldest);
        if (!waiting || oldest.since == 0)
            mz_board_go_on(w->options.sync->members.board, &w->waiter);
        if (status)
            mz_watch_fail(w, status);

        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += (long)(period_seconds * 1e9);
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_mutex_lock(&w->lock);
        if (!w->quit)
            pthread_cond_timedwait(&w->quit_changed, &w->lock, &until);
        quit = w->quit || w->failed;
        pthread_mutex_unlock(&w->lock);
    }
    mz_board_go_on(w->options.sync->members.board, &w->waiter);
    return NULL;
}

static mz_status start(mz_watch *w)
{
    const mz_device_ops *ops = w->options.device->ops;
    mz_status status = MZ_OK;
    w->gone_since = mz_calloc((size_t)w->options.sync->members.size, sizeof *w->gone_since);
    if (!w->gone_since)
        return MZ_ERR_MEMORY;
    for (int i = 0; i < MZ_WATCH_FLIGHTS && !status; i++) {
        status = ops->event_create(w->options.device, &w->flights[i].begin);
        if (!status)
            status = ops->event_create(w->options.device, &w->flights[i].end);
    }
    if (status)
        return status;
    int error = pthread_create(&w->thread, NULL, run, w);
    if (error)
        return mz_fail(MZ_ERR_MEMORY, "cannot start a thread: %s", strerror(error));
    w->has_thread = true;
    return MZ_OK;
}

mz_status mz_watch_create(const mz_watch_options *options, mz_watch **watch)
{
    mz_watch *w = mz_calloc(1, sizeof *w);
    if (!w)
        return MZ_ERR_MEMORY;
    w->options = *options;
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&w->quit_changed, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&w->lock, NULL);
    pthread_mutex_init(&w->telling, NULL);
    mz_status status = start(w);
    if (status) {
        mz_watch_destroy(w);
        return status;
    }
    *watch = w;
    return MZ_OK;
}

/* What broke on this rank after the last look: the others are to hear of it, and not to be waited for. */
static void look_once_more(mz_watch *w)
{
    flight oldest;
    mz_status status = w->failed ? MZ_OK : w->options.check(w->options.context);
    if (status && find_oldest(w, &oldest))
        status = blame(&oldest.op, status);
    if (status)
        mz_watch_fail(w, status);
}

void mz_watch_destroy(mz_watch *w)
{
    if (!w)
        return;
    if (w->has_thread) {
        pthread_mutex_lock(&w->lock);
        w->quit = true;
        pthread_cond_signal(&w->quit_changed);
        pthread_mutex_unlock(&w->lock);
        pthread_join(w->thread, NULL);
        look_once_more(w);
    }
    for (int i = 0; i < MZ_WATCH_FLIGHTS; i++) {
        if (w->flights[i].begin)
            w->options.device->ops->event_destroy(w->flights[i].begin);
        if (w->flights[i].end)
            w->options.device->ops->event_destroy(w->flights[i].end);
    }
    pthread_cond_destroy(&w->quit_changed);
    pthread_mutex_destroy(&w->lock);
    pthread_mutex_destroy(&w->telling);
    mz_free(w->gone_since);
    mz_free(w);
}

/* The failure, with the lock held. */
static mz_status adopt(const mz_watch *w)
{
    return w->failed ? mz_fail_adopt(w->failed, w->message) : MZ_OK;
}

/* Who is told of a failure finds it marked everywhere. */
static mz_status settled(mz_watch *w, mz_status status)
{
    if (status) {
        pthread_mutex_lock(&w->telling);
        pthread_mutex_unlock(&w->telling);
    }
    return status;
}

mz_status mz_watch_begin(mz_watch *w, const mz_op_info *op, mz_stream *stream)
{
    const struct timespec pause = {0, 50000};
    flight *f = NULL;
    mz_status status = MZ_OK;
    while (!f && !status) {
        pthread_mutex_lock(&w->lock);
        status = adopt(w);
        if (w->n_begun - w->n_ended == MZ_WATCH_FLIGHTS)
            retire(w);
        if (!status && w->n_begun - w->n_ended < MZ_WATCH_FLIGHTS) {
            f = flight_at(w, w->n_begun++);
            f->op = *op;
            f->launched = false;
            f->since = 0;
        }
        pthread_mutex_unlock(&w->lock);
        if (!f && !status)
            nanosleep(&pause, NULL);
    }
    if (status)
        return settled(w, status);
    mz_shm_sync_enter(w->options.sync, op);
    return w->options.device->ops->event_record(f->begin, stream);
}

mz_status mz_watch_end(mz_watch *w, mz_status launched, mz_stream *stream)
{
    flight *f = flight_at(w, w->n_begun - 1);
    mz_status status = launched ? blame(&f->op, launched) : MZ_OK;
    if (!status)
        status = w->options.device->ops->event_record(f->end, stream);
    if (status)
        mz_watch_fail(w, status);
    pthread_mutex_lock(&w->lock);
    f->launched = !status;
    f->since = 0; /* from now on counted from when the stream gets there */
    status = adopt(w);
    pthread_mutex_unlock(&w->lock);
    return settled(w, status);
}

mz_status mz_watch_status(mz_watch *w)
{
    pthread_mutex_lock(&w->lock);
    mz_status status = adopt(w);
    pthread_mutex_unlock(&w->lock);
    return settled(w, status);
}

double mz_watch_seconds(mz_watch *w)
{
    pthread_mutex_lock(&w->lock);
    retire(w);
    double seconds = w->seconds;
    pthread_mutex_unlock(&w->lock);
    return seconds;
}
