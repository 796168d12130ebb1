#include "comm/relay.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#include "comm/mpi_check.h"
#include "comm/relay_impl.h"
#include "comm/wire_card.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/log.h"
#include "core/memory.h"
#include "kernels/kernels.h"

enum {
    MOST_PIECE_BYTES = 4 << 20,   /* copied over PCIe in 80 us, which is much more than a launch takes */
    LEAST_PIECE_BYTES = 64 << 10, /* a shorter message would pay more for its latency than for its bytes */
    FLIGHT_BYTES = 32 << 20,      /* of a flight's pinned memory, at most, in each direction */
    ALIGNMENT = 512,
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
static void settle(void *context, uint64_t ticket)
{
    mz_relay *relay = context;
    pthread_mutex_lock(&relay->lock);
    while (relay->n_done < relay->n_issued && relay->records[relay->n_done % MZ_WATCH_FLIGHTS].ticket <= ticket)
        pthread_cond_wait(&relay->changed, &relay->lock);
    pthread_mutex_unlock(&relay->lock);
}

static void *run_courier(void *arg)
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

/* ---- life ---- */

static mz_status open_streams(mz_relay *relay)
{
    mz_device *device = relay->options.device;
    const mz_device_ops *ops = device->ops;
    mz_status status = ops->stream_create(device, MZ_STREAM_COPY, &relay->out);
    if (!status)
        status = ops->stream_create(device, MZ_STREAM_COPY, &relay->in);
    if (!status)
        status = ops->stream_create(device, MZ_STREAM_COMM, &relay->inner);
    if (!status)
        status = ops->event_create(device, &relay->start);
    for (int i = 0; i < MZ_WATCH_FLIGHTS && !status; i++)
        status = ops->event_create(device, &relay->records[i].begin);
    for (int i = 0; i < MZ_VOYAGE_WINDOW && !status; i++) {
        mz_relay_slot *slot = &relay->slots[i];
        mz_event **events[] = {&slot->reduced, &slot->loaded, &slot->stored, &slot->finished};
        for (int k = 0; k < 4 && !status; k++)
            status = ops->event_create(device, events[k]);
    }
    return status;
}

/* A flight has a block in and one out for each node; on the GPU the sum, in fp32, of a piece of 16-bit values too.
 */
static mz_status take_memory(mz_relay *relay)
{
    mz_device *device = relay->options.device;
    mz_hier *hier = &relay->hier;
    size_t n_nodes = (size_t)hier->layout->n_nodes, piece = relay->options.piece_bytes;
    if (!piece)
        piece = FLIGHT_BYTES / n_nodes;
    piece = piece < MOST_PIECE_BYTES ? piece : MOST_PIECE_BYTES;
    if (!relay->options.piece_bytes && piece < LEAST_PIECE_BYTES)
        piece = LEAST_PIECE_BYTES;
    piece = (piece + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    hier->piece_bytes = piece;
    size_t side = n_nodes * piece, flight = 2 * side, slot = 2 * side + 2 * piece;
    hier->node_segments = mz_calloc(n_nodes, sizeof *hier->node_segments);
    if (!hier->node_segments)
        return MZ_ERR_MEMORY;
    size_t words_bytes = MZ_WATCH_FLIGHTS * sizeof *relay->words;
    void *words = NULL;
    mz_status status = device->ops->alloc_pinned(device, words_bytes, &words);
    if (status)
        return status;
    relay->words = memset(words, 0, words_bytes);
    status = device->ops->alloc_pinned(device, MZ_VOYAGE_WINDOW * flight, &relay->pinned);
    if (!status)
        status = device->ops->alloc(device, MZ_VOYAGE_WINDOW * slot, &relay->memory);
    for (size_t i = 0; i < MZ_VOYAGE_WINDOW && !status; i++) {
        hier->flights[i].partial = (char *)relay->pinned + i * flight;
        hier->flights[i].inbox = hier->flights[i].partial + side;
        relay->slots[i].partial = (char *)relay->memory + i * slot;
        relay->slots[i].inbox = relay->slots[i].partial + side;
        relay->slots[i].sum = (float *)(void *)(relay->slots[i].inbox + side);
    }
    return status;
}

/* Everything that a collective launches is launched once while no stream waits for it: what a device puts off until
 * the first launch of a kernel or copy of a kind is done then. */
static mz_status warm_up(mz_relay *relay)
{
    static const mz_dtype dtypes[] = {MZ_F32, MZ_F16, MZ_BF16};
    const mz_device_ops *ops = relay->options.device->ops;
    mz_relay_slot *slot = &relay->slots[0];
    const size_t n_blocks = 2 * (size_t)relay->hier.layout->n_nodes + 2;
    mz_status status = ops->fill(relay->inner, slot->partial, 0, n_blocks * relay->hier.piece_bytes);
    for (int i = 0; i < 2 * 2 * 3 && !status; i++) {
        const mz_dtype other = dtypes[i / 4];
        const mz_cast_args args = {.n = ALIGNMENT / 8,
                                   .src = slot->partial,
                                   .src_dtype = i & 1 ? other : MZ_F32,
                                   .dst = slot->sum,
                                   .dst_dtype = i & 1 ? MZ_F32 : other,
                                   .scale = 1,
                                   .accumulate = i & 2};
        status = ops->kernels->cast(&args, relay->inner);
    }
    for (int i = 0; i < 2 * 3 && !status; i++) {
        const int n = ALIGNMENT / 8, bits = i & 1 ? 8 : 4;
        const mz_quantize_args args = {n, bits, slot->partial, dtypes[i / 2], slot->sum};
        const mz_dequantize_args back = {n, bits, slot->sum, slot->partial, dtypes[i / 2]};
        status = ops->kernels->quantize(&args, relay->inner);
        if (!status)
            status = ops->kernels->dequantize(&back, relay->inner);
    }
    if (!status)
        status = ops->copy(relay->inner, slot->inbox, slot->partial, ALIGNMENT);
    if (!status)
        status = ops->copy(relay->out, relay->hier.flights[0].partial, slot->partial, ALIGNMENT);
    if (!status)
        status = ops->copy(relay->in, slot->inbox, relay->hier.flights[0].inbox, ALIGNMENT);
    if (!status)
        status = ops->stream_sync(relay->out);
    if (!status)
        status = ops->stream_sync(relay->in);
    return status ? status : ops->stream_sync(relay->inner);
}

static mz_status open_wire(mz_relay *relay)
{
    mz_hier *hier = &relay->hier;
    mz_status status = mz_mpi_check(MPI_Comm_dup(relay->options.group, &relay->group), "MPI_Comm_dup");
    if (status)
        return status;
    MPI_Comm_set_errhandler(relay->group, MPI_ERRORS_RETURN);
    status = mz_hier_open_wire(hier, relay->group, relay->options.wire, relay->options.spin);
    if (!status && hier->wire->ops->pin)
        status = hier->wire->ops->pin(hier->wire, relay->pinned,
                                      MZ_VOYAGE_WINDOW * 2 * (size_t)hier->layout->n_nodes * hier->piece_bytes);
    return status;
}

mz_status mz_relay_create(const mz_relay_options *options, mz_relay **out)
{
    mz_relay *relay = mz_calloc(1, sizeof *relay);
    mz_status status = relay ? MZ_OK : MZ_ERR_MEMORY;
    if (relay) {
        relay->options = *options;
        relay->group = MPI_COMM_NULL;
        relay->hier.layout = options->layout;
        relay->hier.node = options->node;
        pthread_mutex_init(&relay->lock, NULL);
        pthread_cond_init(&relay->changed, NULL);
        if (options->device->loads_late)
            status =
                mz_fail(MZ_ERR_UNSUPPORTED,
                        "%s: CUDA loads kernels at their first launch, which may wait for streams that wait for "
                        "that launch; set CUDA_MODULE_LOADING=EAGER in the environment",
                        options->device->label);
        if (!status)
            status = open_streams(relay);
        if (!status)
            status = take_memory(relay);
        if (!status)
            status = warm_up(relay);
        if (!status) /* can it be done at all? */
            status = options->device->ops->await(relay->inner, relay->words, 0);
    }
    status = mz_mpi_agree(options->group, status, "setting up collectives between nodes");
    if (!status)
        status = open_wire(relay);
    if (!status) {
        int error = pthread_create(&relay->courier, NULL, run_courier, relay);
        relay->has_courier = !error;
        if (error)
            status = mz_fail(MZ_ERR_MEMORY, "cannot start a thread: %s", strerror(error));
    }
    status = mz_mpi_agree(options->group, status, "setting up collectives between nodes");
    if (status) {
        mz_relay_destroy(relay);
        return status;
    }
    relay->settler = (mz_settler){.settle = settle, .context = relay};
    mz_device_add_settler(options->device, &relay->settler);
    *out = relay;
    return MZ_OK;
}

void mz_relay_stop(mz_relay *relay)
{
    if (!relay || !relay->has_courier)
        return;
    pthread_mutex_lock(&relay->lock);
    relay->stop = true;
    pthread_cond_broadcast(&relay->changed);
    pthread_mutex_unlock(&relay->lock);
    pthread_join(relay->courier, NULL);
    relay->has_courier = false;
}

static void free_events(mz_relay *relay)
{
    const mz_device_ops *ops = relay->options.device->ops;
    for (int i = 0; i < MZ_VOYAGE_WINDOW; i++) {
        mz_relay_slot *slot = &relay->slots[i];
        mz_event *events[] = {slot->reduced, slot->loaded, slot->stored, slot->finished};
        for (int k = 0; k < 4; k++)
            if (events[k])
                ops->event_destroy(events[k]);
    }
    for (int i = 0; i < MZ_WATCH_FLIGHTS; i++) {
        if (relay->records[i].begin)
            ops->event_destroy(relay->records[i].begin);
        mz_free(relay->records[i].segments);
    }
    if (relay->start)
        ops->event_destroy(relay->start);
}

void mz_relay_destroy(mz_relay *relay)
{
    if (!relay)
        return;
    mz_device *device = relay->options.device;
    mz_stream *streams[] = {relay->out, relay->in, relay->inner};
    mz_device_remove_settler(device, &relay->settler);
    mz_relay_stop(relay);
    for (int i = 0; i < 3; i++)
        if (streams[i])
            device->ops->stream_destroy(streams[i]);
    free_events(relay);
    if (relay->hier.wire)
        relay->hier.wire->ops->destroy(relay->hier.wire);
    if (relay->group != MPI_COMM_NULL && !relay->failed) /* else others may be gone */
        MPI_Comm_free(&relay->group);
    if (relay->words)
        device->ops->free_pinned(device, relay->words);
    if (relay->pinned)
        device->ops->free_pinned(device, relay->pinned);
    if (relay->memory)
        device->ops->free(device, relay->memory);
    mz_free(relay->hier.node_segments);
    pthread_cond_destroy(&relay->changed);
    pthread_mutex_destroy(&relay->lock);
    mz_free(relay);
}
