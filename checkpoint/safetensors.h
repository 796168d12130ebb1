/* Hugging Face's safetensors files: an 8-byte little-endian header length, a JSON header
 * {"name": {"dtype", "shape", "data_offsets"}, "__metadata__"}, then the data. */
#ifndef MZ_SAFETENSORS_H
#define MZ_SAFETENSORS_H

#include <stdbool.h>
#include <stdint.h>

#include "mpizero/dtype.h"
#include "mpizero/status.h"
#include "mpizero/tensor.h"

typedef struct mz_weights mz_weights;

typedef struct mz_weights_tensor {
    const char *name;
    mz_dtype dtype;         /* MZ_N_DTYPES: an integer or boolean kind that mpizero does not compute with */
    const char *dtype_name; /* as the file spells it: "BF16", "BOOL" */
    int n_dims;
    int64_t shape[MZ_MAX_DIMS], numel;
    const void *data; /* mapped file; aligned to bytes only */
} mz_weights_tensor;

/* Opens FOLDER/model.safetensors, or the files that FOLDER/model.safetensors.index.json names. `folder` may also be
 * one .safetensors file. Every header is checked: bounds, overlaps, sizes against dtype and shape, truncation. Not
 * collective. Errors name file, tensor, expected and found. A folder with only pytorch_model.bin is MZ_ERR_MODEL,
 * with the way to convert it. */
mz_status mz_weights_open(const char *folder, mz_weights **weights);
void mz_weights_close(mz_weights *weights);
int mz_weights_n_tensors(const mz_weights *weights);
const mz_weights_tensor *mz_weights_at(const mz_weights *weights, int i);              /* in order of names */
const mz_weights_tensor *mz_weights_find(const mz_weights *weights, const char *name); /* NULL: none */
/* Elements offset .. offset+count of a tensor as fp32. MZ_ERR_MODEL when it holds integers or booleans. */
mz_status mz_weights_read(const mz_weights *weights, const mz_weights_tensor *tensor, int64_t offset, int64_t count,
                          float *dst);
/* Bytes that a tensor takes in its file, whatever its dtype. */
int64_t mz_weights_tensor_bytes(const mz_weights_tensor *tensor);
/* True when FOLDER holds weights at all (so that a folder with only config.json starts from scratch). */
bool mz_weights_present(const char *folder);

/* Writing, by many ranks at once: the plan (which file, which offset) follows from the list of tensors alone, so
 * that every rank makes the same one without talking. */
typedef struct mz_weights_entry {
    const char *name;
    int n_dims;
    int64_t shape[MZ_MAX_DIMS];
} mz_weights_entry;
typedef struct mz_weights_writer mz_weights_writer;

/* dtype for all; files above max_file_bytes (0: 5 GB) are split as model-00001-of-0000N.safetensors with an index.
 * Rank 0 (create == true) makes the files with headers at their full size under temporary names; then, after a
 * barrier of the caller's, the others open them. Ranges are written anywhere, in any order. finish: rank 0, after
 * another barrier, syncs, renames, writes the index, removes stale weight files of an earlier layout. */
mz_status mz_weights_writer_open(const char *folder, const mz_weights_entry *entries, int n, mz_dtype dtype,
                                 int64_t max_file_bytes, bool create, mz_weights_writer **writer);
/* Converts and writes elements offset .. offset+count of entry i. src: fp32. */
mz_status mz_weights_writer_put(mz_weights_writer *writer, int entry, int64_t offset, int64_t count,
                                const float *src);
mz_status mz_weights_writer_sync(mz_weights_writer *writer);   /* every rank, before the last barrier */
mz_status mz_weights_writer_finish(mz_weights_writer *writer); /* rank 0 */
void mz_weights_writer_close(mz_weights_writer *writer);

#endif
