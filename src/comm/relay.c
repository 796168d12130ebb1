#include "comm/relay.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#include "comm/relay_impl.h"
#include "comm/wire_card.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/log.h"
#include "core/memory.h"

enum {
    AHEAD = 16, /* collectives yet to be launched; a queue holds a thousand launches, some tens per collective */
    NAP_NS = 10000
};

static mz_status failure_of(mz_relay *relay)
{
    mz_status failed = __atomic_load_n(&relay->failed, __ATOMIC_ACQUIRE);
    return failed ? mz_fail_adopt(failed, relay->message) : MZ_OK;
}

/* ---- failure ---- */

void mz_relay_abort(mz_relay *relay, mz_status status, const char *message)
{
    const mz_layout *layout = relay->hier.layout;
    mz_wire_note note;
    pthread_mutex_lock(&relay->lock);
    bool is_first = !relay->failed;
    if (is_first) {
        snprintf(relay->message, sizeof relay->message, "%s", message);
        __atomic_store_n(&relay->failed, status, __ATOMIC_RELEASE);
        /* A word's last user is the newest collective of its number: those before have passed it. */
        for (uint64_t k = relay->n_issued; k > 0 && k + MZ_WATCH_FLIGHTS > relay->n_issued; k--)
            __atomic_store_n(&relay->words[(k - 1) % MZ_WATCH_FLIGHTS], (uint32_t)k, __ATOMIC_RELEASE);
    }
    pthread_cond_broadcast(&relay->changed);
    pthread_mutex_unlock(&relay->lock);
    if (!is_first || !relay->hier.wire)
        return;
    mz_status theirs = mz_wire_note_words(layout->world_ranks[layout->rank], status, message, note.message);
    relay->hier.wire->ops->abort(relay->hier.wire, theirs, note.message);
}

static void fail(mz_relay *relay, mz_status status)
{
    char message[1024];
    snprintf(message, sizeof message, "%s", mz_last_error());
    if (relay->options.failed)
        relay->options.failed(relay->options.context, status);
    mz_relay_abort(relay, status, message);
}

/* ---- standing still ---- */

/* No call of the device's, since one may be what stands still. */
static bool report_host(mz_relay *relay, uint64_t *number)
{
    char words[MZ_WATCH_FLIGHTS * 12] = "";
    size_t used = 0;
    pthread_mutex_lock(&relay->lock);
    *number = relay->n_done;
    uint64_t n_issued = relay->n_issued;
    pthread_mutex_unlock(&relay->lock);
    for (int i = 0; i < MZ_WATCH_FLIGHTS && used < sizeof words; i++)
        used += (size_t)snprintf(words + used, sizeof words - used, " %" PRIu32,
                                 __atomic_load_n(&relay->words[i], __ATOMIC_ACQUIRE));
    const char *stage = __atomic_load_n(&relay->stage, __ATOMIC_RELAXED);
    mz_log(MZ_LOG_WARN,
           "stands still: of %" PRIu64 " collectives between nodes all of %" PRIu64
           " are launched; the courier %s; pieces loaded %" PRIu32 ", sent off %" PRIu32 ", come in %" PRIu32
           "; words%s",
           n_issued, *number,
           *number == n_issued ? "has nothing to do"
           : stage             ? stage
                               : "has not begun",
           __atomic_load_n(&relay->n_loaded, __ATOMIC_RELAXED),
           __atomic_load_n(&relay->n_departed, __ATOMIC_RELAXED),
           __atomic_load_n(&relay->n_arrived, __ATOMIC_RELAXED), words);
    return *number < n_issued;
}

/* Where this does not follow in the log, the device's calls do not return. */
void mz_relay_report(mz_relay *relay)
{
    const mz_device_ops *ops = relay->options.device->ops;
    char slots[MZ_VOYAGE_WINDOW * 64] = "";
    uint64_t number;
    size_t used = 0;
    bool under_way = report_host(relay, &number);
    for (int i = 0; i < MZ_VOYAGE_WINDOW && used < sizeof slots; i++) {
        const mz_relay_slot *s = &relay->slots[i];
        used += (size_t)snprintf(slots + used, sizeof slots - used,
                                 "; place %d: reduced %d loaded %d stored %d finished %d", i,
                                 ops->event_done(s->reduced), ops->event_done(s->loaded),
                                 ops->event_done(s->stored), ops->event_done(s->finished));
    }
    const char *begun = !under_way                                                         ? "-"
                        : ops->event_done(relay->records[number % MZ_WATCH_FLIGHTS].begin) ? "1"
                                                                                           : "0";
    mz_log(MZ_LOG_WARN, "stands still: begun %s%s", begun, slots);
}

/* ---- the courier ---- */

