/* The collectives of hier.h where nodes have unequally many ranks of the comm (layout->uneven).
 *
 * There are no rails then: every rank may talk to every other. A block that goes to a node is cut into as many
 * parts as the node has ranks, one for each, and the ranks put it together inside; a node's sum of a block is
 * formed by all its ranks, each a part, which they send to the block's owner. So a block or a sum still enters a
 * node once, but for a part being up to a rank's number of elements longer than its share: parts overlap rather
 * than leave a rest. */
#ifndef MZ_COMM_UNEVEN_H
#define MZ_COMM_UNEVEN_H

#include "comm/voyage.h"

mz_status mz_uneven_all_gather(mz_hier *hier, const mz_op_info *op, const mz_segment *segments, int n,
                               mz_dtype dtype);
mz_status mz_uneven_reduce_scatter(mz_hier *hier, const mz_op_info *op, const mz_segment *segments, int n,
                                   mz_dtype dtype, mz_dtype recv_dtype, float scale, bool accumulate);
mz_status mz_uneven_broadcast(mz_hier *hier, const mz_op_info *op, const mz_segment *segments, int n,
                              mz_dtype dtype, int root);

#endif
