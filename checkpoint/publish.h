/* How a save ends, on rank 0 alone: the manifest, the final name, `latest`, and what is not needed any more. */
#ifndef MZ_CHECKPOINT_PUBLISH_H
#define MZ_CHECKPOINT_PUBLISH_H

#include "checkpoint/checkpoint.h"

typedef struct mz_publication {
    const char *run_folder;
    int64_t step;
    int world_size, keep;
    const char *state;        /* JSON object */
    const char *const *files; /* [world_size] the files' objects for the manifest */
} mz_publication;

/* Every step is durable before the next begins, so that a crash leaves this checkpoint or the one before. Failures
 * of the cleaning up are logged only: by then the checkpoint is good. */
mz_status mz_publish(const mz_publication *publication);
/* Removes the temporary folder of a save that failed. */
void mz_publish_abandon(const char *run_folder, int64_t step);

#endif
