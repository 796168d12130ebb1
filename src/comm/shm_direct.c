#include "comm/shm_direct.h"

#include <errno.h>
#include <sys/uio.h>

#include "comm/mpi_check.h"
#include "core/clock.h"
#include "core/error.h"

mz_status mz_shm_direct_read(const mz_shm_sync *sync, int member, const void *from, void *to, size_t bytes)
{
    pid_t process = (pid_t)sync->ranks[member].pid;
    size_t done = 0;
    while (done < bytes) { /* the kernel moves 2 GiB at most at a time */
        const struct iovec local = {(char *)to + done, bytes - done};
        const struct iovec remote = {(char *)(uintptr_t)from + done, bytes - done};
        ssize_t n = process_vm_readv(process, &local, 1, &remote, 1, 0);
        if (n <= 0)
            return mz_fail_errno(MZ_ERR_COMM, "cannot read %zu bytes of rank %d's memory (process %ld)",
                                 bytes - done, sync->members.ranks[member], (long)process);
        done += (size_t)n;
    }
    return MZ_OK;
}

/* A process number of another namespace may exist here too and belong to somebody else, so that each rank shows a
 * value that only it can have. */
mz_status mz_shm_direct_probe(MPI_Comm group, mz_shm_sync *sync, bool *possible)
{
    mz_shm_rank *self = &sync->ranks[sync->members.rank];
    uint64_t secret = (uint64_t)(mz_clock_seconds() * 1e9) * 0x9e3779b97f4a7c15u ^ (uint64_t)self->pid;
    int yes = 1;
    self->addresses[0] = &secret;
    self->secret = secret;
    mz_status status = mz_mpi_check(MPI_Barrier(group), "MPI_Barrier");
    for (int i = 0; i < sync->members.size && !status; i++) {
        uint64_t found = 0;
        yes = yes && !mz_shm_direct_read(sync, i, sync->ranks[i].addresses[0], &found, sizeof found) &&
              found == sync->ranks[i].secret;
    }
    mz_status agreed = mz_mpi_check(MPI_Allreduce(MPI_IN_PLACE, &yes, 1, MPI_INT, MPI_MIN, group), "MPI_Allreduce");
    *possible = yes;
    return status ? status : agreed;
}
