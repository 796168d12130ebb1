#include "device/cuda/choices.h"

#include <ctype.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/file.h"
#include "core/memory.h"

static const char *set(const char *variable)
{
    const char *value = getenv(variable);
    return value && *value ? value : NULL;
}

/* NULL where there is none. */
static char *cache_folder(void)
{
    if (set("MPIZERO_CACHE"))
        return mz_strdup(set("MPIZERO_CACHE"));
    if (set("XDG_CACHE_HOME"))
        return mz_strprintf("%s/mpizero", set("XDG_CACHE_HOME"));
    return set("HOME") ? mz_strprintf("%s/.cache/mpizero", set("HOME")) : NULL;
}

static char *cache_path(const char *folder, const char *name)
{
    char *path = mz_path_join(folder, name);
    for (char *c = path ? path + strlen(path) - strlen(name) : NULL; c && *c; c++)
        if (!isalnum((unsigned char)*c) && *c != '.')
            *c = '-';
    return path;
}

/* Copies the word behind the first "key " at the start of a line. */
static bool find(const char *text, const char *key, char *value, size_t bytes)
{
    size_t n = strlen(key);
    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, key, n) != 0 || line[n] != ' ')
            continue;
        size_t length = strcspn(line + n + 1, "\n");
        if (length == 0 || length >= bytes || line[n + 1 + length] != '\n')
            continue;
        memcpy(value, line + n + 1, length);
        value[length] = '\0';
        return true;
    }
    return false;
}

static bool read_choice(const char *path, const char *key, char *value, size_t bytes)
{
    char *text = NULL;
    size_t size;
    bool found = mz_path_exists(path) && mz_file_read(path, &text, &size) == MZ_OK && find(text, key, value, bytes);
    mz_free(text);
    return found;
}

/* One write, so that lines of several processes do not mix. */
static bool append(const char *path, const char *line)
{
    int file = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    if (file < 0)
        return false;
    bool written = write(file, line, strlen(line)) == (ssize_t)strlen(line);
    return close(file) == 0 && written;
}

bool mz_choice_get(const char *name, const char *key, char *value, size_t bytes)
{
    char *folder = cache_folder(), *path = folder ? cache_path(folder, name) : NULL;
    bool found = path && read_choice(path, key, value, bytes);
    mz_free(folder);
    mz_free(path);
    return found;
}

void mz_choice_put(const char *name, const char *key, char *value, size_t bytes)
{
    char *folder = cache_folder(), *path = folder ? cache_path(folder, name) : NULL;
    char *line = mz_strprintf("%s %s\n", key, value);
    if (path && line && mz_make_directories(folder) == MZ_OK && append(path, line))
        read_choice(path, key, value, bytes);
    mz_free(folder);
    mz_free(path);
    mz_free(line);
}
