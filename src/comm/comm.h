/* Start-up, topology and collectives.
 *
 * MPI starts the job, tells the topology and carries control messages; tensors between ranks of one node
 * go through a node transport (shared memory; NCCL), between nodes through a wire transport (MPI
 * point-to-point; UCX). The collectives are built here, over the two, and are the same for all of them.
 *
 * Order. All ranks of a comm issue the same collectives in the same order from one thread. Each collective has a
 * sequence number; ranks exchange (sequence, operation, element count) with the data, so that a
 * mismatch is found rather than hung on. A rank that waits longer than the deadline names the ranks that are
 * missing, the operation and its sequence number, and gets MZ_ERR_TIMEOUT.
 *
 * Sums are formed in fp32 in the order of ranks: the same bits each run. Between GPUs NCCL forms them: it adds rank
 * by rank, in an order that depends on the machine's links and the size alone, and rounds every partial sum to the
 * collective's type; that is the same bits each run, too, but a sum in 16 bits carries up to size - 1 roundings.
 * Who wants one rounding sends fp32 (communication_data_type). Between nodes the nodes' sums are added in fp32, in
 * their order. A scale that is a power of two is multiplied in before the sum, so that 16-bit sums do not overflow;
 * another one after it. */
#ifndef MZ_COMM_COMM_H
#define MZ_COMM_COMM_H

#include <mpi.h>
#include <pthread.h>

#include "device/device.h"
#include "mpizero/dtype.h"
#include "mpizero/status.h"

/* ---- start-up and topology ---- */

/* What conclude.h remembers. */
typedef struct mz_world_end {
    bool has_met;  /* the other ranks, or waited for them in vain */
    bool is_alone; /* in vain */
    int key;       /* what was agreed on */
} mz_world_end;

typedef struct mz_world {
    MPI_Comm comm; /* duplicate of MPI_COMM_WORLD, owned */
    int rank, size;
    int node, n_nodes; /* numbered in order of their lowest rank */
    int local_rank, local_size;
    int machine_rank;   /* among the ranks of this machine, however ranks_per_node cuts it */
    int machine_size;   /* how many they are */
    cpu_set_t *cpus_of; /* [machine_size] the processors that each of them may run on when it starts */
    int *node_of;       /* [size] node of each rank */
    int *local_rank_of; /* [size] */
    char host[256];
    struct mz_board *board; /* what the ranks of this node wait for (board.h), owned */
    pthread_mutex_t comms_lock;
    struct mz_comm *comms;  /* that there are, in no order; one thread makes and ends them */
    uint64_t n_agreements;  /* so far */
    const char *wire;       /* "ucx" or "mpi": what moves data between nodes */
    bool owns_mpi;          /* we called MPI_Init_thread */
    double timeout_seconds; /* deadline of collectives */
    mz_world_end end;
} mz_world;

typedef struct mz_world_options {
    int ranks_per_node;     /* 0: as MPI's shared-memory split says; else cut the ranks of a machine so */
    double timeout_seconds; /* <= 0: 1800 */
    const char *wire;       /* "ucx" or "mpi"; NULL: as $MPIZERO_WIRE says, else UCX where built with it */
} mz_world_options;

/* Collective over MPI_COMM_WORLD. Initialises MPI (MPI_THREAD_MULTIPLE) unless that is done. Refuses a launch
 * in which SLURM_NTASKS, OMPI_COMM_WORLD_SIZE or PMI_SIZE say more ranks than MPI knows (N singletons), with
 * the command that would be right. Sets the log's rank. options->wire is borrowed for the call. */
mz_status mz_world_create(const mz_world_options *options, mz_world **world);
void mz_world_destroy(mz_world *world); /* finalises MPI when we initialised it */

/* Not collective. Opens this rank's device, to be closed by the caller; name NULL: "cuda" where this build has it
 * and the machine a GPU, else "cpu". Each rank of a machine takes a GPU of its own, one near the processors that it
 * may run on where there is a choice (device/placement.h); where a rank sees fewer than there are ranks, it was given
 * its own (CUDA_VISIBLE_DEVICES), or there are too few, which mz_comm_create refuses. n_threads as mz_device_open. */
