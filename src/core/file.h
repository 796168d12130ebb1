/* Files: whole reads, checksums, and writes that a crash cannot tear. */
#ifndef MZ_CORE_FILE_H
#define MZ_CORE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mpizero/status.h"

/* Reads a whole file into new memory with a '\0' after it; *data owned by the caller. */
mz_status mz_file_read(const char *path, char **data, size_t *bytes);

/* A read-only map of a file. Zero-length files give data == NULL, bytes == 0. */
typedef struct mz_file_map {
    const uint8_t *data;
    size_t bytes;
} mz_file_map;
mz_status mz_file_map_open(const char *path, mz_file_map *map);
void mz_file_map_close(mz_file_map *map);

/* Durable replacement: writes PATH.tmp, syncs it, renames it to PATH and syncs the directory. */
mz_status mz_file_write_atomic(const char *path, const void *data, size_t bytes);

mz_status mz_file_sync(const char *path);          /* fsync of a closed file */
mz_status mz_file_sync_parent(const char *path);   /* fsync of the directory that holds it */
mz_status mz_file_rename(const char *from, const char *to); /* rename, then sync the directory */
mz_status mz_make_directories(const char *path);   /* mkdir -p */
mz_status mz_remove_tree(const char *path);        /* rm -rf; a missing path is success */
bool mz_path_exists(const char *path);
char *mz_path_join(const char *directory, const char *name); /* owned by the caller */

/* CRC-32C (Castagnoli), as iSCSI and ext4 use it; start with 0, feed pieces in order. Hardware
 * instructions where the processor has them. */
uint32_t mz_crc32c(uint32_t crc, const void *data, size_t bytes);

#endif
