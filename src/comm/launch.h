/* Was this process started as one rank of a job, or as one of many lonely copies?
 *
 * A program whose MPI does not understand its launcher becomes N singletons, each of which believes that it is the
 * whole job: they train N times the same and overwrite each other's files. The launcher's
 * environment tells how many processes were meant. */
#ifndef MZ_COMM_LAUNCH_H
#define MZ_COMM_LAUNCH_H

#include "mpizero/status.h"

/* Not collective; to be called before MPI_Init. Refuses (MZ_ERR_LAUNCH) a task of a Slurm step of several tasks
 * that was given no way to find the others, where MPI_Init might abort without a usable message. */
mz_status mz_launch_check_early(void);

/* Not collective. Refuses when the launcher started more processes than the `size` that MPI knows. */
mz_status mz_launch_check(int rank, int size);

#endif
