/* The two kinds of transport under the collectives. src/comm/hier.c composes them; each implementation is one file
 * (shm.c, nccl.c, mpi_wire.c, ucx_wire.c) and is the only one to include its library's headers. Between GPUs
 * src/comm/gpu.c calls the node transport, or src/comm/relay.c both.
 *
 * A node transport moves data among the ranks of one node, a wire transport between the ranks of equal local
 * rank on different nodes (a rail). All calls come from the comm's issuing thread (the stream's worker on the
 * CPU) in the same order on all members. */
#ifndef MZ_COMM_TRANSPORT_H
#define MZ_COMM_TRANSPORT_H

#include "comm/board.h"
#include "comm/comm.h"

/* Identity of one collective, for matching and for messages. */
typedef struct mz_op_info {
    uint64_t sequence;
    const char *kind; /* "all_gather" */
    const char *label;
    int64_t count;
    uint64_t signature; /* of all that must be equal on every rank: kind, types, counts, root */
    double seconds;     /* the time limit */
    double deadline;    /* mz_clock_seconds() at which it ends */
} mz_op_info;

/* Who is who in a comm or on a node, borrowed by the transports: ranks[i] is member i's world rank, for messages.
 */
typedef struct mz_members {
    const int *ranks;
    int rank, size;  /* mine, among them */
    mz_board *board; /* what ranks wait for; may be NULL */
} mz_members;

typedef struct mz_node_transport mz_node_transport;
typedef struct mz_node_ops {
    const char *name;
    void (*destroy)(mz_node_transport *node);
    /* This rank is in collective `op` from now on; the calls that follow are parts of it. Does not wait. */
    void (*begin)(mz_node_transport *node, const mz_op_info *op);
    /* Makes the members' present and later calls fail with this. The first failure stays. */
    void (*abort)(mz_node_transport *node, mz_status status, const char *message);
    /* The failure that a member has published, or MZ_OK. Between CPUs; any thread's. */
    mz_status (*failure)(mz_node_transport *node);
    /* The segments' semantics are those of comm.h over the node's ranks; blocking on the CPU, stream-ordered on a
     * GPU. */
    mz_status (*all_gather)(mz_node_transport *node, const mz_op_info *op, const mz_segment *segments, int n,
                            mz_dtype dtype, mz_stream *stream);
    mz_status (*reduce_scatter)(mz_node_transport *node, const mz_op_info *op, const mz_segment *segments, int n,
                                mz_dtype dtype, mz_dtype recv_dtype, float scale, bool accumulate,
                                mz_stream *stream);
    mz_status (*broadcast)(mz_node_transport *node, const mz_op_info *op, const mz_segment *segments, int n,
                           mz_dtype dtype, int root, mz_stream *stream);
    /* NULL: composed of the others. */
    mz_status (*all_reduce)(mz_node_transport *node, const mz_op_info *op, const mz_segment *segments, int n,
                            mz_dtype dtype, float scale, mz_stream *stream);
    mz_status (*barrier)(mz_node_transport *node, const mz_op_info *op);
} mz_node_ops;
struct mz_node_transport {
    const mz_node_ops *ops;
    int rank, size;
    double bytes_sent;
};

typedef struct mz_wire_transport mz_wire_transport;
typedef struct mz_wire_request mz_wire_request;
typedef struct mz_wire_memory {
    void *memory;
    size_t bytes;
    void (*bind)(void *context); /* of a GPU's memory: makes the GPU the calling thread's; NULL: host memory */
    void *context;
} mz_wire_memory;
typedef struct mz_wire_ops {
    const char *name;
    void (*destroy)(mz_wire_transport *wire);
    /* As the node transport's, but also when no call is waiting: the next one finds the failure. Any thread's;
     * calls of this rank that wait fail with it too. */
    void (*abort)(mz_wire_transport *wire, mz_status status, const char *message);
    /* The failure that a peer has told of, or MZ_OK. Any thread's. */
    mz_status (*failure)(mz_wire_transport *wire);
    /* Registers memory that many pieces will lie in, once, so that they need not be looked up; it outlives the
     * transport. A GPU's only where the transport reaches it. NULL: the transport has no use for it. */
    mz_status (*pin)(mz_wire_transport *wire, const mz_wire_memory *memory);
    /* Non-blocking pieces between peers (ranks within the comm). At most `max_requests` in flight. What one
     * rank sends to another arrives in that order; the first piece of a collective carries its identity. */
    mz_status (*send)(mz_wire_transport *wire, const mz_op_info *op, int peer, const void *data, size_t bytes,
                      mz_wire_request **request);
    mz_status (*recv)(mz_wire_transport *wire, const mz_op_info *op, int peer, void *data, size_t bytes,
                      mz_wire_request **request);
    /* Waits for all, within op->deadline; the message names the peer. */
    mz_status (*wait)(mz_wire_transport *wire, const mz_op_info *op, mz_wire_request **requests, int n);
    /* The devices that messages to peers go over: "eth0 (tcp)". NULL: not known here. */
    void (*describe)(mz_wire_transport *wire, char *text, size_t bytes);
} mz_wire_ops;
struct mz_wire_transport {
    const mz_wire_ops *ops;
    mz_node_transport *node; /* whose failure ends what waits here too; NULL: none, or it has other ways */
    double bytes_sent;
    bool reaches_gpus; /* pieces may lie in a GPU's memory, once that is pinned */
};

/* Collective over `group`, the ranks of one node in the order of `members`, whose array must outlive the transport.
 * Each rank's staging takes slots of slot_bytes in shared memory. spin: wait actively for a moment
 * before sleeping, for when every rank has a core. */
mz_status mz_shm_create(MPI_Comm group, const mz_members *members, size_t slot_bytes, bool spin,
                        mz_node_transport **node);

/* Collective over `group`, the ranks of the comm in the order of `members`; both must outlive the transport.
 * max_requests: sends and receives in flight. */
mz_status mz_mpi_wire_create(MPI_Comm group, const mz_members *members, int max_requests, mz_wire_transport **wire);

/* Where HAVE_UCX is defined (config.h). The same over UCX, between the members rail[0..n_rail - 1], this rank among
 * them, in order of rank; rail is copied. Returns alike on all ranks of the group. spin: as mz_shm_create. */
mz_status mz_ucx_wire_create(MPI_Comm group, const mz_members *members, const int *rail, int n_rail,
                             int max_requests, bool spin, mz_wire_transport **wire);

/* Where HAVE_UCX is defined. The network devices that UCX finds on this machine, with their transports, as one
 * line: "eth0 (tcp)". Owned by the caller. */
mz_status mz_ucx_devices(char **text);
const char *mz_ucx_version(void);

#endif
