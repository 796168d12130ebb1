/* Connections between the ranks of a rail over UCP: one context, worker and progress thread per rank, one endpoint
 * per peer. Private to ucx_link.c (set-up and end), ucx_progress.c (progress and messages) and ucx_wire.c.
 *
 * Who waits for messages drives the worker itself. At other times a thread does, which sleeps until UCX has
 * something to do, so that peers' rendezvous and the tail of what was sent go on while this rank computes. */
#ifndef MZ_COMM_UCX_LINK_H
#define MZ_COMM_UCX_LINK_H

#include <pthread.h>
#include <stdatomic.h>
#include <ucp/api/ucp.h>

#include "comm/transport.h"

/* What a message is, in the upper half of its tag; the lower half is the sender's place in the rail. */
typedef enum mz_ucx_kind {
    MZ_UCX_HELLO = 1, /* set-up */
    MZ_UCX_CARD,
    MZ_UCX_DATA,
    MZ_UCX_NOTE,     /* of a failure */
    MZ_UCX_QUESTION, /* what does a rank wait for? (board.h) */
    MZ_UCX_ANSWER,
    MZ_UCX_BYE /* before an orderly end */
} mz_ucx_kind;

enum { MZ_UCX_ANY_PEER = -1 };

/* Memory that UCX knows. */
typedef struct mz_ucx_region {
    mz_wire_memory of;
    ucp_mem_h handle;
    ucs_memory_type_t type;
} mz_ucx_region;

/* A message on its way; stays where it is until `open` is false. */
typedef struct mz_ucx_message {
    bool open;
    ucs_status_t status; /* once it is not open */
    void *handle;        /* UCP's, while open */
} mz_ucx_message;

typedef struct mz_ucx_peer {
    ucp_ep_h endpoint;   /* NULL: this rank */
    ucs_status_t broken; /* UCS_OK, or why nothing comes from there any more */
} mz_ucx_peer;

/* An answer on its way. */
typedef struct mz_ucx_reply {
    mz_answer answer;
    mz_ucx_message message;
} mz_ucx_reply;

typedef struct mz_ucx_link {
    ucp_context_h context;
    ucp_worker_h worker;
    int event_fd; /* of the worker: readable when there is something to do */
    int stop_fd;  /* tells the thread to end */
    int me, n_peers;
    mz_ucx_peer *peers;   /* [n_peers] */
    pthread_mutex_t lock; /* of the worker and all above */
    atomic_int n_inside;  /* threads that drive the worker or wait for its lock */
    pthread_t thread;
    bool has_thread;
    mz_ucx_message *hellos; /* [2 * n_peers] */
    bool spin;              /* wait actively for a moment before sleeping */
    bool knows_gpus;        /* this UCX was built with CUDA, and finds it */
    bool reaches_gpus;      /* and a network takes what lies there */
    mz_ucx_region region;   /* the one that is registered, if its handle is set */

    const mz_board *board; /* tells the answers; may be NULL */
    bool listens;
    mz_question question; /* one that came, or will */
    mz_ucx_message question_message;
    mz_ucx_reply *replies; /* [n_peers] */
} mz_ucx_link;

/* Collective over `group`, where the ranks with the same `color` form a rail, in order. Ends when every endpoint
 * has carried a message in both directions. board: borrowed; from then on peers' questions are answered. */
mz_status mz_ucx_link_open(MPI_Comm group, int color, const mz_board *board, bool spin, mz_ucx_link **link);
/* Registers the memory that pieces lie in, a GPU's where the link reaches it; once. */
mz_status mz_ucx_link_register(mz_ucx_link *link, const mz_wire_memory *memory);
/* Breaks the connections that are still there. Messages that are open end. */
void mz_ucx_link_close(mz_ucx_link *link);

/* Around all calls below. */
void mz_ucx_link_enter(mz_ucx_link *link);
void mz_ucx_link_leave(mz_ucx_link *link);

/* Failures are found in the message. Data may lie in the link's region, or else in host memory. */
void mz_ucx_send(mz_ucx_link *link, mz_ucx_kind kind, int to, const void *data, size_t bytes,
                 mz_ucx_message *message);
void mz_ucx_recv(mz_ucx_link *link, mz_ucx_kind kind, int from, void *data, size_t bytes, mz_ucx_message *message);
/* Gives up a message that was asked for; it ends at once, or when its data is complete. */
void mz_ucx_cancel(mz_ucx_link *link, mz_ucx_message *message);

/* The devices that the endpoints use, each with its transports: "eth0 (tcp)". */
void mz_ucx_link_devices(mz_ucx_link *link, char *text, size_t bytes);

/* Throws away what has come and nobody asked for, as after a failure; UCX complains about it otherwise. */
void mz_ucx_discard_all(mz_ucx_link *link);

/* Makes ready for a question, which whoever drives the worker then answers; stops doing so. */
void mz_ucx_link_listen(mz_ucx_link *link);
void mz_ucx_link_deafen(mz_ucx_link *link);

/* Drives the worker; when there is nothing to do, sleeps until there is, or a moment has passed. `since` is when
 * the caller began to wait. */
void mz_ucx_link_turn(mz_ucx_link *link, double since);

void *mz_ucx_progress_thread(void *link);

/* Is TCP the only way to other machines that UCX finds? */
mz_status mz_ucx_only_tcp(bool *only_tcp);

/* MZ_ERR_COMM with UCX's own text and the name of the call. */
mz_status mz_ucx_check(ucs_status_t status, const char *call);

#endif
