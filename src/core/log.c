#include "core/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static _Atomic int log_level = MZ_LOG_INFO;
static _Atomic int log_rank = 0;
static _Atomic int log_size = 1;

static const char *const level_names[] = {"error", "warning", "info", "debug"};

void mz_log_set_level(mz_log_level level)
{
    log_level = (int)level;
}

bool mz_log_level_from_name(const char *name, mz_log_level *level)
{
    for (int i = 0; i <= MZ_LOG_DEBUG; i++) {
        if (strcmp(name, level_names[i]) == 0) {
            *level = (mz_log_level)i;
            return true;
        }
    }
    return false;
}

void mz_log_set_rank(int rank, int size)
{
    log_rank = rank;
    log_size = size;
}

static void write_all(const char *data, size_t bytes)
{
    while (bytes > 0) {
        ssize_t n = write(STDERR_FILENO, data, bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return; /* nobody is left to tell */
        data += n;
        bytes -= (size_t)n;
    }
}

static void write_line(mz_log_level level, const char *format, va_list args)
{
    char line[4096];
    const size_t room = sizeof line - 1; /* the newline always fits */
    size_t used = 0;
    if (log_size > 1)
        used += (size_t)snprintf(line, room, "[%d] ", log_rank);
    if (level != MZ_LOG_INFO)
        used += (size_t)snprintf(line + used, room - used, "%s: ", level_names[level]);
    int n = vsnprintf(line + used, room - used, format, args);
    if (n > 0)
        used += (size_t)n < room - used ? (size_t)n : room - used - 1;
    line[used++] = '\n';
    write_all(line, used);
}

void mz_log(mz_log_level level, const char *format, ...)
{
    if ((int)level > log_level)
        return;
    va_list args;
    va_start(args, format);
    write_line(level, format, args);
    va_end(args);
}

void mz_log_root(mz_log_level level, const char *format, ...)
{
    if ((int)level > log_level || log_rank != 0)
        return;
    va_list args;
    va_start(args, format);
    write_line(level, format, args);
    va_end(args);
}

/* True when `key` was not seen before. Keys are remembered by hash; once the table is full, each further
 * new key counts as seen, so that a flood of warnings ends. */
static bool first_time(const char *key)
{
    enum { MAX_KEYS = 256 };
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static uint64_t seen[MAX_KEYS];
    static int n_seen;

    uint64_t hash = 14695981039346656037u;
    for (const char *p = key; *p; p++)
        hash = (hash ^ (unsigned char)*p) * 1099511628211u;

    pthread_mutex_lock(&lock);
    int i = 0;
    while (i < n_seen && seen[i] != hash)
        i++;
    bool is_new = i == n_seen && n_seen < MAX_KEYS;
    if (is_new)
        seen[n_seen++] = hash;
    pthread_mutex_unlock(&lock);
    return is_new;
}

void mz_warn_once(const char *key, const char *format, ...)
{
    if (log_level < MZ_LOG_WARN || log_rank != 0 || !first_time(key))
        return;
    va_list args;
    va_start(args, format);
    write_line(MZ_LOG_WARN, format, args);
    va_end(args);
}
