#include "comm/voyage.h"

static int64_t piece_count(const mz_hier *hier, mz_dtype dtype)
{
    return (int64_t)(hier->piece_bytes / mz_dtype_size(dtype));
}

int mz_rail_rank(const mz_hier *hier, int m)
{
    return mz_layout_rank(hier->layout, m, hier->layout->local);
}

mz_status mz_flight_recv(mz_hier *hier, const mz_op_info *op, mz_flight *f, int peer, void *data, size_t bytes)
{
    mz_wire_request **request = &f->requests[f->n_requests];
    mz_status status = hier->wire->ops->recv(hier->wire, op, peer, data, bytes, request);
    f->n_requests += *request != NULL; /* also after some failures, and then to be waited for */
    return status;
}

mz_status mz_flight_send(mz_hier *hier, const mz_op_info *op, mz_flight *f, int peer, const void *data,
                         size_t bytes)
{
    mz_wire_request **request = &f->requests[f->n_requests];
    mz_status status = hier->wire->ops->send(hier->wire, op, peer, data, bytes, request);
    f->n_requests += *request != NULL;
    return status;
}

mz_status mz_flight_land(mz_hier *hier, const mz_op_info *op, mz_flight *f)
{
    mz_status status = hier->wire->ops->wait(hier->wire, op, f->requests, f->n_requests);
    f->n_requests = 0;
    return status;
}

/* Sends all pieces through both stages, the wire up to MZ_VOYAGE_WINDOW pieces ahead. */
mz_status mz_voyage_run(const mz_voyage *v, const mz_segment *segments, int n)
{
    mz_hier *hier = v->hier;
    mz_cursor cursor = {segments, n, 0, 0};
    int64_t limit = piece_count(hier, v->dtype), departed = 0, arrived = 0;
    bool more = true;
    mz_status status = MZ_OK;
    for (;;) {
        mz_flight *next = &hier->flights[departed % MZ_VOYAGE_WINDOW];
        if (more && !status && departed - arrived < MZ_VOYAGE_WINDOW) {
            more = mz_cursor_next(&cursor, limit, &next->piece);
            if (more) {
                departed++;
                status = v->depart(v, next);
            }
            continue;
        }
        if (arrived == departed)
            return status;
        mz_flight *oldest = &hier->flights[arrived++ % MZ_VOYAGE_WINDOW];
        mz_status landed = mz_flight_land(hier, v->op, oldest); /* after a failure too: it frees the requests */
        status = status ? status : landed;
        if (!status)
            status = v->arrive(v, oldest);
    }
}
