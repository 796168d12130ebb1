#include "comm/issue.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "comm/cursor.h"
#include "comm/gpu.h"
#include "comm/sum.h"
#include "comm/wire_card.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/memory.h"

struct mz_issued {
    mz_issued *next_spare, *next_record;
    mz_comm *comm;
    mz_collective what;
    mz_op_info op;
    mz_segment *segments; /* [3 * capacity]: the collective's own, then work space of the all-reduce */
    int capacity;
};

static const char *const kind_names[MZ_N_COLLECTIVES] = {
    [MZ_ALL_GATHER] = "all_gather",      [MZ_REDUCE_SCATTER] = "reduce_scatter", [MZ_ALL_REDUCE] = "all_reduce",
    [MZ_BROADCAST] = "broadcast",        [MZ_ALL_TO_ALL] = "all_to_all",         [MZ_BARRIER] = "barrier",
    [MZ_HOST_REDUCE] = "all_reduce_host"};

static uint64_t hash_in(uint64_t hash, uint64_t value)
{
    for (int i = 0; i < 8; i++, value >>= 8)
        hash = (hash ^ (value & 0xff)) * 0x100000001b3u; /* FNV-1a */
    return hash;
}

static uint64_t signature_of(const mz_collective *what)
{
    uint64_t hash = hash_in(0xcbf29ce484222325u, (uint64_t)what->kind);
    hash = hash_in(hash, (uint64_t)what->dtype);
    hash = hash_in(hash, (uint64_t)what->root);
    hash = hash_in(hash, (uint64_t)what->bits);
    for (int i = 0; i < what->n_segments; i++)
        hash = hash_in(hash, (uint64_t)what->segments[i].count);
    return hash;
}

void mz_collective_describe(const mz_collective *what, mz_op_info *op)
{
    *op = (mz_op_info){.kind = kind_names[what->kind],
                       .label = what->label ? what->label : "no label",
                       .count = mz_segments_count(what->segments, what->n_segments),
                       .signature = signature_of(what)};
}

static mz_issued *take_record(mz_comm *comm)
{
    pthread_mutex_lock(&comm->lock);
    mz_issued *record = comm->spares;
    if (record) {
        comm->spares = record->next_spare;
    } else if ((record = mz_calloc(1, sizeof *record))) {
        record->comm = comm;
        record->next_record = comm->records;
        comm->records = record;
    }
    pthread_mutex_unlock(&comm->lock);
    return record;
}

static void give_record_back(mz_issued *record)
{
    mz_comm *comm = record->comm;
    pthread_mutex_lock(&comm->lock);
    record->next_spare = comm->spares;
    comm->spares = record;
    pthread_mutex_unlock(&comm->lock);
}

void mz_comm_free_records(mz_comm *comm)
{
    while (comm->records) {
        mz_issued *record = comm->records;
        comm->records = record->next_record;
        mz_free(record->segments);
        mz_free(record);
    }
}

static mz_status fill_record(mz_issued *record, const mz_collective *what)
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
    if (what->n_segments)
        memcpy(record->segments, what->segments, (size_t)what->n_segments * sizeof *what->segments);
    mz_collective_describe(what, &record->op);
    return MZ_OK;
}

void mz_comm_run_alone(const mz_collective *what)
{
    for (int i = 0; i < what->n_segments; i++) {
        const mz_segment *s = &what->segments[i];
        bool is_sum = what->kind == MZ_REDUCE_SCATTER || what->kind == MZ_ALL_REDUCE;
        if (is_sum)
            mz_comm_sum(s->recv, what->recv_dtype, &s->send, 1, what->dtype, s->count, what->scale,
                        what->accumulate);
        else if (s->recv != s->send && s->count)
            memcpy(s->recv, s->send, (size_t)s->count * mz_dtype_size(what->dtype));
    }
}

