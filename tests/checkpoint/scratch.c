#include "tests/checkpoint/scratch.h"

#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/file.h"
#include "mpizero/status.h"

void check_failed(const char *file, int line, const char *condition)
{
    int running = 0;
    fprintf(stderr, "%s:%d: not true: %s\nlast error: %s\n", file, line, condition, mz_last_error());
    MPI_Initialized(&running);
    if (running)
        MPI_Abort(MPI_COMM_WORLD, 1);
    _exit(1);
}

char *scratch_create(const char *name)
{
    const char *base = getenv("TMPDIR");
    char *folder = malloc(4096);
    CHECK(folder);
    snprintf(folder, 4096, "%s/mpizero-%s-XXXXXX", base && *base ? base : "/tmp", name);
    CHECK(mkdtemp(folder));
    return folder;
}

void scratch_remove(char *folder)
{
    CHECK(!mz_remove_tree(folder));
    free(folder);
}

const char *scratch_path(const char *folder, const char *name)
{
    static char paths[8][4096];
    static int next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

void scratch_write(const char *path, const void *data, size_t bytes)
{
    FILE *file = fopen(path, "wb");
    CHECK(file);
    CHECK(fwrite(data, 1, bytes, file) == bytes);
    CHECK(!fclose(file));
}

int scratch_python(const char *program, const char *first, const char *second)
{
    const char *python = getenv("PYTHON");
    char command[12288];
    snprintf(command, sizeof command, "%s '%s' '%s' '%s'", python && *python ? python : "python3", program, first,
             second);
    int status = system(command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

const char *shared_data(const char *name)
{
    static char path[4096];
    const char *srcdir = getenv("srcdir");
    snprintf(path, sizeof path, "%s/../shared/data/%s", srcdir ? srcdir : ".", name);
    return access(path, F_OK) ? NULL : path;
}
