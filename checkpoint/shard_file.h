/* One rank's file of a checkpoint. HDF5 lays it out in memory (hdf5_frame.h): a contiguous data set for each run,
 * with attributes. Layout and data then go to the disk front to back (gather.h), so that HDF5 costs neither a copy
 * nor a lock while gigabytes move, and a full disk is an error like any other. */
#ifndef MZ_CHECKPOINT_SHARD_FILE_H
#define MZ_CHECKPOINT_SHARD_FILE_H

#include "checkpoint/shard_source.h"

typedef struct mz_frame mz_frame; /* what HDF5 makes around the data */
void mz_frame_destroy(mz_frame *frame);

typedef struct mz_shard_file {
    const char *path, *name; /* where to write; how the manifest calls it */
    mz_shard_source *source; /* shards with count 0 are left out */
    const uint32_t *crcs;    /* of the shards' blocks, one shard after the other; NULL: they are worked out here */
    mz_frame **frame; /* kept from one save of these shards to the next; NULL in it before the first */
    int64_t step;
    int rank, size;
    double rate_bytes_per_second; /* 0: unlimited */
} mz_shard_file;

/* Writes and syncs the file. *description: its object for the manifest (JSON text, owned by the caller); *bytes its
 * size. MZ_ERR_IO names the file and the system's reason. The file stays on failure: the caller removes the folder.
 */
mz_status mz_shard_file_write(const mz_shard_file *file, char **description, int64_t *bytes);

#endif
