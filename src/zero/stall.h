/* How long the compute stream stood still for communication: pairs of events around each wait. */
#ifndef MZ_ZERO_STALL_H
#define MZ_ZERO_STALL_H

#include "device/device.h"

enum { MZ_STALL_PAIRS = 256 };

typedef struct mz_stall {
    mz_device *device; /* borrowed, as the stream */
    mz_stream *compute;
    mz_event *begin[MZ_STALL_PAIRS], *end[MZ_STALL_PAIRS];
    int64_t n_begun, n_counted; /* pairs in use: n_counted .. n_begun - 1, modulo the ring */
    double seconds;             /* of the pairs counted */
} mz_stall;

mz_status mz_stall_init(mz_stall *stall, mz_device *device, mz_stream *compute);
void mz_stall_free(mz_stall *stall);

/* Stream-ordered, around what makes the compute stream wait. */
mz_status mz_stall_begin(mz_stall *stall);
mz_status mz_stall_end(mz_stall *stall);

/* Blocks until the pairs have passed; seconds since the last call. */
double mz_stall_take(mz_stall *stall);

#endif