mz_status mz_world_open_device(const mz_world *world, const char *name, int n_threads, mz_device **device);

/* Collective over the world: all ranks return MZ_OK when all gave MZ_OK. Otherwise a rank that failed returns
 * its own status, and the others MZ_ERR_PEER with the lowest failed rank's message as last error.
 * `where` says what was being done. */
mz_status mz_agree(mz_world *world, mz_status mine, const char *where);

/* Collective: fails on all ranks when `bytes` of `data` are not the same on all; names a rank that differs.
 * `what` is the thing compared ("the configuration"), for the message. */
mz_status mz_agree_same(mz_world *world, const void *data, size_t bytes, const char *what);

/* ---- collectives ---- */

typedef struct mz_comm mz_comm;

/* Collective over the world's ranks that give the same `color`; color < 0: this rank is in no group, *comm is
 * NULL. Ranks keep their order. device is borrowed; buffers are that device's memory. chunk_bytes 0:
 * default. Sets up shared segments and connections; nothing is allocated later. */
mz_status mz_comm_create(mz_world *world, mz_device *device, int color, size_t chunk_bytes, mz_comm **comm);
void mz_comm_destroy(mz_comm *comm);
int mz_comm_rank(const mz_comm *comm);
int mz_comm_size(const mz_comm *comm);

/* Collective over the comm's ranks, which call it with one set of groups that have no rank in common, each rank with its
 * own: a comm of the ranks first, first + step, ... of which there are `count`; count 0: this rank is in no group,
 * *group is NULL. Device, time limit and transports are as the comm's own. comm NULL: one rank alone, *group is NULL.
 * The comm must outlive its groups. MZ_ERR_ARGUMENT where this rank is not in its group.
 *
 * A group is a comm of its own: its collectives are numbered apart, and only its ranks take part. Who is in several
 * comms issues their collectives in one order on all ranks and on one stream (or in turn on streams that wait for
 * each other): two collectives of different comms that wait for each other would never end. A failure in one comm ends
 * the collectives of all comms that a rank is in which has met it: it will not come to them any more. */
mz_status mz_comm_split(mz_comm *comm, int first, int count, int step, mz_comm **group);

/* Not collective. Later collectives fail with this, here and on the other ranks, in all comms that this rank is in;
 * those that wait do at once. The first failure stays. Leaves this one as the last error. Any thread's. */
void mz_comm_fail(mz_comm *comm, mz_status status, const char *message);

/* How a comm's ranks sit: n_nodes of per_node ranks each, this one being number `local` on `node`. Where not every
 * node has equally many ranks of the comm, evenly spaced in their order, each rank counts as a node of its own.
 * comm NULL: one rank on one node. */
typedef struct mz_comm_place {
    int n_nodes, per_node;
    int node, local;
} mz_comm_place;
void mz_comm_get_place(const mz_comm *comm, mz_comm_place *place);
/* The comm rank that sits there: ranks of equal `local` are a rail. comm NULL: 0. */
int mz_comm_rank_at(const mz_comm *comm, int node, int local);

/* One contiguous piece of a collective. For rank r of n the block of the larger buffer begins r * stride
 * elements after its start; stride >= count. Several segments in one call are one collective: issued and
 * numbered together, so that small pieces share the latency. */
typedef struct mz_segment {
    const void *send;
    void *recv;
    int64_t count;  /* elements of one rank's block (all-gather, reduce-scatter), of the whole (others) */
    int64_t stride; /* elements between blocks; ignored where there is one block */
} mz_segment;

/* All five are stream-ordered: they return at once on a stream with a worker, and the result is there when
 * the stream gets there. `label` (a static or long-lived string: "unit transformer.h.3") appears in messages.
 * segments are copied. Errors found later are returned by the stream's sync; after one, every later
 * collective of the comm fails with it. stream NULL, or comm NULL (a rank that is alone): done when the call
 * returns.
 *
 * all_gather:     recv block r = rank r's send. send may be recv's own block (in place).
 * reduce_scatter: recv = scale * sum over ranks of their send's block [my rank]. recv may be send's own
 *                 block. dtype of send; recv has recv_dtype (accumulate: recv += ...). Between GPUs, this rank's
 *                 block of send is overwritten when recv_dtype is another type or recv accumulates; blocks that
 *                 lie one after the other (stride == count) are faster, here and in all_gather.
 * all_reduce:     recv = scale * sum of sends. recv may be send.
 * broadcast:      everybody's recv = root's send.
 * all_to_all:     recv block r = rank r's send's block [my rank]; both have the stride. recv and send have nothing in
 *                 common. For ranks that are on a node each, as those of a rail are; else MZ_ERR_UNSUPPORTED. */
