/* Looks after collectives that GPUs carry out by themselves. No host thread takes part in them, so nobody notices
 * when one does not end: a rank was killed, is late, or is in another collective; the library or the GPU reports an
 * error. A thread looks at these things many times a second, ends what waits, and keeps the message. */
#ifndef MZ_COMM_WATCH_H
#define MZ_COMM_WATCH_H

#include "comm/shm_sync.h"

enum { MZ_WATCH_FLIGHTS = MZ_SHM_CARDS / 2 }; /* collectives that a rank launches ahead */

typedef struct mz_watch mz_watch;

typedef struct mz_watch_options {
    mz_device *device; /* borrowed, as the rest */
    mz_shm_sync *sync; /* of its own: the ranks that take part, and what each is in */
    double timeout_seconds;
    void *context;
    /* From the watch's thread, often, and before its first use of the device: is there an error? */
    mz_status (*check)(void *context);
    /* From the watch's thread or one that launches or fails, once each: something has failed. `mark` is quick: when
     * it has returned, others are told of the failure. `abort` ends what waits on the GPU, which may take its time.
     */
    void (*mark)(void *context, mz_status status, const char *message);
    void (*abort)(void *context, mz_status status, const char *message);
    /* From the watch's thread, for a collective half of whose time is up, just once: a word for the log. NULL:
     * none. */
    void (*slow)(void *context, const mz_op_info *op);
} mz_watch_options;

mz_status mz_watch_create(const mz_watch_options *options, mz_watch **watch);
/* Everything launched has ended or failed. */
void mz_watch_destroy(mz_watch *watch);

/* Around a launch on a stream, by one thread. begin waits while too many are under way. op->label stays the
 * caller's. Both return the failure once there is one; end takes the launch's status, which may be it. */
mz_status mz_watch_begin(mz_watch *watch, const mz_op_info *op, mz_stream *stream);
mz_status mz_watch_end(mz_watch *watch, mz_status launched, mz_stream *stream);

/* Any thread's, with its last error: somebody else than the watch has found a failure. The first one is kept, the
 * others are told, and what waits is let go. */
void mz_watch_fail(mz_watch *watch, mz_status status);

/* The failure, or MZ_OK. */
mz_status mz_watch_status(mz_watch *watch);
/* Seconds that collectives spent on the GPU so far, waiting for other ranks included. */
double mz_watch_seconds(mz_watch *watch);

#endif
