#include "comm/mpi_check.h"

#include <sched.h>
#include <time.h>

#include "core/clock.h"
#include "core/error.h"

mz_status mz_mpi_check(int code, const char *call)
{
    if (code == MPI_SUCCESS)
        return MZ_OK;
    char text[MPI_MAX_ERROR_STRING];
    int length = 0;
    if (MPI_Error_string(code, text, &length) != MPI_SUCCESS)
        length = 0;
    return mz_fail(MZ_ERR_COMM, "%s failed: %.*s", call, length, text);
}

mz_status mz_mpi_wait(MPI_Request *request, double deadline, const char *call)
{
    for (long tries = 0;; tries++) {
        int done = 0;
        mz_status status = mz_mpi_check(MPI_Test(request, &done, MPI_STATUS_IGNORE), call);
        if (status || done)
            return status;
        if (mz_clock_seconds() > deadline)
            return MZ_ERR_TIMEOUT;
        if (tries < 100) {
            sched_yield();
        } else {
            const struct timespec pause = {0, tries < 300 ? 50000 : 1000000};
            nanosleep(&pause, NULL);
        }
    }
}

mz_status mz_mpi_agree(MPI_Comm group, mz_status mine, const char *where)
{
    int worst = (int)mine;
    mz_status status =
        mz_mpi_check(MPI_Allreduce(MPI_IN_PLACE, &worst, 1, MPI_INT, MPI_MAX, group), "MPI_Allreduce");
    if (mine || status)
        return mine ? mine : status;
    return worst ? mz_fail(MZ_ERR_PEER, "%s: another rank failed (%s)", where, mz_status_text((mz_status)worst))
                 : MZ_OK;
}
