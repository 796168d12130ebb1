#include "comm/shm_segment.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "comm/mpi_check.h"
#include "core/error.h"

enum { NAME_BYTES = 64 };

/* Local rank 0: a new file of the full length under a name that nobody uses. */
static mz_status create_file(size_t bytes, char name[NAME_BYTES])
{
    int fd = -1;
    for (int i = 0; i < 1000 && fd < 0; i++) {
        snprintf(name, NAME_BYTES, "/mpizero.%ld.%d", (long)getpid(), i);
        fd = shm_open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd < 0 && errno != EEXIST)
            break;
    }
    if (fd < 0) {
        mz_status status = mz_fail_errno(MZ_ERR_MEMORY, "shared memory: cannot create /dev/shm%s", name);
        name[0] = '\0';
        return status;
    }
    mz_status status = MZ_OK;
    struct statvfs space;
    if (fstatvfs(fd, &space) == 0 && space.f_blocks &&
        (double)space.f_bavail * (double)space.f_frsize < (double)bytes)
        status = mz_fail(MZ_ERR_MEMORY,
                         "shared memory: %.1f MiB needed in /dev/shm, %.1f MiB free: enlarge it (containers: "
                         "--shm-size; else mount -o remount,size=...) or take fewer ranks per node",
                         (double)bytes / 1048576, (double)space.f_bavail * (double)space.f_frsize / 1048576);
    else if (ftruncate(fd, (off_t)bytes))
        status =
            mz_fail_errno(MZ_ERR_MEMORY, "shared memory: cannot set the length of /dev/shm%s to %zu", name, bytes);
    close(fd);
    return status;
}

static mz_status lock_byte(int fd, int rank)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = rank, .l_len = 1};
    if (fcntl(fd, F_OFD_SETLK, &lock))
        return mz_fail_errno(MZ_ERR_COMM, "shared memory: cannot lock byte %d of the segment", rank);
    return MZ_OK;
}

static mz_status map_file(const char *name, size_t own_offset, size_t own_bytes, mz_shm_segment *segment)
{
    segment->fd = shm_open(name, O_RDWR | O_CLOEXEC, 0);
    if (segment->fd < 0)
        return mz_fail_errno(MZ_ERR_MEMORY, "shared memory: cannot open /dev/shm%s, which local rank 0 made", name);
    int error = posix_fallocate(segment->fd, (off_t)own_offset, (off_t)own_bytes);
    if (error) {
        errno = error;
        return mz_fail_errno(MZ_ERR_MEMORY, "shared memory: cannot take %.1f MiB in /dev/shm%s",
                             (double)own_bytes / 1048576, name);
    }
    void *memory = mmap(NULL, segment->bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, segment->fd, 0);
    if (memory == MAP_FAILED)
        return mz_fail_errno(MZ_ERR_MEMORY, "shared memory: cannot map %.1f MiB", (double)segment->bytes / 1048576);
    segment->memory = memory;
    return lock_byte(segment->fd, segment->rank);
}

mz_status mz_shm_segment_open(MPI_Comm group, size_t head_bytes, size_t part_bytes, mz_shm_segment *segment)
{
    char name[NAME_BYTES] = "";
    int rank = 0, size = 0;
    *segment = (mz_shm_segment){.fd = -1};
    mz_status status = mz_mpi_check(MPI_Comm_rank(group, &rank), "MPI_Comm_rank");
    if (!status)
        status = mz_mpi_check(MPI_Comm_size(group, &size), "MPI_Comm_size");
    if (status)
        return status;
    segment->rank = rank;
    segment->bytes = head_bytes + (size_t)size * part_bytes;

    if (rank == 0)
        status = create_file(segment->bytes, name);
    mz_status shared = mz_mpi_check(MPI_Bcast(name, NAME_BYTES, MPI_CHAR, 0, group), "MPI_Bcast");
    status = mz_mpi_agree(group, status ? status : shared, "shared memory");
    if (!status) {
        size_t offset = rank == 0 ? 0 : head_bytes + (size_t)rank * part_bytes;
        status = map_file(name, offset, rank == 0 ? head_bytes + part_bytes : part_bytes, segment);
        status = mz_mpi_agree(group, status, "shared memory");
    }
    if (rank == 0 && name[0])
        shm_unlink(name);
    return status;
}

void mz_shm_segment_close(mz_shm_segment *segment)
{
    if (segment->memory)
        munmap(segment->memory, segment->bytes);
    if (segment->fd >= 0)
        close(segment->fd);
    *segment = (mz_shm_segment){.fd = -1};
}

bool mz_shm_segment_alive(const mz_shm_segment *segment, int rank)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = rank, .l_len = 1};
    return fcntl(segment->fd, F_OFD_GETLK, &lock) != 0 || lock.l_type != F_UNLCK;
}
