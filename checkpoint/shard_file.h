/* One rank's file of a checkpoint. HDF5 lays it out in memory (hdf5_frame.h): a contiguous data set for each run,
 * with attributes. Layout and data then go straight to their places with plain writes, so that HDF5 costs neither a
 * copy nor a lock while gigabytes move, and a full disk is an error like any other. */
#ifndef MZ_CHECKPOINT_SHARD_FILE_H
#define MZ_CHECKPOINT_SHARD_FILE_H

#include "zero/zero.h"

/* Elements from one shard's values to the next one's in a snapshot: whole pages, so that a snapshot that begins at
 * a page can go to the disk past the system's cache. */
static inline int64_t mz_snapshot_room(int64_t count)
{
    return (count + 1023) / 1024 * 1024;
}

typedef struct mz_shard_file {
    const char *path, *name; /* where to write; how the manifest calls it */
    const mz_shard *shards;  /* their `data` are not used; those with count 0 are left out */
    int64_t n_shards;
    const float *values; /* of all shards, in host memory; each takes mz_snapshot_room(count) elements */
    int64_t step;
    int rank, size;
    double rate_bytes_per_second; /* 0: unlimited */
} mz_shard_file;

/* Writes and syncs the file. *description: its object for the manifest (JSON text, owned by the caller); *bytes its
 * size. MZ_ERR_IO names the file and the system's reason. The file stays on failure: the caller removes the folder.
 */
mz_status mz_shard_file_write(const mz_shard_file *file, char **description, int64_t *bytes);

#endif
