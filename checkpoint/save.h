/* One save, as the writer's thread runs it: every rank writes its file, rank 0 publishes. */
#ifndef MZ_CHECKPOINT_SAVE_H
#define MZ_CHECKPOINT_SAVE_H

#include "checkpoint/checkpoint.h"
#include "checkpoint/shard_file.h"

typedef struct mz_save_job {
    MPI_Comm comm; /* nobody else's; unused with one rank */
    int rank, size;
    mz_shard_source *source;
    mz_frame **frame;     /* as mz_shard_file has it */
    const uint32_t *crcs; /* as mz_shard_file has them */
    double rate_bytes_per_second;
    const char *run_folder, *state;
    int64_t step;
    int keep;
} mz_save_job;

/* Collective over comm. All ranks return the same status with the same message. taken: this rank's status so far;
 * when it is a failure nothing is written and the save fails on all. *bytes: this rank's file. */
mz_status mz_save_run(const mz_save_job *job, mz_status taken, int64_t *bytes);

#endif
