/* The wire transport straight on UCP's tagged messages.
 *
 * The first message of a collective to a peer is its card (sequence number, signature, what it is), so that a peer
 * which is in another collective is found. UCP keeps the order of messages with the same tag between two ranks. A
 * rank that fails tells the others of its rail with a note, for which everybody has a receive posted; a rank that
 * dies breaks its connections. */
#include <inttypes.h>
#include <stdio.h>

#include "comm/mpi_check.h"
#include "comm/ucx_link.h"
#include "comm/wire_card.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/memory.h"

/* How long an end waits for the last messages to leave, and for peers to say that they need nothing more. */
static const double farewell_seconds = 1.0;
/* How long a broken connection waits for a note that says more. */
static const double note_seconds = 0.05;

/* What passed between this rank and one peer. */
typedef struct peer {
    mz_wire_card out, in;
    mz_ucx_message out_message, in_message;
    uint64_t sent, asked, arrived; /* sequence number, plus one, of the newest card of each kind */
    mz_ucx_message note, bye_out, bye_in;
    mz_inquiry inquiry;
    mz_question question;
    mz_answer answer;
    mz_ucx_message question_message, answer_message;
} peer;

struct mz_wire_request {
    mz_wire_request *next_free;
    mz_ucx_message message;
    int peer; /* in the rail */
    bool is_recv;
};

typedef struct ucx_wire {
    mz_wire_transport base;
    mz_members members;
    mz_ucx_link *link;
    int *rail;  /* [n_rail] members, by place in the rail */
    int *place; /* [members.size] the other way; -1: not on this rail */
    int n_rail;
    peer *peers;               /* [n_rail] */
    mz_wire_request *requests; /* [n_requests] */
    int n_requests;
    mz_wire_request *free_requests;
    int *late; /* [n_requests] members, for a message */
    mz_wire_note note_out, note_in;
    mz_ucx_message note_message; /* of note_in */
    bool aborted;
} ucx_wire;

/* MZ_ERR_PEER for a connection that is no more. */
static mz_status lost(const ucx_wire *wire, const mz_op_info *op, int at, ucs_status_t why)
{
    return mz_fail(MZ_ERR_PEER, "%s #%" PRIu64 " (%s): rank %d has ended or cannot be reached any more (%s)",
                   op->kind, op->sequence, op->label, wire->members.ranks[wire->rail[at]], ucs_status_string(why));
}

/* Has another rank of the rail or of the node failed, or another thread of this one given up? */
static mz_status look_for_note(ucx_wire *wire)
{
    mz_node_transport *node = wire->base.node;
    if (wire->note_out.status)
        return mz_fail_adopt((mz_status)wire->note_out.status, wire->note_out.message);
    if (wire->note_message.open || wire->note_message.status)
        return node ? node->ops->failure(node) : MZ_OK;
    wire->aborted = true; /* everybody has been told already */
    return mz_fail_adopt((mz_status)wire->note_in.status, wire->note_in.message);
}

/* What does the peer wait for, that keeps this rank waiting? */
static mz_opinion inquire(ucx_wire *wire, const mz_op_info *op, int at, double now)
{
    peer *p = &wire->peers[at];
    if (p->inquiry.asked > 0 && !p->answer_message.open && p->answer_message.status == UCS_OK) {
        mz_inquiry_answer(&p->inquiry, &p->answer, now);
        if (p->inquiry.asked > 0) /* it was to an older question */
            mz_ucx_recv(wire->link, MZ_UCX_ANSWER, at, &p->answer, sizeof p->answer, &p->answer_message);
    }
    mz_opinion opinion = mz_inquiry_go_on(&p->inquiry, op->sequence, now);
    if (opinion != MZ_ASK)
        return opinion;
    if (!p->answer_message.open)
        mz_ucx_recv(wire->link, MZ_UCX_ANSWER, at, &p->answer, sizeof p->answer, &p->answer_message);
    if (!p->question_message.open && !wire->link->peers[at].broken) {
        p->question = (mz_question){.from = wire->link->me, .number = p->inquiry.number};
        mz_ucx_send(wire->link, MZ_UCX_QUESTION, at, &p->question, sizeof p->question, &p->question_message);
    }
    return MZ_PATIENCE;
}

