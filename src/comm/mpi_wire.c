/* The wire transport over MPI point-to-point messages.
 *
 * The first message of a collective to a peer is its card (sequence number, signature, what it is), so that a peer
 * which is in another collective is found. MPI keeps the order of messages between two ranks, so that tags need not
 * number them. A rank that fails tells all others with a message that every waiting rank looks for; and every
 * waiting rank, wherever it waits, answers what it waits for. */
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "comm/mpi_check.h"
#include "comm/wire_card.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/memory.h"

enum { TAG_CARD = 1, TAG_DATA = 2, TAG_ABORT = 3, TAG_QUESTION = 4, TAG_ANSWER = 5 };

/* A message goes in parts of at most this, since MPI counts in int. */
static const size_t part_bytes_max = (size_t)1 << 30;
/* What passed between this rank and one peer. */
typedef struct peer {
    mz_wire_card out, in;
    MPI_Request out_request, in_request;
    uint64_t sent, asked, arrived; /* sequence number, plus one, of the newest card of each kind */
    mz_inquiry inquiry;
    mz_question question;
    mz_answer answer, reply; /* the peer's, this rank's */
    MPI_Request question_request, answer_request, reply_request;
} peer;

struct mz_wire_request {
    mz_wire_request *next_free;
    MPI_Request mpi;
    int peer;
    bool is_recv;
};

typedef struct mpi_wire {
    mz_wire_transport base;
    MPI_Comm comm;
    mz_members members;
    peer *peers;               /* [size] */
    mz_wire_request *requests; /* [n_requests] */
    int n_requests;
    mz_wire_request *free_requests;
    int *late; /* [n_requests] peers, for a message */
    mz_wire_note note;
    MPI_Request *note_requests; /* [size] */
    bool aborted;
    mz_board_listener listener;
} mpi_wire;

/* Has another rank of the comm failed, or another thread of this one given up? Any thread's. */
static mz_status look_for_abort(mpi_wire *wire)
{
    MPI_Message message;
    int found = 0;
    if (__atomic_load_n(&wire->note.status, __ATOMIC_ACQUIRE))
        return mz_fail_adopt((mz_status)wire->note.status, wire->note.message);
    mz_status status = mz_mpi_check(
        MPI_Improbe(MPI_ANY_SOURCE, TAG_ABORT, wire->comm, &found, &message, MPI_STATUS_IGNORE), "MPI_Improbe");
    if (!status && !found && wire->base.node)
        status = wire->base.node->ops->failure(wire->base.node);
    if (status || !found)
        return status;
    mz_wire_note note = {0};
    status = mz_mpi_check(MPI_Mrecv(&note, sizeof note, MPI_BYTE, &message, MPI_STATUS_IGNORE), "MPI_Mrecv");
    if (status)
        return status;
    if (!__atomic_exchange_n(&wire->aborted, true, __ATOMIC_ACQ_REL)) { /* everybody has been told already */
        memcpy(wire->note.message, note.message, sizeof note.message);
        __atomic_store_n(&wire->note.status, note.status, __ATOMIC_RELEASE);
    }
    return mz_fail_adopt((mz_status)note.status, note.message);
}

static void pause_after(long tries)
{
    const struct timespec nap = {0, tries < 2000 ? 20000 : 200000};
    if (tries < 200)
        sched_yield();
    else
        nanosleep(&nap, NULL);
}

static bool is_done(MPI_Request *request)
{
    int done = 0;
    return MPI_Test(request, &done, MPI_STATUS_IGNORE) != MPI_SUCCESS || done;
}

