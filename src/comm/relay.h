/* Collectives between GPUs of several nodes. Data in GPU memory crosses through pinned buffers: while one piece of
 * it is on the wire (voyage.h), the ones before and after are copied in and out, and NCCL spreads or adds up inside
 * the node.
 *
 * A thread of each comm, the courier, takes the collectives in the order in which they were issued. It waits until
 * the caller's stream has reached one, launches copies and the node's part on streams of its own, and waits for the
 * wire; at last one of these streams posts a word, for which the caller's stream waits (device.h). So neither the
 * caller's thread waits nor the host function of any stream. */
#ifndef MZ_COMM_RELAY_H
#define MZ_COMM_RELAY_H

#include "comm/issue.h"

typedef struct mz_relay mz_relay;

typedef struct mz_relay_options {
    MPI_Comm group; /* the ranks that layout describes; borrowed, as all pointers here */
    const mz_layout *layout;
    mz_device *device;
    mz_node_transport *node; /* stream-ordered; NULL: one rank per node */
    const char *wire;        /* world->wire */
    bool spin;               /* as mz_shm_create */
    size_t piece_bytes;      /* 0: default */
    double timeout_seconds;
    void *context;
    /* From the courier's thread, once: a collective failed, with mz_last_error(). It should abort. */
    void (*failed)(void *context, mz_status status);
} mz_relay_options;

/* Collective over the group, of more than one node. All memory is taken here. */
mz_status mz_relay_create(const mz_relay_options *options, mz_relay **relay);
/* Ends the courier. Carries what is issued to its end first, unless something failed. relay may be NULL, here and
 * below. */
void mz_relay_stop(mz_relay *relay);
void mz_relay_destroy(mz_relay *relay);

/* One thread issues, on all ranks the same in the same order; the segments are copied. Stream-ordered. At most
 * MZ_WATCH_FLIGHTS are under way, which is the watch's limit too. */
mz_status mz_relay_issue(mz_relay *relay, const mz_collective *what, const mz_op_info *op, mz_stream *stream);

/* From any thread: all that wait are let go, here and on the other nodes, and later calls fail with this. */
void mz_relay_abort(mz_relay *relay, mz_status status, const char *message);

double mz_relay_bytes_sent(const mz_relay *relay);

#endif