/* The card of an earlier collective has not left yet, because the peer takes nothing. */
static mz_status await_card_out(ucx_wire *wire, const mz_op_info *op, int to)
{
    peer *p = &wire->peers[to];
    int member = wire->rail[to];
    double begin = mz_clock_seconds();
    mz_waiter waiter = {0};
    mz_status status = MZ_OK;
    while (p->out_message.open && !status) {
        double now = mz_clock_seconds();
        mz_board_wait(wire->members.board, &waiter, op, wire->members.ranks[member], now);
        status = look_for_note(wire);
        if (!status && now > op->deadline &&
            (inquire(wire, op, to, now) == MZ_BLAME || now > op->deadline + MZ_BOARD_EXCUSE_SECONDS))
            status = mz_wire_deaf(op, &wire->members, member);
        if (!status)
            mz_ucx_link_turn(wire->link, begin);
    }
    mz_board_go_on(wire->members.board, &waiter);
    return status;
}

static mz_status open_card_out(ucx_wire *wire, const mz_op_info *op, int to)
{
    peer *p = &wire->peers[to];
    if (p->sent == op->sequence + 1)
        return MZ_OK;
    mz_status status = await_card_out(wire, op, to);
    if (status)
        return status;
    p->sent = op->sequence + 1;
    mz_wire_card_fill(&p->out, op);
    mz_ucx_send(wire->link, MZ_UCX_CARD, to, &p->out, sizeof p->out, &p->out_message);
    return MZ_OK;
}

static void open_card_in(ucx_wire *wire, const mz_op_info *op, int from)
{
    peer *p = &wire->peers[from];
    if (p->asked == op->sequence + 1)
        return;
    p->asked = op->sequence + 1;
    mz_ucx_recv(wire->link, MZ_UCX_CARD, from, &p->in, sizeof p->in, &p->in_message);
}

static mz_status take_request(ucx_wire *wire, int member, bool is_recv, mz_wire_request **request)
{
    mz_wire_request *r = wire->free_requests;
    if (!r || wire->place[member] < 0)
        return mz_fail(MZ_ERR_INTERNAL, "wire: %s",
                       r ? "a message to a rank that is not on the rail" : "too many messages in flight");
    wire->free_requests = r->next_free;
    r->peer = wire->place[member];
    r->is_recv = is_recv;
    r->message = (mz_ucx_message){.open = false};
    *request = r;
    return MZ_OK;
}

static mz_status wire_send(mz_wire_transport *base, const mz_op_info *op, int to, const void *data, size_t bytes,
                           mz_wire_request **request)
{
    ucx_wire *wire = (ucx_wire *)base;
    mz_status status = take_request(wire, to, false, request);
    if (status)
        return status;
    mz_wire_request *r = *request;
    mz_ucx_link_enter(wire->link);
    status = open_card_out(wire, op, r->peer);
    if (!status) {
        mz_ucx_send(wire->link, MZ_UCX_DATA, r->peer, data, bytes, &r->message);
        base->bytes_sent += (double)bytes;
    }
    mz_ucx_link_leave(wire->link);
    return status;
}

static mz_status wire_recv(mz_wire_transport *base, const mz_op_info *op, int from, void *data, size_t bytes,
                           mz_wire_request **request)
{
    ucx_wire *wire = (ucx_wire *)base;
    mz_status status = take_request(wire, from, true, request);
    if (status)
        return status;
    mz_wire_request *r = *request;
    mz_ucx_link_enter(wire->link);
    open_card_in(wire, op, r->peer);
    mz_ucx_recv(wire->link, MZ_UCX_DATA, r->peer, data, bytes, &r->message);
    mz_ucx_link_leave(wire->link);
    return MZ_OK;
}

