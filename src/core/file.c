#include "core/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"
#include "core/memory.h"

/* Opens a file for reading; a folder is refused here, where open() would allow it. */
static mz_status open_file(const char *path, int *fd, struct stat *info)
{
    *fd = open(path, O_RDONLY | O_CLOEXEC);
    if (*fd < 0)
        return mz_fail_errno(MZ_ERR_IO, "%s: cannot be opened", path);
    if (fstat(*fd, info) == 0 && !S_ISDIR(info->st_mode))
        return MZ_OK;
    close(*fd);
    *fd = -1;
    return mz_fail(MZ_ERR_IO, "%s: expected a file, found a folder", path);
}

mz_status mz_file_read(const char *path, char **data, size_t *bytes)
{
    int fd;
    struct stat info;
    mz_status status = open_file(path, &fd, &info);
    if (status)
        return status;
    size_t used = 0, room = (size_t)info.st_size + 1;
    char *text = mz_alloc(room + 1);
    while (text) {
        ssize_t n = read(fd, text + used, room - used);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            status = mz_fail_errno(MZ_ERR_IO, "%s: cannot be read", path);
            goto out;
        }
        if (n == 0)
            break;
        used += (size_t)n;
        if (used == room) { /* longer than it said: a pipe, /proc, a file that grows */
            char *larger = mz_realloc(text, 2 * room + 1);
            if (!larger) {
                status = MZ_ERR_MEMORY;
                goto out;
            }
            text = larger;
            room *= 2;
        }
    }
    if (!text) {
        status = MZ_ERR_MEMORY;
        goto out;
    }
    text[used] = '\0';
    *data = text;
    *bytes = used;
    text = NULL;
out:
    mz_free(text);
    close(fd);
    return status;
}

mz_status mz_file_map_open(const char *path, mz_file_map *map)
{
    int fd;
    struct stat info;
    mz_status status = open_file(path, &fd, &info);
    if (status)
        return status;
    *map = (mz_file_map){0};
    if (info.st_size > 0) {
        void *data = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (data == MAP_FAILED)
            status = mz_fail_errno(MZ_ERR_IO, "%s: cannot be mapped into memory", path);
        else
            *map = (mz_file_map){data, (size_t)info.st_size};
    }
    close(fd);
    return status;
}

void mz_file_map_close(mz_file_map *map)
{
    if (map->data)
        munmap((void *)(uintptr_t)map->data, map->bytes);
    *map = (mz_file_map){0};
}

static mz_status write_fully(int fd, const char *path, const char *data, size_t bytes)
{
    while (bytes > 0) {
        ssize_t n = write(fd, data, bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return mz_fail_errno(MZ_ERR_IO, "%s: cannot be written", path);
        data += n;
        bytes -= (size_t)n;
    }
    return MZ_OK;
}

mz_status mz_file_write_atomic(const char *path, const void *data, size_t bytes)
{
    mz_status status = MZ_OK;
    int fd = -1;
    char *temporary = mz_strprintf("%s.tmp", path);
    if (!temporary)
        return MZ_ERR_MEMORY;
    fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) {
        status = mz_fail_errno(MZ_ERR_IO, "%s: cannot be created", temporary);
        goto out;
    }
    status = write_fully(fd, temporary, data, bytes);
    if (!status && fsync(fd) != 0)
        status = mz_fail_errno(MZ_ERR_IO, "%s: cannot be synced to disk", temporary);
    if (close(fd) != 0 && !status)
        status = mz_fail_errno(MZ_ERR_IO, "%s: cannot be closed", temporary);
    if (!status)
        status = mz_file_rename(temporary, path);
    if (status)
        unlink(temporary);
out:
    mz_free(temporary);
    return status;
}

static mz_status sync_path(const char *path, int flags)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | flags);
    if (fd < 0)
        return mz_fail_errno(MZ_ERR_IO, "%s: cannot be opened to sync it", path);
    mz_status status = MZ_OK;
    /* EINVAL: a file system on which folders cannot be synced keeps its names in order by itself */
    if (fsync(fd) != 0 && !(errno == EINVAL && (flags & O_DIRECTORY)))
        status = mz_fail_errno(MZ_ERR_IO, "%s: cannot be synced to disk", path);
    close(fd);
    return status;
}

mz_status mz_file_sync(const char *path)
{
    return sync_path(path, 0);
}

mz_status mz_file_sync_parent(const char *path)
{
    char *parent = mz_strdup(path);
    if (!parent)
        return MZ_ERR_MEMORY;
    size_t end = strlen(parent);
    while (end > 1 && parent[end - 1] == '/')
        parent[--end] = '\0';
    char *slash = strrchr(parent, '/');
    if (slash)
        slash[slash == parent] = '\0';
    mz_status status = sync_path(slash ? parent : ".", O_DIRECTORY);
    mz_free(parent);
    return status;
}

mz_status mz_file_rename(const char *from, const char *to)
{
    if (rename(from, to) != 0)
        return mz_fail_errno(MZ_ERR_IO, "%s: cannot be renamed to %s", from, to);
    return mz_file_sync_parent(to);
}

mz_status mz_make_directories(const char *path)
{
    char *partial = mz_strdup(path);
    if (!partial)
        return MZ_ERR_MEMORY;
    mz_status status = MZ_OK;
    for (char *p = partial + (*partial == '/'); !status && *p != '\0';) {
        p += strcspn(p, "/");
        const char separator = *p;
        struct stat info;
        *p = '\0';
        if (mkdir(partial, 0777) != 0 && (stat(partial, &info) != 0 || !S_ISDIR(info.st_mode)))
            status = mz_fail_errno(MZ_ERR_IO, "%s: cannot be made as a folder", partial);
        *p = separator;
        p += strspn(p, "/");
    }
    mz_free(partial);
    return status;
}

/* Removes what lies in an open folder, then closes it. Symbolic links are removed, not followed. */
static mz_status remove_contents(int folder, const char *path)
{
    mz_status status = MZ_OK;
    DIR *entries = fdopendir(folder);
    if (!entries) {
        close(folder);
        return mz_fail_errno(MZ_ERR_IO, "%s: cannot be listed", path);
    }
    for (struct dirent *entry; !status && (entry = readdir(entries)) != NULL;) {
        const char *name = entry->d_name;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
            continue;
        if (unlinkat(folder, name, 0) == 0 || errno == ENOENT)
            continue;
        int inner = openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (inner >= 0)
            status = remove_contents(inner, name);
        if (!status && unlinkat(folder, name, AT_REMOVEDIR) != 0 && errno != ENOENT)
            status = mz_fail_errno(MZ_ERR_IO, "%s/%s: cannot be removed", path, name);
    }
    closedir(entries);
    return status;
}

mz_status mz_remove_tree(const char *path)
{
    if (unlink(path) == 0 || errno == ENOENT)
        return MZ_OK;
    int folder = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (folder < 0)
        return mz_fail_errno(MZ_ERR_IO, "%s: cannot be removed", path);
    mz_status status = remove_contents(folder, path);
    if (!status && rmdir(path) != 0)
        status = mz_fail_errno(MZ_ERR_IO, "%s: cannot be removed", path);
    return status;
}

bool mz_path_exists(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0;
}

char *mz_path_join(const char *directory, const char *name)
{
    const size_t n = strlen(directory);
    if (n == 0 || *name == '/')
        return mz_strdup(name);
    return mz_strprintf("%s%s%s", directory, directory[n - 1] == '/' ? "" : "/", name);
}