mz_status mz_all_gather(mz_comm *comm, const mz_segment *segments, int n_segments, mz_dtype dtype,
                        const char *label, mz_stream *stream);
mz_status mz_reduce_scatter(mz_comm *comm, const mz_segment *segments, int n_segments, mz_dtype dtype,
                            mz_dtype recv_dtype, float scale, bool accumulate, const char *label,
                            mz_stream *stream);
mz_status mz_all_reduce(mz_comm *comm, const mz_segment *segments, int n_segments, mz_dtype dtype, float scale,
                        const char *label, mz_stream *stream);
mz_status mz_broadcast(mz_comm *comm, const mz_segment *segments, int n_segments, mz_dtype dtype, int root,
                       const char *label, mz_stream *stream);
mz_status mz_all_to_all(mz_comm *comm, const mz_segment *segments, int n_segments, mz_dtype dtype,
                        const char *label, mz_stream *stream);
/* The same with fewer bits between nodes (qwZ and qgZ of ZeRO++; Wang et al., 2023): what crosses goes by blocks of
 * `bits` (8 or 4) per element and a scale per block, as kernels.h's quantize packs them. Inside a node, and so where all
 * ranks are on one, nothing changes. dtype: MZ_F32, MZ_F16 or MZ_BF16.
 * all_gather:     all ranks receive a block's same values, those of its own node and its sender too.
 * reduce_scatter: each node's sum is packed once on its way to a rank on another node; a rank's own node's is not. */
mz_status mz_all_gather_quantized(mz_comm *comm, const mz_segment *segments, int n_segments, mz_dtype dtype,
                                  int bits, const char *label, mz_stream *stream);
mz_status mz_reduce_scatter_quantized(mz_comm *comm, const mz_segment *segments, int n_segments, mz_dtype dtype,
                                      mz_dtype recv_dtype, float scale, bool accumulate, int bits,
                                      const char *label, mz_stream *stream);
mz_status mz_barrier(mz_comm *comm, const char *label);

/* Collective. Memory that all-gathers send from again and again: on all ranks a block of as many bytes, which lies
 * there alike, that is, whatever one rank sends from or receives to in it, the others send from or receive to at the
 * same place of theirs. The GPUs of one node then copy it from each other, which waits for nobody: what a rank has
 * written there is seen by all-gathers behind its next mz_comm_publish, and is not written again before a collective
 * on host values that every rank enters when its own all-gathers have ended. Elsewhere, and where GPUs cannot read
 * each other's memory, nothing changes. Borrowed until mz_comm_forget, which is not collective and comes before the
 * memory is freed. comm may be NULL. */
mz_status mz_comm_share(mz_comm *comm, void *memory, size_t bytes);
/* Collective, stream-ordered. */
mz_status mz_comm_publish(mz_comm *comm, const char *label, mz_stream *stream);
void mz_comm_forget(mz_comm *comm, const void *memory);

/* Small sums and maxima of host values, blocking, within the deadline; values in place. n <= 64. */
mz_status mz_all_reduce_host(mz_comm *comm, double *values, int n, bool maximum, const char *label);

/* Traffic since creation, that of groups split from the comm included. */
typedef struct mz_comm_stats {
    int64_t n_calls;
    double bytes_in_node, bytes_between_nodes; /* that this rank sent */
    double seconds;                            /* inside collectives, on the worker */
} mz_comm_stats;
void mz_comm_get_stats(const mz_comm *comm, mz_comm_stats *stats);

/* For people: what this rank's messages to other nodes go over, as "eth0 (tcp)"; "" where there are none. */
void mz_comm_describe_rail(const mz_comm *comm, char *text, size_t bytes);

/* Test hook: this rank enters every collective that much later. */
void mz_comm_set_delay(mz_comm *comm, double seconds);

#endif
