/* Who drives the worker, and the messages it carries. */
#include <poll.h>
#include <time.h>

#include "comm/ucx_link.h"
#include "core/clock.h"

static const double spin_seconds = 50e-6;
/* The longest sleep: UCX's own timers, such as keepalive, are not all events. */
enum { SLEEP_MS = 100 };

void mz_ucx_link_enter(mz_ucx_link *link)
{
    atomic_fetch_add(&link->n_inside, 1);
    pthread_mutex_lock(&link->lock);
}

void mz_ucx_link_leave(mz_ucx_link *link)
{
    pthread_mutex_unlock(&link->lock);
    atomic_fetch_sub(&link->n_inside, 1);
}

static ucp_tag_t tag_of(mz_ucx_kind kind, int from)
{
    return (ucp_tag_t)kind << 32 | (uint32_t)from;
}

static void finish(mz_ucx_message *message, void *handle, ucs_status_t status)
{
    message->open = false;
    message->status = status;
    message->handle = NULL;
    ucp_request_free(handle);
}

static void sent(void *handle, ucs_status_t status, void *message)
{
    finish(message, handle, status);
}

static void received(void *handle, ucs_status_t status, const ucp_tag_recv_info_t *info, void *message)
{
    (void)info;
    finish(message, handle, status);
}

/* The region that the data lies in, or NULL. */
static const mz_ucx_region *region_of(const mz_ucx_link *link, const void *data, size_t bytes)
{
    const mz_ucx_region *r = &link->region;
    const char *begin = data, *first = r->of.memory;
    return r->handle && begin >= first && begin + bytes <= first + r->of.bytes ? r : NULL;
}

static ucp_request_param_t parameters(const mz_ucx_link *link, const void *data, size_t bytes,
                                      mz_ucx_message *message)
{
    const mz_ucx_region *region = region_of(link, data, bytes);
    *message = (mz_ucx_message){.open = true};
    ucp_request_param_t p = {.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA |
                                             UCP_OP_ATTR_FIELD_MEMORY_TYPE,
                             .user_data = message,
                             .memory_type = region ? region->type : UCS_MEMORY_TYPE_HOST};
    if (region) {
        p.op_attr_mask |= UCP_OP_ATTR_FIELD_MEMH;
        p.memh = region->handle;
    }
    return p;
}

/* Calls back for what was not complete at once. */
static void note_handle(mz_ucx_message *message, ucs_status_ptr_t handle)
{
    if (!UCS_PTR_IS_PTR(handle))
        *message = (mz_ucx_message){.status = UCS_PTR_STATUS(handle)};
    else if (message->open)
        message->handle = handle;
}

void mz_ucx_send(mz_ucx_link *link, mz_ucx_kind kind, int to, const void *data, size_t bytes,
                 mz_ucx_message *message)
{
    ucp_request_param_t p = parameters(link, data, bytes, message);
    p.cb.send = sent;
    note_handle(message, ucp_tag_send_nbx(link->peers[to].endpoint, data, bytes, tag_of(kind, link->me), &p));
}

void mz_ucx_recv(mz_ucx_link *link, mz_ucx_kind kind, int from, void *data, size_t bytes, mz_ucx_message *message)
{
    const ucp_tag_t all = ~(ucp_tag_t)0;
    ucp_request_param_t p = parameters(link, data, bytes, message);
    p.cb.recv = received;
    if (from == MZ_UCX_ANY_PEER)
        note_handle(message, ucp_tag_recv_nbx(link->worker, data, bytes, tag_of(kind, 0), all << 32, &p));
    else
        note_handle(message, ucp_tag_recv_nbx(link->worker, data, bytes, tag_of(kind, from), all, &p));
}

void mz_ucx_cancel(mz_ucx_link *link, mz_ucx_message *message)
{
    if (message->open && message->handle)
        ucp_request_cancel(link->worker, message->handle);
}

void mz_ucx_discard_all(mz_ucx_link *link)
{
    const ucp_request_param_t plain = {.op_attr_mask = 0};
    ucp_tag_recv_info_t info;
    ucp_tag_message_h message;
    while ((message = ucp_tag_probe_nb(link->worker, 0, 0, 1, &info))) {
        ucs_status_ptr_t handle = ucp_tag_msg_recv_nbx(link->worker, NULL, 0, message, &plain);
        if (UCS_PTR_IS_PTR(handle))
            ucp_request_free(handle);
    }
}

/* ---- questions ---- */

void mz_ucx_link_listen(mz_ucx_link *link)
{
    link->listens = true;
    mz_ucx_recv(link, MZ_UCX_QUESTION, MZ_UCX_ANY_PEER, &link->question, sizeof link->question,
                &link->question_message);
}

void mz_ucx_link_deafen(mz_ucx_link *link)
{
    link->listens = false;
    mz_ucx_cancel(link, &link->question_message);
}

/* A question has come, or will not any more. */
static void answer(mz_ucx_link *link)
{
    int from = link->question.from;
    if (link->question_message.status != UCS_OK || from < 0 || from >= link->n_peers || from == link->me) {
        link->listens = false;
        return;
    }
    mz_ucx_reply *reply = &link->replies[from];
    if (!reply->message.open && !link->peers[from].broken) { /* else the peer will ask again */
        reply->answer.number = link->question.number;
        mz_board_read_own(link->board, &reply->answer.wait);
        mz_ucx_send(link, MZ_UCX_ANSWER, from, &reply->answer, sizeof reply->answer, &reply->message);
    }
    mz_ucx_link_listen(link);
}

/* ---- progress ---- */

static bool progress(mz_ucx_link *link)
{
    bool some = ucp_worker_progress(link->worker) != 0;
    if (link->listens && !link->question_message.open)
        answer(link);
    return some;
}

void mz_ucx_link_turn(mz_ucx_link *link, double since)
{
    if (progress(link))
        return;
    if (link->spin && mz_clock_seconds() - since < spin_seconds)
        return;
    if (ucp_worker_arm(link->worker) != UCS_OK)
        return;
    struct pollfd event = {.fd = link->event_fd, .events = POLLIN};
    pthread_mutex_unlock(&link->lock);
    poll(&event, 1, SLEEP_MS);
    pthread_mutex_lock(&link->lock);
}

/* Sleeps while there is nothing to do, and keeps out of the way of a thread that is inside: an event stays to be
 * seen until somebody has armed the worker again. */
void *mz_ucx_progress_thread(void *arg)
{
    const struct timespec out_of_the_way = {0, 1000000};
    mz_ucx_link *link = arg;
    bool bound = false;
    struct pollfd events[2] = {{.fd = link->event_fd, .events = POLLIN}, {.fd = link->stop_fd, .events = POLLIN}};
    while (!(events[1].revents & POLLIN)) {
        if (atomic_load(&link->n_inside)) {
            nanosleep(&out_of_the_way, NULL);
            poll(&events[1], 1, 0);
            continue;
        }
        pthread_mutex_lock(&link->lock);
        if (!bound && link->region.of.bind) {
            link->region.of.bind(link->region.of.context);
            bound = true;
        }
        bool idle = !progress(link) && ucp_worker_arm(link->worker) == UCS_OK;
        pthread_mutex_unlock(&link->lock);
        poll(events, 2, idle ? SLEEP_MS : 0);
    }
    return NULL;
}
