/* The HDF5 side of a rank's file: groups, contiguous data sets at known places, attributes. The only caller of
 * HDF5. */
#ifndef MZ_CHECKPOINT_HDF5_FRAME_H
#define MZ_CHECKPOINT_HDF5_FRAME_H

#include "checkpoint/hdf5_memory.h"
#include "checkpoint/hdf5_patch.h"
#include "checkpoint/shard_file.h"

typedef struct mz_frame_run {
    const mz_shard *shard; /* borrowed */
    int64_t index;         /* of the shard in the source */
    uint32_t *crcs;        /* of its blocks */
    int64_t position;      /* out: byte of the file at which its data set begins */
} mz_frame_run;

struct mz_frame {
    mz_sparse memory; /* HDF5's structures, and holes where the runs' data belong */
    int64_t n_runs;
    int64_t *positions; /* of the runs */
    mz_hdf5_place *crcs, step;
    int64_t n_known; /* of crcs; n_runs with `step`: the next save needs no HDF5 */
};

/* Lays the file out in memory and sets the runs' positions. *frame: NULL, or that of the same runs' last save, of
 * which only the step and the CRCs are set anew; NULL after a failure. MZ_ERR_IO, MZ_ERR_MEMORY. */
mz_status mz_hdf5_frame_make(const mz_shard_file *file, mz_frame_run *runs, int64_t n_runs, mz_frame **frame);

#endif
