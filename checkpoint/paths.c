#include "checkpoint/paths.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "core/file.h"

/* Longer ones than PATH_MAX do not exist: the system refuses them. */
static bool join(const char *folder, const char *name, char path[PATH_MAX])
{
    const int n = snprintf(path, PATH_MAX, "%s/%s", folder, name);
    return n > 0 && n < PATH_MAX;
}

bool mz_exists_in(const char *folder, const char *name)
{
    char path[PATH_MAX];
    return join(folder, name, path) && mz_path_exists(path);
}

bool mz_read_line_in(const char *folder, const char *name, char *line, size_t room)
{
    char path[PATH_MAX];
    FILE *file = join(folder, name, path) ? fopen(path, "re") : NULL;
    if (!file)
        return false;
    const bool good = fgets(line, (int)room, file) != NULL;
    fclose(file);
    if (!good)
        return false;
    const size_t n = strcspn(line, "\r\n");
    const bool whole = line[n] != '\0' || n + 1 < room;
    line[n] = '\0';
    return whole;
}