/* The card of the request's peer: MZ_OK also while it is not there yet. */
static mz_status take_card(ucx_wire *wire, const mz_op_info *op, const mz_wire_request *r, bool *there)
{
    peer *p = &wire->peers[r->peer];
    *there = !r->is_recv || p->arrived == op->sequence + 1;
    if (*there || p->in_message.open)
        return MZ_OK;
    if (p->in_message.status)
        return lost(wire, op, r->peer, p->in_message.status);
    p->arrived = op->sequence + 1;
    *there = true;
    return mz_wire_card_compare(&p->in, op, &wire->members, wire->rail[r->peer]);
}

/* Takes cards, and then, when all are there, counts what is complete: data of an unlike collective may not fit. */
static mz_status take_stock(ucx_wire *wire, const mz_op_info *op, mz_wire_request *const *requests, int n,
                            int *n_done)
{
    bool all_cards = true;
    *n_done = 0;
    for (int i = 0; i < n; i++) {
        bool there;
        mz_status status = take_card(wire, op, requests[i], &there);
        if (status)
            return status;
        all_cards = all_cards && there;
    }
    for (int i = 0; i < n; i++) {
        const mz_wire_request *r = requests[i];
        ucs_status_t broken = wire->link->peers[r->peer].broken;
        if (r->message.open ? broken : all_cards && r->message.status)
            return lost(wire, op, r->peer, broken ? broken : r->message.status);
        *n_done += all_cards && !r->message.open;
    }
    return MZ_OK;
}

/* The collective is overdue. Once it is clear who is to blame, names those of the requests' peers that are missing;
 * or, when all came, those that are slow. */
static mz_status judge(ucx_wire *wire, const mz_op_info *op, mz_wire_request *const *requests, int n,
                       bool all_there, double now)
{
    bool too_long = now > op->deadline + MZ_BOARD_EXCUSE_SECONDS;
    const mz_wait *wait = NULL;
    int n_late = 0;
    for (int i = 0; i < n; i++) {
        int at = requests[i]->peer;
        peer *p = &wire->peers[at];
        if (!requests[i]->message.open || (p->arrived == op->sequence + 1) != all_there)
            continue;
        if (inquire(wire, op, at, now) != MZ_BLAME && !too_long)
            continue;
        if (n_late == 0 && p->inquiry.wait.rank >= 0 && p->inquiry.asked == 0)
            wait = &p->inquiry.wait;
        wire->late[n_late++] = wire->rail[at];
    }
    return n_late ? mz_wire_late(op, &wire->members, wire->late, n_late, all_there, too_long ? wait : NULL) : MZ_OK;
}

/* Do all open requests wait for peers that are in the collective? */
static bool all_arrived(const ucx_wire *wire, const mz_op_info *op, mz_wire_request *const *requests, int n)
{
    for (int i = 0; i < n; i++)
        if (requests[i]->message.open && wire->peers[requests[i]->peer].arrived != op->sequence + 1)
            return false;
    return true;
}

/* A connection broke: its rank may have said why before it left. */
static mz_status explain(ucx_wire *wire, mz_status status)
{
    mz_status noted = MZ_OK;
    char message[512];
    snprintf(message, sizeof message, "%s", mz_last_error());
    for (double begin = mz_clock_seconds(); !noted && mz_clock_seconds() - begin < note_seconds;) {
        noted = look_for_note(wire);
        ucp_worker_progress(wire->link->worker);
    }
    return noted ? noted : mz_fail_adopt(status, message);
}

/* The member that this rank waits for, one of them. */
static int awaited(const ucx_wire *wire, mz_wire_request *const *requests, int n)
{
    int i = 0;
    while (i < n - 1 && !requests[i]->message.open)
        i++;
    return wire->rail[requests[i]->peer];
}

