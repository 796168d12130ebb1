/* A comm of ranks that are not there: its collectives move nothing and take, on a meta device's streams, the time
 * that measured rates of the links say. For planning a step on a cluster.
 *
 * The model is that of latency and bandwidth (Hockney 1994), put together as hier.h puts the collectives together.
 * A whole of S bytes over M nodes of L ranks: inside a node   a + S (L - 1) / (L B)            a, B: inner latency
 * and bus bandwidth between nodes   the rank's block is cut into pieces, and a piece goes to M - 1 nodes in as many
 * legs, of which MZ_LEG_WINDOW are under way at once and each has the node's link for L rails to share: A + t +
 * (legs - 1) max(t, A / window), t = leg bytes * L / outer bandwidth; A: outer latency both            the longer
 * of the two, and one piece of the shorter, which the other cannot hide An all-reduce is a reduce-scatter and an
 * all-gather; a broadcast leaves the root by its rail, M - 1 times. */
#ifndef MZ_COMM_PREDICTED_H
#define MZ_COMM_PREDICTED_H

#include "comm/issue.h"

typedef struct mz_links {
    double inner_bandwidth; /* bytes per second: bus bandwidth of collectives inside a node */
    double inner_latency;   /* seconds of one that has next to no bytes */
    double outer_bandwidth; /* bytes per second that enter a node, and as many leave it, over all its rails */
    double outer_latency;   /* seconds of a message between nodes that has next to no bytes */
} mz_links;

/* Not collective. links is copied; a bandwidth of 0 has no limit. This rank is rank 0 of n_nodes * per_node. */
mz_status mz_comm_create_predicted(mz_device *meta, int n_nodes, int per_node, const mz_links *links,
                                   mz_comm **comm);

/* Seconds of a collective over whole buffers of so many bytes. */
double mz_links_seconds(const mz_links *links, mz_collective_kind kind, int n_nodes, int per_node, double bytes);

/* Bytes that each rank sends, on average: inside its node and to others. */
void mz_links_bytes(mz_collective_kind kind, int n_nodes, int per_node, double bytes, double *in_node,
                    double *between_nodes);

/* For comm.c: the group of rank 0, of `count` ranks with `step` between them. Where a node's ranks are in several
 * groups, each of these has its part of the node's link, since all talk at the same time. */
mz_status mz_comm_split_predicted(const mz_comm *comm, int count, int step, mz_comm **group);

/* For collectives.c: what = one on `comm`, which is a predicted one. */
mz_status mz_comm_predict(mz_comm *comm, const mz_collective *what, mz_stream *stream);

#endif