/* Looking is cheap, but takes a lock of CUDA's that launches need as well. */
mz_status mz_relay_await(mz_relay *relay, mz_event *event)
{
    const struct timespec nap = {0, NAP_NS};
    mz_status status = failure_of(relay);
    while (!status && !relay->options.device->ops->event_done(event)) {
        nanosleep(&nap, NULL);
        status = failure_of(relay);
    }
    return status;
}

static mz_status run_record(mz_relay *relay, uint64_t number)
{
    const mz_device_ops *ops = relay->options.device->ops;
    mz_relay_record *record = &relay->records[number % MZ_WATCH_FLIGHTS];
    mz_relay_note(relay, "waits for its stream to reach it");
    mz_status status = mz_relay_await(relay, record->begin);
    record->op.seconds = relay->options.timeout_seconds;
    record->op.deadline = mz_clock_seconds() + relay->options.timeout_seconds;
    if (!status)
        status = ops->wait(relay->inner, record->begin);
    if (!status)
        status = mz_relay_carry(relay, record);
    mz_relay_note(relay, "has launched all of it");
    if (!status)
        status = ops->post(relay->inner, &relay->words[number % MZ_WATCH_FLIGHTS], (uint32_t)(number + 1));
    return status;
}

/* All is launched then for which a stream waits; what is launched ends by itself. */
void mz_relay_settle(void *context, uint64_t ticket)
{
    mz_relay *relay = context;
    pthread_mutex_lock(&relay->lock);
    while (relay->n_done < relay->n_issued && relay->records[relay->n_done % MZ_WATCH_FLIGHTS].ticket <= ticket)
        pthread_cond_wait(&relay->changed, &relay->lock);
    pthread_mutex_unlock(&relay->lock);
}

void *mz_relay_run(void *arg)
{
    mz_relay *relay = arg;
    prctl(PR_SET_TIMERSLACK, NAP_NS / 10, 0, 0, 0);
    /* which also makes the GPU this thread's */
    mz_status status = relay->options.device->ops->stream_sync(relay->inner);
    pthread_mutex_lock(&relay->lock);
    for (;;) {
        while (relay->n_done == relay->n_issued && !relay->stop)
            pthread_cond_wait(&relay->changed, &relay->lock);
        if (relay->n_done == relay->n_issued)
            break;
        uint64_t number = relay->n_done;
        bool skip = relay->failed;
        pthread_mutex_unlock(&relay->lock);
        if (!skip && !status)
            status = run_record(relay, number);
        if (!skip && status)
            fail(relay, status);
        pthread_mutex_lock(&relay->lock);
        relay->n_done++;
        pthread_cond_broadcast(&relay->changed);
    }
    pthread_mutex_unlock(&relay->lock);
    return NULL;
}

/* ---- issue ---- */

static mz_status fill_record(mz_relay_record *record, const mz_collective *what, const mz_op_info *op)
{
    if (record->capacity < what->n_segments || !record->segments) {
        int capacity = what->n_segments > 16 ? what->n_segments : 16;
        mz_segment *segments = mz_realloc(record->segments, 3 * (size_t)capacity * sizeof *segments);
        if (!segments)
            return MZ_ERR_MEMORY;
        record->segments = segments;
        record->capacity = capacity;
    }
    record->what = *what;
    record->what.segments = record->segments;
    record->op = *op;
    if (what->n_segments)
        memcpy(record->segments, what->segments, (size_t)what->n_segments * sizeof *what->segments);
    return MZ_OK;
}

mz_status mz_relay_issue(mz_relay *relay, const mz_collective *what, const mz_op_info *op, mz_stream *stream)
{
    const mz_device_ops *ops = relay->options.device->ops;
    uint64_t number = relay->n_issued; /* nobody else changes it */
    mz_relay_record *record = &relay->records[number % MZ_WATCH_FLIGHTS];
    pthread_mutex_lock(&relay->lock);
    while (number - relay->n_done >= AHEAD)
        pthread_cond_wait(&relay->changed, &relay->lock);
    pthread_mutex_unlock(&relay->lock);
    mz_status status = fill_record(record, what, op);
    if (!status)
        status = ops->event_record(record->begin, stream);
    if (status)
        return status;
    record->ticket = mz_device_take_ticket(relay->options.device);
    pthread_mutex_lock(&relay->lock);
    status = failure_of(relay);
    relay->n_issued += !status;
    pthread_cond_broadcast(&relay->changed);
    pthread_mutex_unlock(&relay->lock);
    return status ? status : ops->await(stream, &relay->words[number % MZ_WATCH_FLIGHTS], (uint32_t)(number + 1));
}

double mz_relay_bytes_sent(const mz_relay *relay)
{
    return relay->hier.wire->bytes_sent;
}