static mz_status wait_for_all(ucx_wire *wire, const mz_op_info *op, mz_wire_request *const *requests, int n,
                              mz_waiter *waiter)
{
    double now = mz_clock_seconds(), since = now;
    for (int n_before = 0;;) {
        int n_done = 0;
        mz_status status = take_stock(wire, op, requests, n, &n_done);
        if (status == MZ_ERR_PEER)
            return explain(wire, status);
        if (status)
            return status;
        status = look_for_note(wire); /* a late rank finds all data there, and the others gone */
        if (status || n_done == n)
            return status;
        now = mz_clock_seconds();
        mz_board_wait(wire->members.board, waiter, op, wire->members.ranks[awaited(wire, requests, n)], now);
        if (now > op->deadline)
            status = judge(wire, op, requests, n, all_arrived(wire, op, requests, n), now);
        if (status)
            return status;
        if (n_done != n_before)
            since = now;
        n_before = n_done;
        mz_ucx_link_turn(wire->link, since);
    }
}

static mz_status wire_wait(mz_wire_transport *base, const mz_op_info *op, mz_wire_request **requests, int n)
{
    ucx_wire *wire = (ucx_wire *)base;
    mz_ucx_link_enter(wire->link);
    mz_waiter waiter = {0};
    mz_status status = wait_for_all(wire, op, requests, n, &waiter);
    mz_board_go_on(wire->members.board, &waiter);
    for (int i = 0; i < n; i++) {
        mz_wire_request *r = requests[i];
        requests[i] = NULL;
        if (r->message.open && r->is_recv) /* after a failure only, as below */
            mz_ucx_cancel(wire->link, &r->message);
        if (r->message.open)
            continue; /* UCX still holds it */
        r->next_free = wire->free_requests;
        wire->free_requests = r;
    }
    mz_ucx_link_leave(wire->link);
    return status;
}

static void wire_abort(mz_wire_transport *base, mz_status status, const char *message)
{
    ucx_wire *wire = (ucx_wire *)base;
    mz_ucx_link_enter(wire->link);
    if (wire->aborted) {
        mz_ucx_link_leave(wire->link);
        return;
    }
    wire->aborted = true;
    wire->note_out.status = (int32_t)status;
    snprintf(wire->note_out.message, sizeof wire->note_out.message, "%s", message);
    for (int r = 0; r < wire->n_rail; r++)
        if (wire->link->peers[r].endpoint && !wire->link->peers[r].broken)
            mz_ucx_send(wire->link, MZ_UCX_NOTE, r, &wire->note_out, sizeof wire->note_out, &wire->peers[r].note);
    ucp_worker_progress(wire->link->worker);
    mz_ucx_link_leave(wire->link);
}

static mz_status wire_failure(mz_wire_transport *base)
{
    ucx_wire *wire = (ucx_wire *)base;
    mz_ucx_link_enter(wire->link);
    mz_status status = look_for_note(wire);
    mz_ucx_link_leave(wire->link);
    return status;
}

static mz_status wire_pin(mz_wire_transport *base, const mz_wire_memory *memory)
{
    return mz_ucx_link_register(((ucx_wire *)base)->link, memory);
}

static bool is_awaited(const ucx_wire *wire, int r)
{
    const peer *p = &wire->peers[r];
    return !wire->link->peers[r].broken && (p->note.open || p->bye_out.open || p->bye_in.open);
}

/* Lets notes leave, or, when all went well, waits until no peer needs this rank any more. */
static void say_farewell(ucx_wire *wire)
{
    double begin = mz_clock_seconds();
    mz_ucx_link_enter(wire->link);
    for (int r = 0; r < wire->n_rail; r++)
        if (!wire->aborted && wire->link->peers[r].endpoint && !wire->link->peers[r].broken) {
            mz_ucx_recv(wire->link, MZ_UCX_BYE, r, NULL, 0, &wire->peers[r].bye_in);
            mz_ucx_send(wire->link, MZ_UCX_BYE, r, NULL, 0, &wire->peers[r].bye_out);
        }
    for (int r = 0; r < wire->n_rail; r++)
        while (is_awaited(wire, r) && mz_clock_seconds() - begin < farewell_seconds)
            mz_ucx_link_turn(wire->link, begin);
    for (int r = 0; r < wire->n_rail; r++) {
        mz_ucx_cancel(wire->link, &wire->peers[r].bye_in);
        mz_ucx_cancel(wire->link, &wire->peers[r].in_message);
        mz_ucx_cancel(wire->link, &wire->peers[r].answer_message);
    }
    mz_ucx_link_deafen(wire->link);
    mz_ucx_cancel(wire->link, &wire->note_message);
    mz_ucx_link_leave(wire->link);
}

