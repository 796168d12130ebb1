/* Agreement between ranks: every rank tells rank 0 how it fared, rank 0 tells everybody the verdict. Point to point
 * rather than MPI's collectives, so that a rank which does not come can be named. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "comm/issue.h"
#include "comm/mpi_check.h"
#include "core/clock.h"
#include "core/error.h"

enum { TAG_REPORT = 1, TAG_VERDICT = 2 };

/* A rank that does not come may be in a collective that is overdue, too, and tells of another rank soon. */
static const double hearsay_seconds = 3;
/* The others wait this much longer than rank 0, whose verdict names who is missing. */
static const double verdict_grace_seconds = 5;

typedef struct report {
    uint64_t number;
    int32_t status;
    uint32_t has_data; /* mz_agree_same */
    uint64_t bytes, hash;
    char where[96];
    char message[1024];
} report;

typedef struct verdict {
    uint64_t number;
    int32_t status;
    int32_t rank; /* whom the message is about; -1: nobody in particular */
    char message[1536];
} verdict;

static void set_verdict(verdict *v, mz_status status, int rank)
{
    v->status = status;
    v->rank = rank;
    snprintf(v->message, sizeof v->message, "%s", mz_last_error());
}

/* Compares one rank's report with rank 0's. */
static void judge(const report *mine, const report *theirs, int rank, verdict *v)
{
    if (mine->number != theirs->number || mine->has_data != theirs->has_data ||
        strcmp(mine->where, theirs->where) != 0)
        set_verdict(v,
                    mz_fail(MZ_ERR_MISMATCH,
                            "ranks are at different places: rank 0 at \"%s\", rank %d at \"%s\" (agree #%" PRIu64
                            " and #%" PRIu64 ")",
                            mine->where, rank, theirs->where, mine->number, theirs->number),
                    rank);
    else if (mine->has_data && (mine->bytes != theirs->bytes || mine->hash != theirs->hash))
        set_verdict(v,
                    mz_fail(MZ_ERR_MISMATCH,
                            "%s must be the same on all ranks, but rank %d's (%" PRIu64 " bytes, hash %016" PRIx64
                            ") is not rank 0's (%" PRIu64 " bytes, hash %016" PRIx64 ")",
                            mine->where, rank, theirs->bytes, theirs->hash, mine->bytes, mine->hash),
                    rank);
    else if (theirs->status)
        set_verdict(v, mz_fail(MZ_ERR_PEER, "rank %d failed at %s: %s", rank, theirs->where, theirs->message),
                    rank);
}

/* Ranks that did not come, for the message. */
typedef struct absentees {
    char names[256];
    size_t used;
    int n;
} absentees;

static void add_absentee(absentees *missing, int rank)
{
    if (missing->n++ < 16)
        missing->used += (size_t)snprintf(missing->names + missing->used, sizeof missing->names - missing->used,
                                          "%s%d", missing->n > 1 ? ", " : "", rank);
}

static double hearsay_of(const mz_world *world)
{
    return world->comms ? hearsay_seconds : 0;
}

/* Until `until`, and no longer than until some comm's collective has failed, which tells more. */
static mz_status hear(mz_world *world, double until)
{
    const struct timespec pause = {0, 10000000};
    mz_status status = mz_comms_failure(world);
    while (!status && mz_clock_seconds() < until) {
        nanosleep(&pause, NULL);
        status = mz_comms_failure(world);
    }
    return status;
}

static void give_up(MPI_Request *request)
{
    if (*request != MPI_REQUEST_NULL) {
        MPI_Cancel(request);
        MPI_Request_free(request);
    }
}

static mz_status take_report(mz_world *world, int rank, uint64_t number, double deadline, report *theirs)
{
    MPI_Request request = MPI_REQUEST_NULL;
    mz_status status;
    do {
        status = mz_mpi_check(MPI_Irecv(theirs, sizeof *theirs, MPI_BYTE, rank, TAG_REPORT, world->comm, &request),
                              "MPI_Irecv");
        if (!status)
            status = mz_mpi_wait(&request, deadline, "MPI_Irecv");
    } while (!status && theirs->number < number); /* one that came too late */
    give_up(&request);
    return status;
}

static void send_verdict(mz_world *world, int rank, double deadline, const verdict *v)
{
    /* Small enough to go out eagerly, so that this does not wait for a rank that is gone. */
    MPI_Request request = MPI_REQUEST_NULL;
    MPI_Isend(v, sizeof *v, MPI_BYTE, rank, TAG_VERDICT, world->comm, &request);
    if (request != MPI_REQUEST_NULL && mz_mpi_wait(&request, deadline, "MPI_Isend"))
        MPI_Request_free(&request);
}

