/* Private to relay.c (the thread, and who gives it work), relay_setup.c (beginning and end), and relay_collectives.c and
 * relay_sums.c (what is done with a piece). */
#ifndef MZ_COMM_RELAY_IMPL_H
#define MZ_COMM_RELAY_IMPL_H

#include <pthread.h>

#include "comm/relay.h"
#include "comm/voyage.h"
#include "comm/watch.h"

/* A flight's part on the GPU. Its `partial` and `inbox` in the flight itself are pinned, or these. */
typedef struct mz_relay_slot {
    char *partial, *inbox; /* [n_nodes][piece_bytes] each: sums of this node for each node; those of the others */
    float *sum;            /* of a piece */
    const void *own;       /* this node's share of the sum, in `partial` or in the caller's memory */
    mz_event *reduced;     /* `partial` is complete (inner) */
    mz_event *loaded;      /* ... and copied out (out) */
    mz_event *stored;      /* what came has been copied in (in) */
    mz_event *finished;    /* ... and added up (inner) */
} mz_relay_slot;

typedef struct mz_relay_record {
    mz_collective what;
    mz_op_info op;
    mz_segment *segments; /* [3 * capacity]: the collective's own, then work space of the all-reduce */
    int capacity;
    mz_event *begin; /* the caller's stream has reached it */
    uint64_t ticket; /* device.h */
} mz_relay_record;

struct mz_relay {
    mz_hier hier; /* first, so that a voyage's hier is its relay */
    mz_relay_options options;
    MPI_Comm group; /* a duplicate, for the wire */
    mz_stream *out, *in, *inner;
    mz_event *start; /* of a voyage */
    mz_relay_slot slots[MZ_VOYAGE_WINDOW];
    void *pinned, *memory; /* of all flights, and of all slots */
    bool direct;           /* the wire reaches the GPU: flights' buffers are their slots' */
    uint32_t *words;       /* [MZ_WATCH_FLIGHTS], pinned: the collective's number plus one when it is done */
    pthread_t courier;
    bool has_courier;
    mz_settler settler;
    const char *stage;                        /* what the courier does, for mz_relay_report; atomic, as these are */
    uint32_t n_loaded, n_departed, n_arrived; /* pieces */

    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t changed;
    mz_relay_record records[MZ_WATCH_FLIGHTS];
    uint64_t n_issued, n_done;
    bool stop;
    mz_status failed; /* the first failure; read atomically without the lock */
    char message[1024];
};

static inline void mz_relay_note(mz_relay *relay, const char *stage)
{
    __atomic_store_n(&relay->stage, stage, __ATOMIC_RELAXED);
}

static inline void mz_relay_count(uint32_t *n)
{
    __atomic_fetch_add(n, 1, __ATOMIC_RELAXED);
}

/* The courier's thread; arg: the relay. */
void *mz_relay_run(void *arg);
/* The relay's as a settler (device.h). */
void mz_relay_settle(void *context, uint64_t ticket);

/* Waits in the courier for an event of one of its streams, or for a failure. */
mz_status mz_relay_await(mz_relay *relay, mz_event *event);

/* The record's collective, all but its beginning and end. */
mz_status mz_relay_carry(mz_relay *relay, mz_relay_record *record);

#endif