static mz_status execute(mz_issued *record)
{
    mz_comm *comm = record->comm;
    const mz_collective *what = &record->what;
    const mz_op_info *op = &record->op;
    if (!comm->hier) {
        mz_comm_run_alone(what);
        return MZ_OK;
    }
    mz_hier_begin(comm->hier, op);
    switch (what->kind) {
    case MZ_ALL_GATHER:
        if (what->bits)
            return mz_hier_all_gather_quantized(comm->hier, op, what->segments, what->n_segments, what->dtype,
                                                what->bits);
        return mz_hier_all_gather(comm->hier, op, what->segments, what->n_segments, what->dtype);
    case MZ_HOST_REDUCE:
        return mz_hier_all_gather(comm->hier, op, what->segments, what->n_segments, what->dtype);
    case MZ_REDUCE_SCATTER:
        if (what->bits)
            return mz_hier_reduce_scatter_quantized(comm->hier, op, what->segments, what->n_segments, what->dtype,
                                                    what->recv_dtype, what->scale, what->accumulate, what->bits);
        return mz_hier_reduce_scatter(comm->hier, op, what->segments, what->n_segments, what->dtype,
                                      what->recv_dtype, what->scale, what->accumulate);
    case MZ_ALL_REDUCE:
        return mz_hier_all_reduce(comm->hier, &comm->plan, op, what->segments, what->n_segments, what->dtype,
                                  what->scale, record->segments + record->capacity);
    case MZ_BROADCAST:
        return mz_hier_broadcast(comm->hier, op, what->segments, what->n_segments, what->dtype, what->root);
    case MZ_ALL_TO_ALL:
        return mz_hier_all_to_all(comm->hier, op, what->segments, what->n_segments, what->dtype);
    case MZ_BARRIER:
        return mz_hier_barrier(comm->hier, op);
    case MZ_N_COLLECTIVES:
        break;
    }
    return mz_fail(MZ_ERR_INTERNAL, "collective of unknown kind %d", (int)what->kind);
}

/* Waits for the collectives issued before this one, which may be on other streams. */
static mz_status await_turn(mz_issued *record)
{
    mz_comm *comm = record->comm;
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    /* the one that this waits for may be excused for a while, and names who is to blame */
    until.tv_sec += (time_t)(comm->world->timeout_seconds + MZ_BOARD_EXCUSE_SECONDS + MZ_BOARD_FRESH_SECONDS) + 1;
    mz_status status = MZ_OK;
    int waited = 0;
    pthread_mutex_lock(&comm->lock);
    while (comm->turn < record->op.sequence && !comm->failed && !waited)
        waited = pthread_cond_timedwait(&comm->turn_changed, &comm->lock, &until);
    if (comm->failed)
        status = mz_fail_adopt(comm->failed, comm->failed_message);
    else if (comm->turn < record->op.sequence)
        status = mz_fail(MZ_ERR_TIMEOUT,
                         "%s #%" PRIu64 " (%s): this rank's own collective #%" PRIu64
                         " did not run within %g s; its stream has failed or waits for something else",
                         record->op.kind, record->op.sequence, record->op.label, comm->turn,
                         comm->world->timeout_seconds);
    pthread_mutex_unlock(&comm->lock);
    return status;
}

/* Keeps the first failure. The lock is held. */
static void keep_failure(mz_comm *comm, mz_status status, const char *message)
{
    if (!status || comm->failed)
        return;
    comm->failed = status;
    snprintf(comm->failed_message, sizeof comm->failed_message, "%s", message);
}

/* The next may run, or nothing any more. */
static void pass_turn(mz_issued *record, mz_status status, double seconds)
{
    mz_comm *comm = record->comm;
    pthread_mutex_lock(&comm->lock);
    keep_failure(comm, status, mz_last_error());
    if (comm->turn <= record->op.sequence)
        comm->turn = record->op.sequence + 1;
    comm->stats.n_calls++;
    comm->stats.seconds += seconds;
    if (comm->hier)
        mz_hier_bytes(comm->hier, &comm->stats.bytes_in_node, &comm->stats.bytes_between_nodes);
    pthread_cond_broadcast(&comm->turn_changed);
    pthread_mutex_unlock(&comm->lock);
}

