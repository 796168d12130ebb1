#include "checkpoint/hdf5_memory.h"

#include <string.h>

#if H5_VERSION_GE(1, 13, 0)
#include <H5FDdevelop.h>
#endif

#include "core/memory.h"

enum { PAGE = 65536 };

/* HDF5's handle of the open file. */
typedef struct handle {
    H5FD_t head; /* HDF5's own part, first */
    mz_sparse *sparse;
    haddr_t end; /* of what HDF5 has given out */
} handle;

/* The page of an address, made when it is a hole; NULL when there is no memory. */
static char *page_of(mz_sparse *sparse, size_t index)
{
    if (index >= sparse->n_pages) {
        const size_t n = index + 1 + index / 2;
        char **pages = mz_realloc(sparse->pages, n * sizeof *pages);
        if (!pages)
            return NULL;
        memset(pages + sparse->n_pages, 0, (n - sparse->n_pages) * sizeof *pages);
        sparse->pages = pages;
        sparse->n_pages = n;
    }
    if (!sparse->pages[index])
        sparse->pages[index] = mz_calloc(1, PAGE);
    return sparse->pages[index];
}

const char *mz_sparse_at(const mz_sparse *sparse, int64_t at, size_t *n)
{
    static const char zeros[PAGE];
    const size_t index = (size_t)at / PAGE, offset = (size_t)at % PAGE;
    if (*n > PAGE - offset)
        *n = PAGE - offset;
    return (index < sparse->n_pages && sparse->pages[index] ? sparse->pages[index] : zeros) + offset;
}

const char *mz_sparse_next(const mz_sparse *sparse, int64_t *at, size_t *n)
{
    const int64_t end = *at + (int64_t)*n;
    while (*at < end) {
        const size_t index = (size_t)*at / PAGE;
        *n = (size_t)(end - *at);
        if (index < sparse->n_pages && sparse->pages[index])
            return mz_sparse_at(sparse, *at, n);
        *at = ((int64_t)index + 1) * PAGE;
    }
    *at = end;
    *n = 0;
    return NULL;
}

void mz_sparse_read(const mz_sparse *sparse, int64_t at, void *bytes, size_t n)
{
    for (char *out = bytes; n;) {
        size_t part = n;
        const char *in = mz_sparse_at(sparse, at, &part); /* which sets part: not within the call that reads it */
        memcpy(out, in, part);
        out += part;
        at += (int64_t)part;
        n -= part;
    }
}

bool mz_sparse_write(mz_sparse *sparse, int64_t at, const void *bytes, size_t n)
{
    for (const char *in = bytes; n;) {
        const size_t offset = (size_t)at % PAGE, part = n < PAGE - offset ? n : PAGE - offset;
        char *page = page_of(sparse, (size_t)at / PAGE);
        if (!page)
            return false;
        memcpy(page + offset, in, part);
        in += part;
        at += (int64_t)part;
        n -= part;
    }
    return true;
}

void mz_sparse_free(mz_sparse *sparse)
{
    for (size_t i = 0; i < sparse->n_pages; i++)
        mz_free(sparse->pages[i]);
    mz_free(sparse->pages);
    *sparse = (mz_sparse){0};
}

/* ---- the driver ---- */

static H5FD_t *open_file(const char *name, unsigned flags, hid_t access, haddr_t max_address)
{
    (void)name, (void)flags, (void)max_address;
    mz_sparse *const *info = H5Pget_driver_info(access);
    if (!info)
        return NULL;
    handle *file = mz_calloc(1, sizeof *file);
    (*info)->failed = !file;
    if (!file)
        return NULL;
    file->sparse = *info;
    return &file->head;
}

static herr_t close_file(H5FD_t *head)
{
    handle *file = (handle *)head;
    file->sparse->bytes = (int64_t)file->end;
    mz_free(file);
    return 0;
}

static herr_t query(const H5FD_t *head, unsigned long *flags)
{
    (void)head;
    *flags = H5FD_FEAT_AGGREGATE_METADATA | H5FD_FEAT_ACCUMULATE_METADATA;
    return 0;
}

static haddr_t get_end(const H5FD_t *head, H5FD_mem_t type)
{
    (void)type;
    return ((const handle *)head)->end;
}

static herr_t set_end(H5FD_t *head, H5FD_mem_t type, haddr_t end)
{
    (void)type;
    ((handle *)head)->end = end;
    return 0;
}

static herr_t read_bytes(H5FD_t *head, H5FD_mem_t type, hid_t transfer, haddr_t at, size_t bytes, void *buffer)
{
    (void)type, (void)transfer;
    mz_sparse_read(((handle *)head)->sparse, (int64_t)at, buffer, bytes);
    return 0;
}

/* No memory is remembered, not returned: HDF5 does not recover from a failed write. */
static herr_t write_bytes(H5FD_t *head, H5FD_mem_t type, hid_t transfer, haddr_t at, size_t bytes,
                          const void *buffer)
{
    (void)type, (void)transfer;
    mz_sparse *sparse = ((handle *)head)->sparse;
    if (!sparse->failed)
        sparse->failed = !mz_sparse_write(sparse, (int64_t)at, buffer, bytes);
    return 0;
}

static const H5FD_class_t driver = {
#if H5_VERSION_GE(1, 13, 0)
    .version = H5FD_CLASS_VERSION,
    .value = (H5FD_class_value_t)600,
#endif
    .name = "mpizero-memory",
    .maxaddr = (haddr_t)INT64_MAX,
    .fc_degree = H5F_CLOSE_WEAK,
    .fapl_size = sizeof(mz_sparse *),
    .open = open_file,
    .close = close_file,
    .query = query,
    .get_eoa = get_end,
    .set_eoa = set_end,
    .get_eof = get_end,
    .read = read_bytes,
    .write = write_bytes,
    .fl_map = H5FD_FLMAP_DICHOTOMY,
};

hid_t mz_sparse_driver(hid_t access, mz_sparse *sparse)
{
    const hid_t id = H5FDregister(&driver);
    if (id >= 0 && H5Pset_driver(access, id, &sparse) >= 0)
        return id;
    if (id >= 0)
        H5FDunregister(id);
    return -1;
}
