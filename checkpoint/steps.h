/* The folders of a run's checkpoints: their names, which of them are whole, which go. */
#ifndef MZ_CHECKPOINT_STEPS_H
#define MZ_CHECKPOINT_STEPS_H

#include "checkpoint/checkpoint.h"

/* "checkpoints", below the run's folder; "latest", in it. */
#define MZ_CHECKPOINTS_FOLDER "checkpoints"
#define MZ_LATEST_NAME        "latest"

/* Where step's checkpoint is to be: RUN/checkpoints/step-000100 and the temporary name beside it. Both owned by the
 * caller; NULL together when there is no memory. */
mz_status mz_step_paths(const char *run_folder, int64_t step, char **final, char **temporary);

/* Looks through a folder of checkpoints: the one that `latest` names when that is whole (its manifest reads and its
 * files have their sizes), else the whole one of the highest step. `except` (a folder's name or NULL) is passed
 * over. MZ_ERR_CHECKPOINT when there is none; *folder owned by the caller. */
mz_status mz_steps_find_whole(const char *checkpoints, const char *except, char **folder);

/* The step's folder that a user means by `folder` (see mz_checkpoint_open); owned by the caller. */
mz_status mz_steps_resolve(const char *folder, char **step_folder);

/* Removes what is beyond the `keep` newest whole checkpoints (0: nothing), and temporary folders of saves that
 * never ended. `newest` (a folder's name) was just written and stays. */
mz_status mz_steps_clean(const char *checkpoints, const char *newest, int keep);

#endif
