/* Collectives between GPUs of several nodes. Data in GPU memory crosses through buffers, which are pinned, or lie on
 * the GPU where the wire takes it from there: while one piece of it is on the wire (voyage.h), the ones before and
 * after are copied in and out, and NCCL spreads or adds up inside the node.
 *
 * A thread of each comm, the courier, takes the collectives in the order in which they were issued. It waits until
 * the caller's stream has reached one, launches copies and the node's part on streams of its own, and waits for the
 * wire; at last one of these streams posts a word, for which the caller's stream waits (device.h). So neither the
 * caller's thread waits nor the host function of any stream.
 *
 * While the caller's stream waits, the courier must be able to launch. What could keep it from that, and why it
 * does not:
 * - A kernel's first launch loads it, which may wait for all streams. Ours are loaded when CUDA starts (else the
 * relay is refused), cuBLASLt's behind mz_device_settle; the relay's own launches are all made once in
 * mz_relay_create.
 * - Taking and giving back memory, device or pinned, and creating streams: behind mz_device_settle, whoever asks.
 * - A launch that finds its queue full, which may keep out other threads: a compute stream waits for a collective
 * only when that is launched (mz_event_settle), so its queue empties by itself.
 * - A hardware queue that two streams share, which runs in order: CUDA is asked for as many as it has, 32.
 * - NCCL, which by itself connects GPUs at the first collective that needs a connection: it does when it starts.
 * - The default stream, which waits for others: none of ours is of the kind it waits for, and nothing is given to
 * it.
 * - Host functions, which CUDA runs one after the other: the relay uses none.
 * - An earlier collective's wait: all are carried in the order of issue, and a collective's launches depend on
 * streams of this relay, on its own beginning, which the courier has seen, and on nothing that was issued later.
 * Words lie in pinned memory, which CUDA maps for the GPU at the same address. A stream sets one behind a fence of
 * its own writes, and another stream of this GPU waits for it, so that no flush of writes from elsewhere is needed.
 * What came over the wire was written by the host before the copy that reads it was launched; what leaves is sent
 * once the event behind its copy is seen. Ranks that share a GPU take turns on it; a stream that waits does not
 * hold it. */
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

/* Collective over the group, of more than one node. All memory is taken here. MZ_ERR_UNSUPPORTED where the device
 * loads kernels late. */
mz_status mz_relay_create(const mz_relay_options *options, mz_relay **relay);
/* Ends the courier. Carries what is issued to its end first, unless something failed. relay may be NULL, here and
 * below. */
void mz_relay_stop(mz_relay *relay);
void mz_relay_destroy(mz_relay *relay);

/* One thread issues, on all ranks the same in the same order; the segments are copied. Stream-ordered. Waits while
 * many are yet to be launched, so that what is given to the GPU behind them does not fill its queues. */
mz_status mz_relay_issue(mz_relay *relay, const mz_collective *what, const mz_op_info *op, mz_stream *stream);

/* From any thread: all that wait are let go, here and on the other nodes, and later calls fail with this. */
void mz_relay_abort(mz_relay *relay, mz_status status, const char *message);

/* From any thread: says in the log how far the oldest collective under way has come. */
void mz_relay_report(mz_relay *relay);

double mz_relay_bytes_sent(const mz_relay *relay);

#endif
