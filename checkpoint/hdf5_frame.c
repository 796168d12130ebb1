#include "checkpoint/hdf5_frame.h"

#include <hdf5.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint/manifest.h"
#include "core/error.h"
#include "core/memory.h"

/* HDF5 as distributions build it is not thread-safe; two writers of one process take turns. */
static pthread_mutex_t hdf5_lock = PTHREAD_MUTEX_INITIALIZER;

/* The innermost entry of HDF5's error stack has the system's reason. */
static herr_t keep_reason(unsigned depth, const H5E_error2_t *entry, void *reason)
{
    if (depth == 0 && entry->desc)
        snprintf(reason, 512, "%s", entry->desc);
    return 0;
}

static mz_status hdf5_fail(const char *path, const char *what)
{
    char reason[512] = "HDF5 gives no reason";
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_reason, reason);
    return mz_fail(MZ_ERR_IO, "%s: cannot write %s: %s", path, what, reason);
}

static bool put_attribute(hid_t object, const char *name, hid_t type, const void *values, hsize_t n)
{
    hid_t space = n ? H5Screate_simple(1, &n, NULL) : H5Screate(H5S_NULL), attribute = -1;
    bool good = space >= 0 && (attribute = H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT)) >= 0 &&
                (!n || H5Awrite(attribute, type, values) >= 0);
    if (attribute >= 0)
        good = H5Aclose(attribute) >= 0 && good;
    if (space >= 0)
        H5Sclose(space);
    return good;
}

static bool put_integer(hid_t object, const char *name, int64_t value)
{
    return put_attribute(object, name, H5T_STD_I64LE, &value, 1);
}

static bool put_text(hid_t object, const char *name, const char *text)
{
    hid_t type = H5Tcopy(H5T_C_S1);
    bool good = type >= 0 && H5Tset_size(type, strlen(text)) >= 0 && put_attribute(object, name, type, text, 1);
    if (type >= 0)
        H5Tclose(type);
    return good;
}

/* /KIND/TENSOR/OFFSET. HDF5 splits names at '/' and knows "."; both are escaped as in addresses of the web. */
static char *data_set_path(const mz_shard *shard)
{
    char *name = mz_alloc(3 * strlen(shard->name) + 1), *out = name;
    if (!name)
        return NULL;
    const bool only_dots = shard->name[strspn(shard->name, ".")] == '\0';
    for (const char *p = shard->name; *p; p++) {
        if (*p == '/' || *p == '%' || (*p == '.' && only_dots))
            out += sprintf(out, "%%%02X", (unsigned)*p);
        else
            *out++ = *p;
    }
    *out = '\0';
    char *path = mz_strprintf("/%s/%s/%lld", mz_shard_kind_name(shard->kind), name, (long long)shard->offset);
    mz_free(name);
    return path;
}

static bool describe_data_set(hid_t set, const mz_frame_run *run)
{
    const mz_shard *shard = run->shard;
    return put_attribute(set, "shape", H5T_STD_I64LE, shard->shape, (hsize_t)shard->n_dims) &&
           put_integer(set, "offset", shard->offset) && put_integer(set, "count", shard->count) &&
           put_text(set, "dtype", mz_dtype_name(shard->dtype)) &&
           put_integer(set, "crc32c_block", mz_run_block(shard->count)) &&
           put_attribute(set, "crc32c", H5T_STD_U32LE, run->crcs, (hsize_t)mz_run_n_blocks(shard->count));
}