/* Rank 0: takes all reports, forms the verdict and sends it. */
static mz_status preside(mz_world *world, const report *mine, verdict *v)
{
    double deadline = mz_clock_seconds() + world->timeout_seconds;
    absentees missing = {.n = 0};
    mz_status status = MZ_OK;
    report theirs;
    v->number = mine->number;
    if (mine->status)
        set_verdict(v, mz_fail(MZ_ERR_PEER, "rank 0 failed at %s: %s", mine->where, mine->message), 0);
    for (int r = 1; r < world->size; r++) {
        mz_status taken = take_report(world, r, mine->number, deadline, &theirs);
        if (taken == MZ_ERR_TIMEOUT)
            add_absentee(&missing, r);
        else if (taken)
            status = status ? status : taken;
        else if (!v->status)
            judge(mine, &theirs, r, v);
    }
    if (missing.n)
        status = hear(world, deadline + hearsay_of(world));
    if (missing.n && !status)
        status = mz_fail(MZ_ERR_TIMEOUT, "agree #%" PRIu64 " (%s): rank%s %s%s did not arrive within %g s",
                         mine->number, mine->where, missing.n > 1 ? "s" : "", missing.names,
                         missing.n > 16 ? ", ..." : "", world->timeout_seconds);
    if (status)
        set_verdict(v, status, -1);
    for (int r = 1; r < world->size; r++)
        send_verdict(world, r, deadline + hearsay_of(world) + verdict_grace_seconds, v);
    return status;
}

static mz_status take_verdict(mz_world *world, const report *mine, double deadline, verdict *v)
{
    MPI_Request request = MPI_REQUEST_NULL;
    double last = deadline + hearsay_of(world) + verdict_grace_seconds;
    mz_status status;
    do {
        status =
            mz_mpi_check(MPI_Irecv(v, sizeof *v, MPI_BYTE, 0, TAG_VERDICT, world->comm, &request), "MPI_Irecv");
        if (!status)
            status = mz_mpi_wait(&request, deadline, "MPI_Irecv");
        while (status == MZ_ERR_TIMEOUT && mz_clock_seconds() < last) {
            mz_status heard = mz_comms_failure(world);
            if (heard) {
                give_up(&request);
                return heard;
            }
            status = mz_mpi_wait(&request, mz_clock_seconds() + 0.02, "MPI_Irecv");
        }
    } while (!status && v->number < mine->number); /* one that came too late */
    give_up(&request);
    return status == MZ_ERR_TIMEOUT
               ? mz_fail(status,
                         "agree #%" PRIu64 " (%s): no verdict from rank 0 within %g s: it is late itself, or gone",
                         mine->number, mine->where, last - deadline + world->timeout_seconds)
               : status;
}

static mz_status attend(mz_world *world, const report *mine, verdict *v)
{
    double deadline = mz_clock_seconds() + world->timeout_seconds;
    mz_status status = mz_mpi_check(MPI_Send(mine, sizeof *mine, MPI_BYTE, 0, TAG_REPORT, world->comm), "MPI_Send");
    return status ? status : take_verdict(world, mine, deadline, v);
}

static mz_status exchange(mz_world *world, report *mine)
{
    verdict v = {.status = MZ_OK, .rank = -1};
    mine->number = world->n_agreements++;
    snprintf(mine->message, sizeof mine->message, "%s", mine->status ? mz_last_error() : "");
    mz_status status = world->rank == 0 ? preside(world, mine, &v) : attend(world, mine, &v);
    if (mine->status)
        return mz_fail_adopt((mz_status)mine->status, mine->message);
    if (status)
        return status;
    return v.status ? mz_fail_adopt((mz_status)v.status, v.message) : MZ_OK;
}

mz_status mz_agree(mz_world *world, mz_status mine, const char *where)
{
    report r = {.status = (int32_t)mine};
    snprintf(r.where, sizeof r.where, "%s", where);
    return exchange(world, &r);
}

/* FNV-1a over 64 bits. */
static uint64_t hash_bytes(const unsigned char *data, size_t bytes)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < bytes; i++)
        hash = (hash ^ data[i]) * 0x100000001b3u;
    return hash;
}

mz_status mz_agree_same(mz_world *world, const void *data, size_t bytes, const char *what)
{
    report r = {.status = MZ_OK, .has_data = 1, .bytes = bytes, .hash = hash_bytes(data, bytes)};
    snprintf(r.where, sizeof r.where, "%s", what);
    return exchange(world, &r);
}
