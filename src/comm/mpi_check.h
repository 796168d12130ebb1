/* MPI's return codes as statuses. Communicators of this library return errors instead of aborting. */
#ifndef MZ_COMM_MPI_CHECK_H
#define MZ_COMM_MPI_CHECK_H

#include <mpi.h>

#include "mpizero/status.h"

/* MZ_OK for MPI_SUCCESS; else MZ_ERR_COMM with MPI's own text and the name of the call. */
mz_status mz_mpi_check(int code, const char *call);

/* Waits for a request until mz_clock_seconds() reaches `deadline`: MZ_OK, MZ_ERR_COMM, or MZ_ERR_TIMEOUT
 * without a message and with the request still active. Polls gently: first often, then every millisecond. */
mz_status mz_mpi_wait(MPI_Request *request, double deadline, const char *call);

/* Collective over `group`: MZ_OK when all ranks gave MZ_OK. Otherwise a rank that failed gets its own status back,
 * and the others MZ_ERR_PEER; `where` says what was being done. For set-up, so that all ranks go on or give up
 * alike. */
mz_status mz_mpi_agree(MPI_Comm group, mz_status mine, const char *where);

#endif
