#include "comm/voyage.h"

static int64_t piece_count(const mz_hier *hier, mz_dtype dtype)
{
    return (int64_t)(hier->piece_bytes / mz_dtype_size(dtype));
}

int mz_rail_rank(const mz_hier *hier, int m)
{
    return mz_layout_rank(hier->layout, m, hier->layout->local);
}

mz_status mz_leg_recv(mz_hier *hier, const mz_op_info *op, mz_leg *leg, int m, void *data, size_t bytes)
{
    mz_wire_request **request = &leg->requests[leg->n_requests];
    mz_status status = hier->wire->ops->recv(hier->wire, op, mz_rail_rank(hier, m), data, bytes, request);
    leg->n_requests += *request != NULL; /* also after some failures, and then to be waited for */
    return status;
}

mz_status mz_leg_send(mz_hier *hier, const mz_op_info *op, mz_leg *leg, int m, const void *data, size_t bytes)
{
    mz_wire_request **request = &leg->requests[leg->n_requests];
    mz_status status = hier->wire->ops->send(hier->wire, op, mz_rail_rank(hier, m), data, bytes, request);
    leg->n_requests += *request != NULL;
    return status;
}

mz_status mz_leg_land(mz_hier *hier, const mz_op_info *op, mz_leg *leg)
{
    mz_status status = hier->wire->ops->wait(hier->wire, op, leg->requests, leg->n_requests);
    leg->n_requests = 0;
    return status;
}

/* How far a voyage is. Pieces and legs are numbered; each uses the place of its number modulo the window. */
typedef struct progress {
    mz_cursor cursor;
    int64_t loaded, departed, arrived; /* pieces */
    int64_t started, landed;           /* legs */
    int next_leg;                      /* of the piece that departed last; past the last one: it has none left */
    bool more;
} progress;

static mz_status load_pieces(const mz_voyage *v, progress *p)
{
    mz_status status = MZ_OK;
    while (p->more && p->loaded - p->arrived < MZ_VOYAGE_WINDOW && !status) {
        mz_flight *next = &v->hier->flights[p->loaded % MZ_VOYAGE_WINDOW];
        p->more = mz_cursor_next(&p->cursor, piece_count(v->hier, v->dtype), &next->piece);
        if (!p->more)
            break;
        p->loaded++;
        if (v->load)
            status = v->load(v, next);
    }
    return status;
}

static int n_nodes_of(const mz_voyage *v)
{
    return v->uneven ? v->uneven->n_nodes : v->hier->layout->n_nodes;
}

/* The piece whose legs are to be started: the present one, or the next. NULL: there is none, or no room for it yet.
 */
static mz_flight *piece_at_hand(const mz_voyage *v, progress *p, mz_status *status)
{
    mz_hier *hier = v->hier;
    if (p->next_leg < n_nodes_of(v))
        return &hier->flights[(p->departed - 1) % MZ_VOYAGE_WINDOW];
    *status = load_pieces(v, p);
    if (*status || p->departed == p->loaded)
        return NULL;
    mz_flight *next = &hier->flights[p->departed++ % MZ_VOYAGE_WINDOW];
    p->next_leg = 1;
    if (v->depart)
        *status = v->depart(v, next);
    return next;
}

/* Starts the next leg, if there is one and room for it. */
static bool start_leg(const mz_voyage *v, progress *p, mz_status *status)
{
    mz_hier *hier = v->hier;
    int n_nodes = n_nodes_of(v), node = v->uneven ? v->uneven->node : hier->layout->node;
    if (*status || p->started - p->landed == MZ_LEG_WINDOW)
        return false;
    mz_flight *flight = piece_at_hand(v, p, status);
    if (!flight || *status)
        return false;
    mz_leg *leg = &hier->legs[p->started++ % MZ_LEG_WINDOW];
    *leg = (mz_leg){.flight = flight, .k = p->next_leg++};
    *status = v->exchange(v, leg, (node + leg->k) % n_nodes, (node + n_nodes - leg->k) % n_nodes);
    return true;
}

mz_status mz_voyage_run(const mz_voyage *v, const mz_segment *segments, int n)
{
    mz_hier *hier = v->hier;
    progress p = {.cursor = {segments, n, 0, 0}, .next_leg = n_nodes_of(v), .more = true};
    mz_status status = MZ_OK;
    for (;;) {
        while (start_leg(v, &p, &status))
            ;
        if (p.landed == p.started)
            return status;
        mz_leg *oldest = &hier->legs[p.landed++ % MZ_LEG_WINDOW];
        mz_status landed = mz_leg_land(hier, v->op, oldest); /* after a failure too: it frees the requests */
        status = status ? status : landed;
        if (oldest->k == n_nodes_of(v) - 1) {
            p.arrived++;
            if (!status)
                status = v->arrive(v, oldest->flight);
        }
    }
}
