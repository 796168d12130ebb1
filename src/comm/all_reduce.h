/* All-reduce, composed from the other collectives: what divides evenly by reduce-scatter and all-gather, small
 * counts and remainders by gathering everybody's values and adding them up on each rank, in the order of ranks. */
#ifndef MZ_COMM_ALL_REDUCE_H
#define MZ_COMM_ALL_REDUCE_H

#include "comm/hier.h"

typedef struct mz_all_reduce_plan {
    int rank, size;
    int64_t block_bytes;  /* of each rank in `gathered`, what is gathered at a time */
    char *gathered;       /* [size][block_bytes] */
    const void **sources; /* [size] */
} mz_all_reduce_plan;

mz_status mz_all_reduce_plan_create(int rank, int size, mz_all_reduce_plan *plan);
void mz_all_reduce_plan_free(mz_all_reduce_plan *plan);

/* work: room for 2 * n segments. Otherwise as mz_all_reduce of comm.h. */
mz_status mz_hier_all_reduce(mz_hier *hier, const mz_all_reduce_plan *plan, const mz_op_info *op,
                             const mz_segment *segments, int n, mz_dtype dtype, float scale, mz_segment *work);

#endif
