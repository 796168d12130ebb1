#include "zero/stall.h"

mz_status mz_stall_init(mz_stall *s, mz_device *device, mz_stream *compute)
{
    *s = (mz_stall){.device = device, .compute = compute};
    for (int i = 0; i < MZ_STALL_PAIRS; i++) {
        mz_status status = device->ops->event_create(device, &s->begin[i]);
        if (!status)
            status = device->ops->event_create(device, &s->end[i]);
        if (status)
            return status;
    }
    return MZ_OK;
}

void mz_stall_free(mz_stall *s)
{
    for (int i = 0; i < MZ_STALL_PAIRS; i++) {
        if (s->begin[i])
            s->device->ops->event_destroy(s->begin[i]);
        if (s->end[i])
            s->device->ops->event_destroy(s->end[i]);
    }
}

static mz_status count_oldest(mz_stall *s)
{
    int i = (int)(s->n_counted++ % MZ_STALL_PAIRS);
    double seconds = 0;
    mz_status status = s->device->ops->event_sync(s->end[i]);
    if (!status)
        status = s->device->ops->event_elapsed(s->begin[i], s->end[i], &seconds);
    s->seconds += seconds;
    return status;
}

mz_status mz_stall_begin(mz_stall *s)
{
    if (s->n_begun - s->n_counted == MZ_STALL_PAIRS) {
        mz_status status = count_oldest(s);
        if (status)
            return status;
    }
    return s->device->ops->event_record(s->begin[s->n_begun % MZ_STALL_PAIRS], s->compute);
}

mz_status mz_stall_end(mz_stall *s)
{
    return s->device->ops->event_record(s->end[s->n_begun++ % MZ_STALL_PAIRS], s->compute);
}

double mz_stall_take(mz_stall *s)
{
    while (s->n_counted < s->n_begun && count_oldest(s) == MZ_OK)
        ;
    double seconds = s->seconds;
    s->seconds = 0;
    return seconds;
}