static mz_status make_data_set(const char *path, hid_t file, hid_t links, hid_t layout, mz_frame_run *run)
{
    const hsize_t count = (hsize_t)run->shard->count;
    const hid_t type = run->shard->dtype == MZ_F32 ? H5T_IEEE_F32LE : H5T_STD_U16LE; /* HDF5 knows no bf16 */
    char *name = data_set_path(run->shard);
    if (!name)
        return MZ_ERR_MEMORY;
    hid_t space = H5Screate_simple(1, &count, NULL), set = -1;
    haddr_t position = HADDR_UNDEF;
    bool good = space >= 0 && (set = H5Dcreate2(file, name, type, space, links, layout, H5P_DEFAULT)) >= 0 &&
                describe_data_set(set, run) && (position = H5Dget_offset(set)) != HADDR_UNDEF;
    run->position = (int64_t)position;
    if (set >= 0)
        good = H5Dclose(set) >= 0 && good;
    mz_status status = good ? MZ_OK : hdf5_fail(path, name);
    if (space >= 0)
        H5Sclose(space);
    mz_free(name);
    return status;
}

/* Checksummed structures that any HDF5 from 1.10 on reads, large data at pages, no locks on network file systems.
 */
static hid_t file_access(void)
{
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    if (access < 0)
        return access;
    bool good = H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110) >= 0 &&
                H5Pset_alignment(access, 4096, 4096) >= 0 && H5Pset_meta_block_size(access, 65536) >= 0 &&
                H5Pset_fclose_degree(access, H5F_CLOSE_STRONG) >= 0;
    if (good)
        return access;
    H5Pclose(access);
    return -1;
}

static mz_status fill(const mz_shard_file *file, hid_t h5, mz_frame_run *runs, int64_t n_runs)
{
    mz_status status = MZ_OK;
    hid_t links = H5Pcreate(H5P_LINK_CREATE), layout = H5Pcreate(H5P_DATASET_CREATE);
    if (links < 0 || layout < 0 || H5Pset_create_intermediate_group(links, 1) < 0 ||
        H5Pset_layout(layout, H5D_CONTIGUOUS) < 0 || H5Pset_alloc_time(layout, H5D_ALLOC_TIME_EARLY) < 0 ||
        H5Pset_fill_time(layout, H5D_FILL_TIME_NEVER) < 0)
        status = hdf5_fail(file->path, "property lists");
    if (!status && !(put_integer(h5, "step", file->step) && put_integer(h5, "rank", file->rank) &&
                     put_integer(h5, "world_size", file->size)))
        status = hdf5_fail(file->path, "attributes");
    for (int64_t i = 0; i < n_runs && !status; i++)
        status = make_data_set(file->path, h5, links, layout, &runs[i]);
    if (links >= 0)
        H5Pclose(links);
    if (layout >= 0)
        H5Pclose(layout);
    return status;
}

static mz_status make_frame(const mz_shard_file *file, mz_frame_run *runs, int64_t n_runs, mz_sparse *memory)
{
    mz_status status = MZ_OK;
    hid_t h5 = -1, access = file_access(), driver = access < 0 ? -1 : mz_sparse_driver(access, memory);
    if (driver >= 0)
        h5 = H5Fcreate(file->name, H5F_ACC_TRUNC, H5P_DEFAULT, access);
    status = h5 < 0 ? hdf5_fail(file->path, "a new file") : fill(file, h5, runs, n_runs);
    if (h5 >= 0 && H5Fclose(h5) < 0 && !status)
        status = hdf5_fail(file->path, "the end of the file");
    if (driver >= 0)
        H5FDunregister(driver);
    if (access >= 0)
        H5Pclose(access);
    if (memory->failed)
        status = mz_fail(MZ_ERR_MEMORY, "%s: no memory to lay it out", file->path);
    return status;
}

static mz_status lay_out(const mz_shard_file *file, mz_frame_run *runs, int64_t n_runs, mz_sparse *memory)
{
    H5E_auto2_t printer = NULL;
    void *printer_data = NULL;
    pthread_mutex_lock(&hdf5_lock);
    H5Eget_auto2(H5E_DEFAULT, &printer, &printer_data);
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    mz_status status = make_frame(file, runs, n_runs, memory);
    H5Eset_auto2(H5E_DEFAULT, printer, printer_data);
    pthread_mutex_unlock(&hdf5_lock);
    return status;
}

/* ---- the next save ---- */

typedef struct known {
    int64_t position, run, n_crcs;
} known;