/* What does the peer wait for, that keeps this rank waiting? */
static mz_opinion inquire(mpi_wire *wire, const mz_op_info *op, int of, double now)
{
    peer *p = &wire->peers[of];
    if (p->inquiry.asked > 0 && is_done(&p->answer_request))
        mz_inquiry_answer(&p->inquiry, &p->answer, now);
    if (p->inquiry.asked > 0 && p->answer_request == MPI_REQUEST_NULL) /* it was to an older question */
        MPI_Irecv(&p->answer, sizeof p->answer, MPI_BYTE, of, TAG_ANSWER, wire->comm, &p->answer_request);
    mz_opinion opinion = mz_inquiry_go_on(&p->inquiry, op->sequence, now);
    if (opinion != MZ_ASK)
        return opinion;
    if (is_done(&p->answer_request))
        MPI_Irecv(&p->answer, sizeof p->answer, MPI_BYTE, of, TAG_ANSWER, wire->comm, &p->answer_request);
    if (is_done(&p->question_request)) {
        p->question = (mz_question){.from = wire->members.rank, .number = p->inquiry.number};
        MPI_Isend(&p->question, sizeof p->question, MPI_BYTE, of, TAG_QUESTION, wire->comm, &p->question_request);
    }
    return MZ_PATIENCE;
}

/* Answers the questions that have come. Any thread's that waits, one at a time. */
static void answer_questions(void *context)
{
    mpi_wire *wire = context;
    MPI_Message message;
    MPI_Status from;
    int found = 0;
    while (MPI_Improbe(MPI_ANY_SOURCE, TAG_QUESTION, wire->comm, &found, &message, &from) == MPI_SUCCESS && found) {
        mz_question question;
        if (MPI_Mrecv(&question, sizeof question, MPI_BYTE, &message, MPI_STATUS_IGNORE) != MPI_SUCCESS)
            return;
        peer *p = &wire->peers[from.MPI_SOURCE];
        if (!is_done(&p->reply_request)) /* it will ask again */
            continue;
        p->reply.number = question.number;
        mz_board_read_own(wire->members.board, &p->reply.wait);
        MPI_Isend(&p->reply, sizeof p->reply, MPI_BYTE, from.MPI_SOURCE, TAG_ANSWER, wire->comm, &p->reply_request);
    }
}

/* The card of an earlier collective has not left yet, because the peer takes nothing. */
static mz_status await_card_out(mpi_wire *wire, const mz_op_info *op, int to)
{
    mz_waiter waiter = {0};
    mz_status status = MZ_OK;
    int done = 0;
    for (long tries = 0; !status; tries++) {
        status = mz_mpi_check(MPI_Test(&wire->peers[to].out_request, &done, MPI_STATUS_IGNORE), "MPI_Isend");
        if (status || done)
            break;
        double now = mz_clock_seconds();
        mz_board_wait(wire->members.board, &waiter, op, wire->members.ranks[to], now);
        status = look_for_abort(wire);
        if (!status && now > op->deadline &&
            (inquire(wire, op, to, now) == MZ_BLAME || now > op->deadline + MZ_BOARD_EXCUSE_SECONDS))
            status = mz_wire_deaf(op, &wire->members, to);
        pause_after(tries);
    }
    mz_board_go_on(wire->members.board, &waiter);
    return status;
}

static mz_status open_card_out(mpi_wire *wire, const mz_op_info *op, int to)
{
    peer *p = &wire->peers[to];
    if (p->sent == op->sequence + 1)
        return MZ_OK;
    mz_status status = await_card_out(wire, op, to);
    if (status)
        return status;
    p->sent = op->sequence + 1;
    mz_wire_card_fill(&p->out, op);
    return mz_mpi_check(MPI_Isend(&p->out, sizeof p->out, MPI_BYTE, to, TAG_CARD, wire->comm, &p->out_request),
                        "MPI_Isend");
}

static mz_status open_card_in(mpi_wire *wire, const mz_op_info *op, int from)
{
    peer *p = &wire->peers[from];
    if (p->asked == op->sequence + 1)
        return MZ_OK;
    p->asked = op->sequence + 1;
    return mz_mpi_check(MPI_Irecv(&p->in, sizeof p->in, MPI_BYTE, from, TAG_CARD, wire->comm, &p->in_request),
                        "MPI_Irecv");
}

