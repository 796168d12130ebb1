/* The manifest of a checkpoint: which run of which tensor lies at which bytes of which file, and the CRCs
 * of all of them.
 *
 *   {"format": "mpizero-checkpoint", "version": 1, "step": 100, "world_size": 2, "state": {...},
 *    "files": [{"name": "rank-00000.h5", "bytes": 123456, "frame_crc32c": "89abcdef",
 *               "runs": [["param", "wte.weight", [50257, 768], 0, 4096, 2048, "0123abcd89ef4567"], ...]}, ...],
 *    "crc32c": "01234567"
 *   }
 *
 * A run is kind, tensor, the tensor's shape, offset and count in elements, the byte of the file at which its
 * contiguous data set begins, and one CRC-32C (8 hex digits) for each block of mz_run_block(count) elements, so
 * that a reader of a part checks no more than the blocks it touches; a run in bf16, of a training without master
 * weights, has "bf16" as its last member, and all others are fp32. frame_crc32c covers, in order, all bytes of
 * the file outside the runs: HDF5's own structures. So every byte of every file is under a CRC, and no reader needs
 * HDF5 to trust or find the data. The last member is the CRC-32C of the text before it; its form is fixed to the
 * byte. */
#ifndef MZ_CHECKPOINT_MANIFEST_H
#define MZ_CHECKPOINT_MANIFEST_H

#include "checkpoint/checkpoint.h"

#define MZ_MANIFEST_NAME    "manifest.json"
#define MZ_MANIFEST_FORMAT  "mpizero-checkpoint"
#define MZ_MANIFEST_VERSION 1

typedef struct mz_manifest_run {
    int tensor, file; /* indices into the manifest's lists */
    mz_shard_kind kind;
    int64_t offset, count; /* elements of the tensor */
    mz_dtype dtype;        /* f32 or bf16 */
    int64_t position;      /* byte of the file */
    const uint32_t *crcs;  /* of its blocks */
} mz_manifest_run;

typedef struct mz_manifest_file {
    char *name;
    int64_t bytes;
    uint32_t frame_crc;
    int64_t first_run, n_runs; /* in by_file */
} mz_manifest_file;

typedef struct mz_manifest {
    int64_t step;
    int world_size;
    char *state;
    mz_manifest_file *files;
    int n_files;
    mz_checkpoint_tensor *tensors; /* by name; names owned */
    int n_tensors;
    mz_manifest_run *runs; /* by tensor, kind, offset */
    int64_t n_runs;
    int64_t *first_run;       /* [n_tensors * MZ_N_SHARD_KINDS + 1]: where the runs of a tensor and kind begin */
    mz_manifest_run *by_file; /* the same runs by file and position */
    uint32_t *crcs;
} mz_manifest;

/* Elements of a block in a run of `count`: 65536 (256 KiB), doubled until a run has at most 4096 blocks. */
#define MZ_RUN_MOST_BLOCKS 4096
int64_t mz_run_block(int64_t count);
int64_t mz_run_n_blocks(int64_t count);
static inline int64_t mz_run_bytes(const mz_manifest_run *run, int64_t n_elements)
{
    return n_elements * (int64_t)mz_dtype_size(run->dtype);
}

/* Reads a manifest's text, which may be any bytes. `path` is for messages. Checks its CRC, form, that runs stay
 * within their files and apart, and that the runs of each tensor and kind cover it once. MZ_ERR_CHECKPOINT. */
mz_status mz_manifest_parse(const char *path, const char *text, size_t bytes, mz_manifest *manifest);
void mz_manifest_free(mz_manifest *manifest); /* a zeroed or half-built one too */

/* Puts a manifest together. files: the JSON objects of the ranks' files, one text each. state: a JSON object.
 * *text owned by the caller. */
mz_status mz_manifest_build(int64_t step, int world_size, const char *state, const char *const *files, char **text,
                            size_t *bytes);

/* The runs of a tensor and kind: manifest->runs[*begin .. *end). */
void mz_manifest_runs(const mz_manifest *manifest, int tensor, mz_shard_kind kind, int64_t *begin, int64_t *end);
/* Index of a tensor; -1 when there is none of this name. */
int mz_manifest_find(const mz_manifest *manifest, const char *name);

#endif
