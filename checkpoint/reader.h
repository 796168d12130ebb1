/* What reading, verifying, consolidating and inspecting share. */
#ifndef MZ_CHECKPOINT_READER_H
#define MZ_CHECKPOINT_READER_H

#include "checkpoint/manifest.h"

struct mz_checkpoint {
    char *folder;
    mz_manifest manifest;
    int open_file, fd;   /* the file read last; -1: none */
    bool *frame_checked; /* [n_files] what lies around the data was found right */
    float *block;        /* room for a block that is not wanted whole */
    int64_t block_elements;
};

/* Opens exactly this folder. */
mz_status mz_checkpoint_open_step(const char *folder, mz_checkpoint **checkpoint);

/* Makes `file` the open one. The first time, checks all of it that is not data: MZ_ERR_CHECKPOINT. */
mz_status mz_checkpoint_select(mz_checkpoint *checkpoint, int file);
/* Bytes of the selected file; MZ_ERR_CHECKPOINT when it ends before, MZ_ERR_IO when the disk fails. */
mz_status mz_checkpoint_pread(mz_checkpoint *checkpoint, void *dst, size_t bytes, int64_t at);

/* Elements first .. first+count of a run (from its own start) to dst; all blocks touched are checked. */
mz_status mz_checkpoint_read_run(mz_checkpoint *checkpoint, const mz_manifest_run *run, int64_t first,
                                 int64_t count, float *dst);

#endif