static mz_status take_request(mpi_wire *wire, int peer_rank, bool is_recv, size_t bytes, mz_wire_request **request)
{
    mz_wire_request *r = wire->free_requests;
    if (!r || bytes > part_bytes_max)
        return mz_fail(MZ_ERR_INTERNAL, "wire: %s",
                       r ? "a message of more than 1 GiB" : "too many messages in flight");
    wire->free_requests = r->next_free;
    r->peer = peer_rank;
    r->is_recv = is_recv;
    r->mpi = MPI_REQUEST_NULL;
    *request = r;
    return MZ_OK;
}

static mz_status wire_send(mz_wire_transport *base, const mz_op_info *op, int to, const void *data, size_t bytes,
                           mz_wire_request **request)
{
    mpi_wire *wire = (mpi_wire *)base;
    mz_status status = open_card_out(wire, op, to);
    if (!status)
        status = take_request(wire, to, false, bytes, request);
    if (!status)
        status = mz_mpi_check(MPI_Isend(data, (int)bytes, MPI_BYTE, to, TAG_DATA, wire->comm, &(*request)->mpi),
                              "MPI_Isend");
    if (!status)
        base->bytes_sent += (double)bytes;
    return status;
}

static mz_status wire_recv(mz_wire_transport *base, const mz_op_info *op, int from, void *data, size_t bytes,
                           mz_wire_request **request)
{
    mpi_wire *wire = (mpi_wire *)base;
    mz_status status = open_card_in(wire, op, from);
    if (!status)
        status = take_request(wire, from, true, bytes, request);
    if (!status)
        status = mz_mpi_check(MPI_Irecv(data, (int)bytes, MPI_BYTE, from, TAG_DATA, wire->comm, &(*request)->mpi),
                              "MPI_Irecv");
    return status;
}

/* Looks for the cards still awaited from the requests' peers. */
static mz_status take_cards(mpi_wire *wire, const mz_op_info *op, mz_wire_request *const *requests, int n)
{
    for (int i = 0; i < n; i++) {
        peer *p = &wire->peers[requests[i]->peer];
        if (!requests[i]->is_recv || p->arrived == op->sequence + 1)
            continue;
        int done = 0;
        mz_status status = mz_mpi_check(MPI_Test(&p->in_request, &done, MPI_STATUS_IGNORE), "MPI_Irecv");
        if (!status && done) {
            p->arrived = op->sequence + 1;
            status = mz_wire_card_compare(&p->in, op, &wire->members, requests[i]->peer);
        }
        if (status)
            return status;
    }
    return MZ_OK;
}

/* Do all open requests wait for peers that are in the collective? */
static bool all_arrived(const mpi_wire *wire, const mz_op_info *op, mz_wire_request *const *requests, int n)
{
    for (int i = 0; i < n; i++)
        if (requests[i]->mpi != MPI_REQUEST_NULL && wire->peers[requests[i]->peer].arrived != op->sequence + 1)
            return false;
    return true;
}

/* Is one of the peers that are received from missing? */
static bool misses_sender(const mpi_wire *wire, const mz_op_info *op, mz_wire_request *const *requests, int n)
{
    for (int i = 0; i < n; i++)
        if (requests[i]->is_recv && wire->peers[requests[i]->peer].arrived != op->sequence + 1)
            return true;
    return false;
}

/* The collective is overdue. Once it is clear who is to blame, names those of the requests' peers that are missing,
 * or are there but slow. Peers that are only sent to may be here without having had to say so: one is named only
 * when nobody who is received from is missing. */
