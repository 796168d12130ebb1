/* How a job ends: one message, and every rank leaves with a code that says how it went. */
#ifndef MZ_COMM_CONCLUDE_H
#define MZ_COMM_CONCLUDE_H

#include <stdbool.h>

#include "comm/comm.h"

/* The exit code that stands for a status: 0, 1, 2 or 75. */
int mz_exit_code(mz_status status);
/* Whether this process speaks for the job before MPI has started. */
bool mz_is_first_process(void);

/* For a rank that has failed and has much to take down, a GPU, say: meets the other ranks as mz_conclude does, and
 * prints what is to be printed, before it takes anything down, so that those who only heard of the failure do not
 * speak while they wait for the one who knows its cause. mz_conclude is called later all the same. Does nothing for
 * a status that is no failure, and when called again. Local when the world has one rank. */
void mz_conclude_early(mz_world *world, mz_status status);

/* Collective over the world, with a grace period for failed ranks: compares how the ranks ended and prints one
 * message; when some are missing, each failed rank prints its own. Returns this rank's exit code, which is the
 * speaker's on all ranks that met. *alone: this rank failed and others did not come, so that the job is to be
 * aborted. Where the speaker had met the others early, they meet once more, with nothing left to take down. Local
 * when world is NULL. */
int mz_conclude(mz_world *world, mz_status status, bool *alone);

/* Ends the job without the ranks that do not come: MPI's abort, and this process even when MPI does not return. */
void mz_abandon(mz_world *world, int code);

#endif
