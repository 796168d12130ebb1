/* Where the ranks of a comm sit: a table of nodes times ranks per node.
 *
 * Where every node has equally many ranks of the comm, evenly spaced in rank order, the collectives use both levels
 * by rails. Otherwise (three ranks on one node and one on another) each rank counts as a node of its own, and what
 * the nodes really are stands in `uneven`, as long as the ranks of each are evenly spaced. */
#ifndef MZ_COMM_LAYOUT_H
#define MZ_COMM_LAYOUT_H

#include "comm/comm.h"

enum { MZ_UNEVEN_RANKS = 32 }; /* of a node at most */

typedef struct mz_uneven {
    int n_nodes;
    int node, local;           /* mine */
    int *first, *step, *count; /* [n_nodes] local rank l is comm rank first + l * step */
    int *node_ranks;           /* [count[node]] world ranks of my node */
    int most;                  /* ranks of a node */
} mz_uneven;

typedef struct mz_layout {
    struct mz_board *board; /* the world's, borrowed */
    int rank, size;         /* mine, in the comm */
    int *world_ranks;       /* [size] for messages */
    int n_nodes, per_node;
    int node, local; /* mine */
    int *first;      /* [n_nodes] comm rank of a node's first rank; local rank l is first + l * step */
    int *node_ranks; /* [per_node] world ranks of my node */
    int step;
    mz_uneven *uneven; /* NULL: the table above is how the ranks sit, or they sit too oddly */
} mz_layout;

/* Not collective. members: the world ranks of the comm, copied. *layout is to be freed also after an error. */
mz_status mz_layout_find(const mz_world *world, const int *members, int size, mz_layout *layout);
void mz_layout_free(mz_layout *layout);

static inline int mz_layout_rank(const mz_layout *layout, int node, int local)
{
    return layout->first[node] + local * layout->step;
}

#endif
