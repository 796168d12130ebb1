/* A collective's way between nodes, cut into pieces, and each piece into legs: in leg k a rank sends to the k-th
 * node after its own and receives from the k-th before it. So every link carries one peer's data in each direction
 * at a time, in the same order everywhere, and no node is flooded by all others at once. A few legs are on the wire
 * together, which hides what it takes to start and finish them, and the work inside the nodes. */
#ifndef MZ_COMM_VOYAGE_H
#define MZ_COMM_VOYAGE_H

#include "comm/cursor.h"
#include "comm/hier.h"

enum {
    MZ_VOYAGE_WINDOW = 3, /* pieces on their way at once */
    MZ_LEG_WINDOW = 8     /* legs on the wire at once */
};

/* A piece of the collective that is on its way. */
typedef struct mz_flight {
    mz_piece piece;
    char *partial; /* [n_nodes][piece_bytes]: this node's sums for each node */
    char *inbox;   /* [n_nodes][piece_bytes]: other nodes' sums for this rank */
} mz_flight;

/* A leg on the wire: a message in each direction, or one, or none; with uneven nodes one for each rank there. */
typedef struct mz_leg {
    mz_flight *flight;
    int k;
    mz_wire_request *requests[2 * MZ_UNEVEN_RANKS];
    int n_requests;
} mz_leg;

struct mz_hier {
    const mz_layout *layout;
    mz_node_transport *node; /* NULL: one rank per node */
    mz_wire_transport *wire; /* NULL: one node */
    size_t piece_bytes;      /* of one rank's block */
    mz_flight flights[MZ_VOYAGE_WINDOW];
    mz_leg legs[MZ_LEG_WINDOW];
    char *staging;             /* of the flights' partials and inboxes */
    char *sums;                /* [n_nodes][piece_bytes]: not packed yet, or not any more */
    mz_segment *node_segments; /* [n_nodes] */
    const void **sources;      /* [n_nodes] */
};

/* What one collective does with a piece: begin to make it ready as soon as there is room for it, see that it is,
 * exchange it leg by leg, and finish it once all has landed. */
typedef struct mz_voyage {
    mz_hier *hier;
    const mz_uneven *uneven; /* the legs go by these nodes, and messages to any rank; NULL: by rails */
    const mz_op_info *op;
    size_t element;
    mz_dtype dtype, recv_dtype;
    float scale;
    bool accumulate;
    int root;
    int bits; /* of an element between nodes, by blocks; 0: as dtype has it */
    mz_status (*load)(const struct mz_voyage *voyage, mz_flight *flight);   /* does not wait; NULL: nothing to do */
    mz_status (*depart)(const struct mz_voyage *voyage, mz_flight *flight); /* NULL: it is ready as it is */
    /* to, from: the nodes of leg k */
    mz_status (*exchange)(const struct mz_voyage *voyage, mz_leg *leg, int to, int from);
    mz_status (*arrive)(const struct mz_voyage *voyage, mz_flight *flight);
} mz_voyage;

/* Takes all pieces of the segments through all stages. */
mz_status mz_voyage_run(const mz_voyage *voyage, const mz_segment *segments, int n);

/* The parts inside the node of an all-gather, once the rail's blocks are in place, and of a reduce-scatter, which needs
 * hier->node: its sums for this rank go to `partial`, those for ranks on other nodes to others[n_nodes][piece_bytes],
 * which may be `partial`, too. */
mz_status mz_voyage_spread(const mz_voyage *voyage, mz_flight *flight);
mz_status mz_voyage_add_up(const mz_voyage *voyage, mz_flight *flight, char *others);

/* Collective over `group`: opens hier->wire, of which hier->layout tells the ranks. wire: world->wire. */
mz_status mz_hier_open_wire(mz_hier *hier, MPI_Comm group, const char *wire, bool spin);

/* The rank on node m of this rank's rail. */
int mz_rail_rank(const mz_hier *hier, int m);
/* Starts a message of the leg to or from the rail's rank on node m (with uneven nodes: comm rank m); waits for all
 * of them. */
mz_status mz_leg_recv(mz_hier *hier, const mz_op_info *op, mz_leg *leg, int m, void *data, size_t bytes);
mz_status mz_leg_send(mz_hier *hier, const mz_op_info *op, mz_leg *leg, int m, const void *data, size_t bytes);
mz_status mz_leg_land(mz_hier *hier, const mz_op_info *op, mz_leg *leg);

#endif