/* Tells the other ranks of a comm what to fail with when this one did. A comm that is still being set up, or has
 * this rank alone, has nobody to tell. */
static void tell_members(const mz_comm *comm, mz_status status, const char *reason)
{
    mz_wire_note note;
    mz_status theirs = mz_wire_note_words(comm->world->rank, status, reason, note.message);
    if (comm->hier)
        mz_hier_abort(comm->hier, theirs, note.message);
    if (comm->gpu)
        mz_gpu_comm_tell(comm->gpu, theirs, note.message);
}

static void fail_comm(mz_comm *comm, mz_status status, const char *message)
{
    pthread_mutex_lock(&comm->lock);
    keep_failure(comm, status, message);
    pthread_cond_broadcast(&comm->turn_changed);
    pthread_mutex_unlock(&comm->lock);
    tell_members(comm, status, message);
}

void mz_comm_fail(mz_comm *comm, mz_status status, const char *message)
{
    mz_world *world = comm->world;
    char text[1024]; /* message may be what telling overwrites */
    snprintf(text, sizeof text, "%s", message);
    fail_comm(comm, status, text);
    pthread_mutex_lock(&world->comms_lock);
    for (mz_comm *other = world->comms; other; other = other->next_in_world)
        if (other != comm)
            fail_comm(other, status, text);
    pthread_mutex_unlock(&world->comms_lock);
    mz_fail_adopt(status, text);
}

static mz_status failure_of(mz_comm *comm)
{
    pthread_mutex_lock(&comm->lock);
    mz_status status = comm->failed ? mz_fail_adopt(comm->failed, comm->failed_message) : MZ_OK;
    pthread_mutex_unlock(&comm->lock);
    if (!status && comm->gpu)
        status = mz_gpu_comm_status(comm->gpu);
    if (status || !comm->hier)
        return status;
    status = mz_hier_failure(comm->hier);
    if (status) { /* others of this node may not have heard of it */
        mz_comm_fail(comm, status, mz_last_error());
    }
    return status;
}

mz_status mz_comms_failure(mz_world *world)
{
    mz_status status = MZ_OK;
    for (mz_comm *comm = world->comms; comm && !status; comm = comm->next_in_world)
        status = failure_of(comm);
    return status;
}

void mz_comm_delay(const mz_comm *comm)
{
    const struct timespec pause = {(time_t)comm->delay, (long)((comm->delay - (double)(time_t)comm->delay) * 1e9)};
    if (comm->delay > 0)
        nanosleep(&pause, NULL);
}

static mz_status run_record(void *arg)
{
    mz_issued *record = arg;
    mz_comm *comm = record->comm;
    double seconds = 0;
    mz_status status = await_turn(record);
    if (!status) {
        mz_comm_delay(comm);
        double begin = mz_clock_seconds();
        record->op.seconds = comm->world->timeout_seconds;
        record->op.deadline = begin + comm->world->timeout_seconds;
        status = execute(record);
        seconds = mz_clock_seconds() - begin;
        if (status && comm->hier)
            mz_comm_fail(comm, status, mz_last_error());
    }
    pass_turn(record, status, seconds);
    give_record_back(record);
    return status;
}

mz_status mz_comm_issue(mz_comm *comm, const mz_collective *what, mz_stream *stream)
{
    mz_issued *record = take_record(comm);
    if (!record)
        return MZ_ERR_MEMORY;
    mz_status status = fill_record(record, what);
    if (status) {
        give_record_back(record);
        return status;
    }
    record->op.sequence = comm->n_issued++;
    return stream ? comm->device->ops->host_call(stream, run_record, record) : run_record(record);
}
