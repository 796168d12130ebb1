/* New values in a file's structures that HDF5 has laid out already. From save to save only the step and the CRCs
 * change: putting them in place costs a hundredth of laying the file out again, which matters beside training.
 *
 * HDF5 File Format Specification 3.0: IV.A.1.b (version 2 object headers), IV.A.2.i, m and q (messages of a data
 * set's place, of attributes and of continuation blocks). Each block ends with a checksum, which is how it is known
 * that it was understood; where anything is not as expected the file is laid out anew each time. */
#ifndef MZ_CHECKPOINT_HDF5_PATCH_H
#define MZ_CHECKPOINT_HDF5_PATCH_H

#include <stdbool.h>

#include "checkpoint/hdf5_memory.h"

/* Where an attribute's values lie. */
typedef struct mz_hdf5_place {
    int64_t block;    /* byte of the file at which the block of the header begins */
    int32_t n_block;  /* its bytes, the checksum included */
    int32_t at, room; /* of the values, in the block; bytes */
} mz_hdf5_place;

/* What one object header holds of interest. */
typedef struct mz_hdf5_header {
    int64_t data;               /* where its data set's values begin; -1: it is none, or none in one piece */
    mz_hdf5_place crc32c, step; /* attributes of these names; n_block 0: it has none */
} mz_hdf5_header;

typedef void (*mz_hdf5_header_fn)(void *context, const mz_hdf5_header *header);

/* Calls `found` with each object header of the file. MZ_ERR_MEMORY. */
mz_status mz_hdf5_headers(const mz_sparse *memory, mz_hdf5_header_fn found, void *context);

/* Puts `bytes` of values in place and sets the block's checksum. MZ_ERR_MEMORY. */
mz_status mz_hdf5_patch(mz_sparse *memory, const mz_hdf5_place *place, const void *values, size_t bytes);

#endif
