/* Sharded checkpoints in HDF5 that load on any number of ranks and at any stage.
 *
 *   RUN/checkpoints/step-000100/rank-00000.h5 ...   one file per rank, written by that rank alone
 *   RUN/checkpoints/step-000100/manifest.json       written last: a folder without one is no checkpoint
 *   RUN/checkpoints/latest                          text: "step-000100"
 *
 * A data set is one run of consecutive elements of a named tensor (zero.h's mz_shard): /KIND/TENSOR/OFFSET,
 * contiguous, little-endian, fp32 or (bits as unsigned numbers) bf16, with attributes shape, offset, count, dtype,
 * crc32c and crc32c_block. The manifest
 * (manifest.h) repeats the index with the byte at which each data set begins, has a CRC-32C for each block of it
 * and for all that lies around the data, and holds the run's own state. So every byte of every file is under a CRC;
 * a reader plans from the manifest alone, reads only what it needs, checks all that it reads, and does so without
 * HDF5.
 *
 * Order of a save: files to step-NNNNNN.tmp, synced; all ranks agree; rank 0 writes and syncs the manifest and the
 * folder, renames it, syncs its parent, replaces `latest`, removes old steps beyond `keep` and what crashed saves
 * left. A crash at any moment leaves the previous checkpoint good. */
#ifndef MZ_CHECKPOINT_H
#define MZ_CHECKPOINT_H

#include "comm/comm.h"
#include "zero/zero.h"

typedef struct mz_writer mz_writer;

/* Collective over world. One writer per run: a thread that owns all HDF5 calls, and a pinned snapshot buffer of the
 * shards' size. Of a GPU's shards each save takes a snapshot; the buffer's pages are touched now. Shards in host
 * memory are written from where they lie, and the buffer, whose address space is taken now, is used only for what a
 * slow disk has not taken by the time they change. shards are borrowed and stay valid. A communicator of its own
 * (duplicate) serves the writer's agreement, so training's collectives go on beside it. rate_bytes_per_second 0:
 * unlimited. */
mz_status mz_writer_create(mz_world *world, mz_device *device, const mz_shard *shards, int64_t n_shards,
                           double rate_bytes_per_second, mz_writer **writer);
/* Waits for a save in flight. */
void mz_writer_destroy(mz_writer *writer);

typedef struct mz_save_request {
    const char *run_folder;
    int64_t step;
    int keep;          /* checkpoints kept, those written last; 0: all */
    const char *state; /* JSON object: step, sampler, schedule, configuration ...; copied. Rank 0's counts */
    bool asynchronous;
    bool overlap_snapshot; /* with asynchronous: return while the shards may not change yet; see mz_writer_settle */
    const uint32_t *crcs;  /* CRC-32C of each block (manifest.h) of one shard after the other, when the caller has
                              them  already; copied. NULL: the thread works them out */
} mz_save_request;

/* Collective. Waits for a save in flight, hands the shards to the thread; with asynchronous false
 * waits for that too. The streams that write the shards must have been synchronised. A failed save (disk full)
 * removes its temporary folder, keeps the older checkpoints, and is reported once as MZ_ERR_IO: by this call, by
 * the next save (which is done nevertheless) or by the next wait; training may go on. */
mz_status mz_writer_save(mz_writer *writer, const mz_save_request *request);
/* Local. After a save with overlap_snapshot, makes the shards free to change: waits for the snapshot of a GPU's,
 * and copies what is not written yet of those in host memory. At once when there is nothing to do. To be called
 * before the shards change (before mz_zero_update), so that writing and copying run beside the forward and backward
 * passes between. */
mz_status mz_writer_settle(mz_writer *writer);
/* Collective. MZ_OK when no save is in flight or it went well. */
mz_status mz_writer_wait(mz_writer *writer);
/* Seconds the last save held its caller up (in mz_writer_save and mz_writer_settle), and the thread needed in all;
 * bytes written by this rank. */
void mz_writer_times(const mz_writer *writer, double *blocked, double *total, int64_t *bytes);

/* ---- reading: any rank alone, not collective ---- */

typedef struct mz_checkpoint mz_checkpoint;

/* `folder`: a step's folder; or .../checkpoints/latest; or a run folder (its latest). Reads and checks the manifest
 * and the sizes of all files. MZ_ERR_CHECKPOINT names the file and what is wrong; when `latest` is damaged, the
 * message names the newest older checkpoint that is whole. */
mz_status mz_checkpoint_open(const char *folder, mz_checkpoint **checkpoint);
void mz_checkpoint_close(mz_checkpoint *checkpoint);
const char *mz_checkpoint_folder(const mz_checkpoint *checkpoint); /* of the step */
int64_t mz_checkpoint_step(const mz_checkpoint *checkpoint);
const char *mz_checkpoint_state(const mz_checkpoint *checkpoint); /* JSON text */

typedef struct mz_checkpoint_tensor {
    const char *name;
    int n_dims;
    int64_t shape[MZ_MAX_DIMS], numel;
    bool kinds[MZ_N_SHARD_KINDS];      /* which kinds are there */
    mz_dtype dtypes[MZ_N_SHARD_KINDS]; /* and how they are stored */
} mz_checkpoint_tensor;
int mz_checkpoint_n_tensors(const mz_checkpoint *checkpoint);
const mz_checkpoint_tensor *mz_checkpoint_tensor_at(const mz_checkpoint *checkpoint, int i);

/* Fills dst with elements offset .. offset+count of (name, kind), in fp32 however they are stored. Every block of a
 * data set that it touches is checked against its CRC, and each file's structures the first time it is opened.
 * Suits mz_param_source with context (checkpoint, kind). */
mz_status mz_checkpoint_read(mz_checkpoint *checkpoint, const char *name, mz_shard_kind kind, int64_t offset,
                             int64_t count, float *dst);

/* Reads everything and checks every CRC, sizes and coverage. *report: lines of text, owned by the caller; set
 * on failure too. */
mz_status mz_checkpoint_verify(mz_checkpoint *checkpoint, char **report);

/* Newest whole checkpoint of a run folder (manifest and sizes checked); MZ_ERR_CHECKPOINT when there is none.
 * *folder owned by the caller. */
mz_status mz_checkpoint_find_latest(const char *run_folder, char **folder);

#endif