static mz_status judge(mpi_wire *wire, const mz_op_info *op, mz_wire_request *const *requests, int n, double now)
{
    bool too_long = now > op->deadline + MZ_BOARD_EXCUSE_SECONDS, all_there = all_arrived(wire, op, requests, n);
    bool only_senders = !all_there && misses_sender(wire, op, requests, n);
    const mz_wait *wait = NULL;
    int n_late = 0;
    for (int i = 0; i < n; i++) {
        peer *p = &wire->peers[requests[i]->peer];
        if (requests[i]->mpi == MPI_REQUEST_NULL || (p->arrived == op->sequence + 1) != all_there ||
            (only_senders && !requests[i]->is_recv))
            continue;
        if (inquire(wire, op, requests[i]->peer, now) != MZ_BLAME && !too_long)
            continue;
        if (n_late == 0 && p->inquiry.wait.rank >= 0 && p->inquiry.asked == 0)
            wait = &p->inquiry.wait;
        wire->late[n_late++] = requests[i]->peer;
    }
    return n_late ? mz_wire_late(op, &wire->members, wire->late, n_late, all_there, too_long ? wait : NULL) : MZ_OK;
}

/* The member that this rank waits for, one of them. */
static int awaited(mz_wire_request *const *requests, int n)
{
    int i = 0;
    while (i < n - 1 && requests[i]->mpi == MPI_REQUEST_NULL)
        i++;
    return requests[i]->peer;
}

static mz_status test_all(mz_wire_request *const *requests, int n, int *n_done)
{
    *n_done = 0;
    for (int i = 0; i < n; i++) {
        int done = requests[i]->mpi == MPI_REQUEST_NULL;
        if (!done) {
            mz_status status = mz_mpi_check(MPI_Test(&requests[i]->mpi, &done, MPI_STATUS_IGNORE),
                                            requests[i]->is_recv ? "MPI_Irecv" : "MPI_Isend");
            if (status)
                return status;
        }
        *n_done += done;
    }
    return MZ_OK;
}

static bool cards_complete(const mpi_wire *wire, const mz_op_info *op, mz_wire_request *const *requests, int n)
{
    for (int i = 0; i < n; i++)
        if (requests[i]->is_recv && wire->peers[requests[i]->peer].arrived != op->sequence + 1)
            return false;
    return true;
}

/* Cards before data: data of an unlike collective may not even fit. */
static mz_status wait_for_all(mpi_wire *wire, const mz_op_info *op, mz_wire_request *const *requests, int n,
                              mz_waiter *waiter)
{
    for (long tries = 0;; tries++) {
        int n_done = 0;
        mz_status status = take_cards(wire, op, requests, n);
        if (!status && cards_complete(wire, op, requests, n))
            status = test_all(requests, n, &n_done);
        if (status)
            return status;
        if (n_done == n || tries % 64 == 0) { /* a late rank finds all data there, and the others gone */
            status = look_for_abort(wire);
            if (status || n_done == n)
                return status;
        }
        double now = mz_clock_seconds();
        mz_board_wait(wire->members.board, waiter, op, wire->members.ranks[awaited(requests, n)], now);
        if (now > op->deadline) {
            status = look_for_abort(wire);
            if (!status)
                status = judge(wire, op, requests, n, now);
            if (status)
                return status;
        }
        pause_after(tries);
    }
}

static mz_status wire_wait(mz_wire_transport *base, const mz_op_info *op, mz_wire_request **requests, int n)
{
    mpi_wire *wire = (mpi_wire *)base;
    mz_waiter waiter = {0};
    mz_status status = wait_for_all(wire, op, requests, n, &waiter);
    mz_board_go_on(wire->members.board, &waiter);
    for (int i = 0; i < n; i++) {
        if (requests[i]->mpi != MPI_REQUEST_NULL) { /* after a failure only */
            MPI_Cancel(&requests[i]->mpi);
            MPI_Request_free(&requests[i]->mpi);
        }
        requests[i]->next_free = wire->free_requests;
        wire->free_requests = requests[i];
        requests[i] = NULL;
    }
    return status;
}

