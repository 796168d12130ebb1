#include "config_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Sends standard error to a temporary file; returns the old one. */
static int capture_begin(FILE **file)
{
    fflush(stderr);
    *file = tmpfile();
    int old = dup(STDERR_FILENO);
    dup2(fileno(*file), STDERR_FILENO);
    return old;
}

static void capture_end(FILE *file, int old, char *log, size_t log_bytes)
{
    fflush(stderr);
    dup2(old, STDERR_FILENO);
    close(old);
    rewind(file);
    log[fread(log, 1, log_bytes - 1, file)] = '\0';
    fclose(file);
}

mz_status load_text(const char *name, const char *text, const mz_config_defaults *flags, int world_size,
                    mz_config *config, char *log, size_t log_bytes)
{
    char folder[] = "/tmp/mpizero-config-XXXXXX", path[256];
    if (!mkdtemp(folder))
        return MZ_ERR_IO;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    if (file) {
        fputs(text, file);
        fclose(file);
    }
    FILE *captured = NULL;
    int old = log ? capture_begin(&captured) : -1;
    mz_status status = mz_config_load(path, flags, world_size, config);
    if (log)
        capture_end(captured, old, log, log_bytes);
    remove(path);
    rmdir(folder);
    return status;
}
