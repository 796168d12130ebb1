#include "tests/data/scratch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"

static char folder[512];

int scratch_make(void **state)
{
    const char *base = getenv("TMPDIR");
    (void)state;
    snprintf(folder, sizeof folder, "%s/mpizero-data-XXXXXX", base && *base ? base : "/tmp");
    return mkdtemp(folder) ? 0 : -1;
}

int scratch_remove(void **state)
{
    (void)state;
    return mz_remove_tree(folder) ? -1 : 0;
}

const char *scratch_folder(void)
{
    return folder;
}

char *scratch_path(const char *name)
{
    return mz_path_join(folder, name);
}

char *scratch_write(const char *name, const void *data, size_t bytes)
{
    char *path = scratch_path(name);
    FILE *file = fopen(path, "w");
    if (!file || fwrite(data, 1, bytes, file) != bytes || fclose(file) != 0) {
        perror(path);
        exit(1);
    }
    return path;
}

char *scratch_write_text(const char *name, const char *text)
{
    return scratch_write(name, text, strlen(text));
}

char *source_path(const char *name)
{
    const char *srcdir = getenv("srcdir");
    return mz_path_join(srcdir ? srcdir : ".", name);
}