static void wire_destroy(mz_wire_transport *base)
{
    ucx_wire *wire = (ucx_wire *)base;
    if (!wire)
        return;
    if (wire->link)
        say_farewell(wire);
    mz_ucx_link_close(wire->link);
    mz_free(wire->rail);
    mz_free(wire->place);
    mz_free(wire->peers);
    mz_free(wire->requests);
    mz_free(wire->late);
    mz_free(wire);
}

static void wire_describe(mz_wire_transport *base, char *text, size_t bytes)
{
    mz_ucx_link_devices(((ucx_wire *)base)->link, text, bytes);
}

static const mz_wire_ops wire_ops = {.name = "UCX",
                                     .destroy = wire_destroy,
                                     .abort = wire_abort,
                                     .failure = wire_failure,
                                     .pin = wire_pin,
                                     .send = wire_send,
                                     .recv = wire_recv,
                                     .wait = wire_wait,
                                     .describe = wire_describe};

static mz_status take_memory(ucx_wire *wire, const int *rail)
{
    wire->rail = mz_calloc((size_t)wire->n_rail, sizeof *wire->rail);
    wire->place = mz_calloc((size_t)wire->members.size, sizeof *wire->place);
    wire->peers = mz_calloc((size_t)wire->n_rail, sizeof *wire->peers);
    wire->requests = mz_calloc((size_t)wire->n_requests, sizeof *wire->requests);
    wire->late = mz_calloc((size_t)wire->n_requests, sizeof *wire->late);
    if (!wire->rail || !wire->place || !wire->peers || !wire->requests || !wire->late)
        return MZ_ERR_MEMORY;
    for (int i = 0; i < wire->members.size; i++)
        wire->place[i] = -1;
    for (int r = 0; r < wire->n_rail; r++) {
        wire->rail[r] = rail[r];
        wire->place[rail[r]] = r;
    }
    for (int i = 0; i < wire->n_requests; i++)
        wire->requests[i].next_free = i + 1 < wire->n_requests ? &wire->requests[i + 1] : NULL;
    wire->free_requests = wire->requests;
    return MZ_OK;
}

mz_status mz_ucx_wire_create(MPI_Comm group, const mz_members *members, const int *rail, int n_rail,
                             int max_requests, bool spin, mz_wire_transport **out)
{
    ucx_wire *wire = mz_calloc(1, sizeof *wire);
    mz_status status = wire ? MZ_OK : MZ_ERR_MEMORY;
    if (wire) {
        *wire =
            (ucx_wire){.base.ops = &wire_ops, .members = *members, .n_rail = n_rail, .n_requests = max_requests};
        status = take_memory(wire, rail);
    }
    status = mz_mpi_agree(group, status, "connecting over UCX");
    if (!status)
        status = mz_ucx_link_open(group, rail[0], members->board, spin, &wire->link);
    status = mz_mpi_agree(group, status, "connecting over UCX");
    if (status) {
        wire_destroy(wire ? &wire->base : NULL);
        return status;
    }
    mz_ucx_link_enter(wire->link);
    mz_ucx_recv(wire->link, MZ_UCX_NOTE, MZ_UCX_ANY_PEER, &wire->note_in, sizeof wire->note_in,
                &wire->note_message);
    mz_ucx_link_leave(wire->link);
    wire->base.reaches_gpus = wire->link->reaches_gpus;
    *out = &wire->base;
    return MZ_OK;
}
