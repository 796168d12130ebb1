/* A file of known length that is written front to back out of pieces from anywhere: whole pages straight from where
 * they lie, past the system's cache where the file system can do that, everything else by way of a buffer; and all
 * that in few system calls of many megabytes. */
#ifndef MZ_CHECKPOINT_GATHER_H
#define MZ_CHECKPOINT_GATHER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mpizero/status.h"

typedef struct mz_gather mz_gather;

/* Creates the file and takes its room on the disk, so that a full disk is found before gigabytes are written.
 * path: borrowed. MZ_ERR_IO names the file, here and below. */
mz_status mz_gather_create(const char *path, int64_t bytes, mz_gather **gather);
/* Closes the file, whatever has become of it. */
void mz_gather_destroy(mz_gather *gather);

/* Takes up to `bytes` of `data` as what comes next; returns how many. 0: mz_gather_write is due first. The data
 * must stay until then. */
size_t mz_gather_take(mz_gather *gather, const void *data, size_t bytes);
/* True when a write is worth its call. */
bool mz_gather_full(const mz_gather *gather);
/* Writes what has been taken, but for the last bytes that fill no page: they are in the buffer. */
mz_status mz_gather_write(mz_gather *gather);
/* Writes the rest and syncs. Nothing may be taken after it. */
mz_status mz_gather_finish(mz_gather *gather);

#endif