static void wire_abort(mz_wire_transport *base, mz_status status, const char *message)
{
    mpi_wire *wire = (mpi_wire *)base;
    if (__atomic_exchange_n(&wire->aborted, true, __ATOMIC_ACQ_REL))
        return;
    snprintf(wire->note.message, sizeof wire->note.message, "%s", message);
    __atomic_store_n(&wire->note.status, (int32_t)status, __ATOMIC_RELEASE);
    for (int r = 0; r < wire->members.size; r++)
        if (r != wire->members.rank)
            MPI_Isend(&wire->note, sizeof wire->note, MPI_BYTE, r, TAG_ABORT, wire->comm, &wire->note_requests[r]);
}

static mz_status wire_failure(mz_wire_transport *base)
{
    return look_for_abort((mpi_wire *)base);
}

static void release(MPI_Request *request)
{
    int done = 0;
    if (*request == MPI_REQUEST_NULL)
        return;
    MPI_Test(request, &done, MPI_STATUS_IGNORE);
    if (!done) {
        MPI_Cancel(request);
        MPI_Request_free(request);
    }
}

static void wire_destroy(mz_wire_transport *base)
{
    mpi_wire *wire = (mpi_wire *)base;
    if (!wire)
        return;
    mz_board_remove(wire->members.board, &wire->listener);
    for (int r = 0; wire->peers && r < wire->members.size; r++) {
        peer *p = &wire->peers[r];
        MPI_Request *requests[] = {&p->out_request, &p->in_request, &p->question_request, &p->answer_request,
                                   &p->reply_request};
        for (size_t i = 0; i < sizeof requests / sizeof *requests; i++)
            release(requests[i]);
    }
    for (int r = 0; wire->note_requests && r < wire->members.size; r++)
        release(&wire->note_requests[r]);
    mz_free(wire->peers);
    mz_free(wire->requests);
    mz_free(wire->late);
    mz_free(wire->note_requests);
    mz_free(wire);
}

static const mz_wire_ops wire_ops = {.name = "MPI",
                                     .destroy = wire_destroy,
                                     .abort = wire_abort,
                                     .failure = wire_failure,
                                     .send = wire_send,
                                     .recv = wire_recv,
                                     .wait = wire_wait};

static void forget_requests(peer *p)
{
    p->out_request = p->in_request = MPI_REQUEST_NULL;
    p->question_request = p->answer_request = p->reply_request = MPI_REQUEST_NULL;
}

mz_status mz_mpi_wire_create(MPI_Comm group, const mz_members *members, int max_requests, mz_wire_transport **out)
{
    mpi_wire *wire = mz_calloc(1, sizeof *wire);
    if (!wire)
        return MZ_ERR_MEMORY;
    wire->base.ops = &wire_ops;
    wire->comm = group;
    wire->members = *members;
    wire->n_requests = max_requests;
    wire->peers = mz_calloc((size_t)members->size, sizeof *wire->peers);
    wire->requests = mz_calloc((size_t)max_requests, sizeof *wire->requests);
    wire->late = mz_calloc((size_t)max_requests, sizeof *wire->late);
    wire->note_requests = mz_calloc((size_t)members->size, sizeof(MPI_Request));
    if (!wire->peers || !wire->requests || !wire->late || !wire->note_requests) {
        for (int r = 0; wire->peers && r < members->size; r++)
            forget_requests(&wire->peers[r]);
        for (int r = 0; wire->note_requests && r < members->size; r++)
            wire->note_requests[r] = MPI_REQUEST_NULL;
        wire_destroy(&wire->base);
        return MZ_ERR_MEMORY;
    }
    for (int r = 0; r < members->size; r++) {
        forget_requests(&wire->peers[r]);
        wire->note_requests[r] = MPI_REQUEST_NULL;
    }
    for (int i = 0; i < max_requests; i++) {
        wire->requests[i].mpi = MPI_REQUEST_NULL;
        wire->requests[i].next_free = i + 1 < max_requests ? &wire->requests[i + 1] : NULL;
    }
    wire->free_requests = wire->requests;
    wire->listener = (mz_board_listener){.listen = answer_questions, .context = wire};
    mz_board_add(members->board, &wire->listener);
    *out = &wire->base;
    return MZ_OK;
}
