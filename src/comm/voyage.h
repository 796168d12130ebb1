/* A collective's way between nodes, cut into pieces: while one is worked on inside the node, the next are on the
 * wire. */
#ifndef MZ_COMM_VOYAGE_H
#define MZ_COMM_VOYAGE_H

#include "comm/cursor.h"
#include "comm/hier.h"

enum { MZ_VOYAGE_WINDOW = 2 }; /* pieces on their way at once */

/* A piece of the collective that is on its way. */
typedef struct mz_flight {
    mz_piece piece;
    mz_wire_request **requests; /* [2 * (n_nodes - 1)] */
    int n_requests;
    char *partial; /* [n_nodes][piece_bytes]: this node's sums for each node */
    char *inbox;   /* [n_nodes][piece_bytes]: other nodes' sums for this rank */
} mz_flight;

struct mz_hier {
    const mz_layout *layout;
    mz_node_transport *node; /* NULL: one rank per node */
    mz_wire_transport *wire; /* NULL: one node */
    size_t piece_bytes;      /* of one rank's block */
    mz_flight flights[MZ_VOYAGE_WINDOW];
    char *staging;              /* of the flights' partials and inboxes */
    mz_wire_request **requests; /* of the flights */
    mz_segment *node_segments;  /* [n_nodes] */
    const void **sources;       /* [n_nodes] */
};

/* What one collective does with a piece: start it on the wire, and finish it once it has landed. */
typedef struct mz_voyage {
    mz_hier *hier;
    const mz_op_info *op;
    size_t element;
    mz_dtype dtype, recv_dtype;
    float scale;
    bool accumulate;
    int root;
    mz_status (*depart)(const struct mz_voyage *voyage, mz_flight *flight);
    mz_status (*arrive)(const struct mz_voyage *voyage, mz_flight *flight);
} mz_voyage;

/* Takes all pieces of the segments through both stages. */
mz_status mz_voyage_run(const mz_voyage *voyage, const mz_segment *segments, int n);

/* The rank on node m of this rank's rail. */
int mz_rail_rank(const mz_hier *hier, int m);
/* Starts a message of the flight; waits for all of them. */
mz_status mz_flight_recv(mz_hier *hier, const mz_op_info *op, mz_flight *flight, int peer, void *data,
                         size_t bytes);
mz_status mz_flight_send(mz_hier *hier, const mz_op_info *op, mz_flight *flight, int peer, const void *data,
                         size_t bytes);
mz_status mz_flight_land(mz_hier *hier, const mz_op_info *op, mz_flight *flight);

#endif
