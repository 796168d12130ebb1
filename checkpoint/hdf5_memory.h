/* A driver by which HDF5 writes a file with holes into memory instead of a disk. HDF5 cannot be trusted with a full
 * disk (a file whose close fails is closed again at exit, where the library crashes), and its own memory driver has
 * no holes: it would hold the data of all tensors. */
#ifndef MZ_CHECKPOINT_HDF5_MEMORY_H
#define MZ_CHECKPOINT_HDF5_MEMORY_H

#include <hdf5.h>
#include <stdbool.h>

#include "mpizero/status.h"

typedef struct mz_sparse {
    char **pages; /* NULL: a hole */
    size_t n_pages;
    int64_t bytes; /* length of the file */
    bool failed;   /* there was no memory for a page: the content is not to be used */
} mz_sparse;

/* Makes files that are opened with `access` go to `sparse` (zeroed; outlives the file). The driver's identifier is
 * closed by the caller with H5FDunregister after the file; < 0: failed. */
hid_t mz_sparse_driver(hid_t access, mz_sparse *sparse);
void mz_sparse_free(mz_sparse *sparse);

/* The longest run of bytes in one piece from `at` on, at most *n; *n becomes its length. Holes read as zeros. */
const char *mz_sparse_at(const mz_sparse *sparse, int64_t at, size_t *n);
/* The same of what is no hole, from `*at` on, which moves there; NULL: nothing but holes is left, *n of them. */
const char *mz_sparse_next(const mz_sparse *sparse, int64_t *at, size_t *n);
/* Any bytes. write: false when there is no memory for a page. */
void mz_sparse_read(const mz_sparse *sparse, int64_t at, void *bytes, size_t n);
bool mz_sparse_write(mz_sparse *sparse, int64_t at, const void *bytes, size_t n);

#endif
