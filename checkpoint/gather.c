#include "checkpoint/gather.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "core/error.h"
#include "core/memory.h"

enum { PAGE = 4096, TURN = 8 << 20, BUFFER = 4 << 20, MAX_PARTS = 256 };

struct mz_gather {
    const char *path;
    int fd, direct;      /* direct: past the cache; -1 where that cannot be done */
    uintptr_t alignment; /* of memory that direct writes start from */
    char *buffer;        /* from a page's begin */
    size_t buffered;     /* bytes in it */
    int64_t at;          /* of the file, where the parts belong; a multiple of PAGE */
    size_t bytes;        /* of all parts */
    struct iovec parts[MAX_PARTS];
    int n_parts;
};

/* Takes the room now. */
static mz_status reserve(const char *path, int fd, int64_t bytes)
{
    if (bytes == 0 || !fallocate(fd, 0, 0, (off_t)bytes))
        return MZ_OK;
    if ((errno == EOPNOTSUPP || errno == ENOSYS) && !ftruncate(fd, (off_t)bytes))
        return MZ_OK;
    return mz_fail_errno(MZ_ERR_IO, "%s: cannot make room for %lld bytes", path, (long long)bytes);
}

/* What the system says of this file; a page where it does not (before Linux 6.1). */
static uintptr_t direct_alignment(int fd)
{
#ifdef STATX_DIOALIGN
    struct statx about;
    if (!statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &about) && (about.stx_mask & STATX_DIOALIGN) &&
        about.stx_dio_mem_align > 0)
        return about.stx_dio_mem_align;
#else
    (void)fd;
#endif
    return PAGE;
}

mz_status mz_gather_create(const char *path, int64_t bytes, mz_gather **gather)
{
    mz_gather *g = mz_calloc(1, sizeof *g);
    if (!g)
        return MZ_ERR_MEMORY;
    g->path = path;
    g->direct = -1;
    g->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    mz_status status = g->fd < 0 ? mz_fail_errno(MZ_ERR_IO, "%s: cannot create", path) : MZ_OK;
    if (!status) {
        g->buffer = mz_alloc_aligned(BUFFER);
        status = g->buffer ? reserve(path, g->fd, bytes) : MZ_ERR_MEMORY;
    }
    if (status) {
        mz_gather_destroy(g);
        return status;
    }
    g->direct = open(path, O_WRONLY | O_DIRECT | O_CLOEXEC);
    g->alignment = g->direct < 0 ? 1 : direct_alignment(g->direct);
    *gather = g;
    return MZ_OK;
}

void mz_gather_destroy(mz_gather *g)
{
    if (!g)
        return;
    if (g->direct >= 0)
        close(g->direct);
    if (g->fd >= 0)
        close(g->fd);
    mz_free(g->buffer);
    mz_free(g);
}

/* ---- taking ---- */

static void add_part(mz_gather *g, const void *data, size_t bytes)
{
    struct iovec *last = g->n_parts ? &g->parts[g->n_parts - 1] : NULL;
    if (last && (const char *)last->iov_base + last->iov_len == data)
        last->iov_len += bytes;
    else
        g->parts[g->n_parts++] = (struct iovec){(void *)(uintptr_t)data, bytes};
    g->bytes += bytes;
}

/* A part that starts within a page of the file is in the buffer, as is what fills that page. */
size_t mz_gather_take(mz_gather *g, const void *data, size_t bytes)
{
    const size_t used = g->bytes % PAGE;
    if (used == 0 && (g->bytes >= TURN || g->buffered == BUFFER || g->n_parts == MAX_PARTS))
        return 0;
    size_t n;
    if (used == 0 && bytes >= PAGE && (uintptr_t)data % g->alignment == 0) {
        n = bytes < TURN - g->bytes ? bytes / PAGE * PAGE : TURN - g->bytes;
        add_part(g, data, n);
    } else {
        n = bytes < PAGE - used ? bytes : PAGE - used;
        memcpy(g->buffer + g->buffered, data, n);
        add_part(g, g->buffer + g->buffered, n);
        g->buffered += n;
    }
    return n;
}

bool mz_gather_full(const mz_gather *g)
{
    return g->bytes >= TURN;
}

/* ---- writing ---- */

/* Writes n parts to byte `at` and on; 0, or the error's number. The parts are used up. */
static int put_parts(int fd, struct iovec *parts, int n, int64_t at)
{
    while (n > 0) {
        ssize_t done = pwritev(fd, parts, n, (off_t)at);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return errno;
        at += done;
        while (n > 0 && (size_t)done >= parts->iov_len) {
            done -= (ssize_t)parts->iov_len;
            parts++;
            n--;
        }
        if (n > 0) {
            parts->iov_base = (char *)parts->iov_base + done;
            parts->iov_len -= (size_t)done;
        }
    }
    return 0;
}

static mz_status put_all(mz_gather *g)
{
    struct iovec parts[MAX_PARTS];
    memcpy(parts, g->parts, (size_t)g->n_parts * sizeof *parts);
    int error = put_parts(g->direct >= 0 ? g->direct : g->fd, parts, g->n_parts, g->at);
    if (error == EINVAL && g->direct >= 0) { /* larger pages, or a write that ended early: through the cache then */
        close(g->direct);
        g->direct = -1;
        error = put_parts(g->fd, g->parts, g->n_parts, g->at);
    }
    errno = error;
    return error ? mz_fail_errno(MZ_ERR_IO, "%s: cannot write", g->path) : MZ_OK;
}

mz_status mz_gather_write(mz_gather *g)
{
    const size_t rest = g->bytes % PAGE;
    if (g->bytes == rest)
        return MZ_OK;
    struct iovec *last = &g->parts[g->n_parts - 1]; /* the rest is its end */
    last->iov_len -= rest;
    if (last->iov_len == 0)
        g->n_parts--;
    mz_status status = put_all(g);
    g->at += (int64_t)(g->bytes - rest);
    memmove(g->buffer, g->buffer + g->buffered - rest, rest);
    g->n_parts = 0;
    g->bytes = 0;
    g->buffered = rest;
    if (rest)
        add_part(g, g->buffer, rest);
    return status;
}

mz_status mz_gather_finish(mz_gather *g)
{
    mz_status status = mz_gather_write(g);
    if (!status && g->bytes) {
        const int error = put_parts(g->fd, g->parts, g->n_parts, g->at);
        errno = error;
        status = error ? mz_fail_errno(MZ_ERR_IO, "%s: cannot write", g->path) : MZ_OK;
    }
    if (!status && fsync(g->fd))
        status = mz_fail_errno(MZ_ERR_IO, "%s: cannot write to disk", g->path);
    const int fd = g->fd;
    g->fd = -1;
    if (close(fd) && !status)
        status = mz_fail_errno(MZ_ERR_IO, "%s: cannot close", g->path);
    return status;
}