typedef struct study {
    mz_frame *frame;
    known *runs; /* by position */
} study;

static int compare_known(const void *a, const void *b)
{
    const known *x = a, *y = b;
    return (x->position > y->position) - (x->position < y->position);
}

static void note_header(void *context, const mz_hdf5_header *header)
{
    const study *s = context;
    const known key = {.position = header->data};
    const known *run =
        header->data < 0 ? NULL : bsearch(&key, s->runs, (size_t)s->frame->n_runs, sizeof key, compare_known);
    if (run && header->crc32c.n_block && header->crc32c.room == run->n_crcs * (int64_t)sizeof(uint32_t)) {
        s->frame->crcs[run->run] = header->crc32c;
        s->frame->n_known++;
    }
    if (header->data < 0 && header->step.n_block && header->step.room == sizeof(int64_t))
        s->frame->step = header->step;
}

/* Finds what changes from save to save. */
static mz_status study_frame(mz_frame *frame, const mz_frame_run *runs, int64_t n_runs)
{
    study s = {.frame = frame, .runs = mz_calloc((size_t)n_runs + 1, sizeof *s.runs)};
    frame->n_runs = n_runs;
    frame->positions = mz_calloc((size_t)n_runs + 1, sizeof *frame->positions);
    frame->crcs = mz_calloc((size_t)n_runs + 1, sizeof *frame->crcs);
    mz_status status = s.runs && frame->positions && frame->crcs ? MZ_OK : MZ_ERR_MEMORY;
    for (int64_t i = 0; i < n_runs && !status; i++) {
        frame->positions[i] = runs[i].position;
        s.runs[i] = (known){runs[i].position, i, mz_run_n_blocks(runs[i].shard->count)};
    }
    if (!status) {
        qsort(s.runs, (size_t)n_runs, sizeof *s.runs, compare_known);
        status = mz_hdf5_headers(&frame->memory, note_header, &s);
    }
    mz_free(s.runs);
    return status;
}

/* HDF5 keeps numbers as it was told to: little-endian. */
static void put_little_endian(uint8_t *to, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++)
        to[i] = (uint8_t)(value >> 8 * i);
}

static mz_status patch_frame(mz_frame *frame, int64_t step, mz_frame_run *runs)
{
    uint8_t values[MZ_RUN_MOST_BLOCKS * sizeof(uint32_t)];
    put_little_endian(values, (uint64_t)step, sizeof step);
    mz_status status = mz_hdf5_patch(&frame->memory, &frame->step, values, sizeof step);
    for (int64_t i = 0; i < frame->n_runs && !status; i++) {
        const int64_t n = mz_run_n_blocks(runs[i].shard->count);
        for (int64_t b = 0; b < n; b++)
            put_little_endian(values + b * 4, runs[i].crcs[b], 4);
        status = mz_hdf5_patch(&frame->memory, &frame->crcs[i], values, (size_t)n * sizeof(uint32_t));
        runs[i].position = frame->positions[i];
    }
    return status;
}

void mz_frame_destroy(mz_frame *frame)
{
    if (!frame)
        return;
    mz_sparse_free(&frame->memory);
    mz_free(frame->positions);
    mz_free(frame->crcs);
    mz_free(frame);
}

mz_status mz_hdf5_frame_make(const mz_shard_file *file, mz_frame_run *runs, int64_t n_runs, mz_frame **frame)
{
    mz_frame *f = *frame;
    mz_status status = MZ_OK;
    if (f && f->n_runs == n_runs && f->n_known == n_runs && f->step.n_block) {
        status = patch_frame(f, file->step, runs);
    } else {
        mz_frame_destroy(f);
        f = mz_calloc(1, sizeof *f);
        status = f ? lay_out(file, runs, n_runs, &f->memory) : MZ_ERR_MEMORY;
        if (!status)
            status = study_frame(f, runs, n_runs);
    }
    if (status)
        mz_frame_destroy(f);
    *frame = status ? NULL : f;
    return status;
}
