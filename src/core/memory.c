#include "core/memory.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/cgroup.h"
#include "core/error.h"

enum { CACHE_LINE = 64, HUGE_PAGE = 2 << 20 };

/* The test hook's state: allocations until the one that fails (0: off), and those counted so far. */
static atomic_long fail_countdown;
static atomic_long n_allocations;

long mz_memory_fail_at(long n)
{
    fail_countdown = n;
    return atomic_exchange(&n_allocations, 0);
}

static bool told_to_fail(void)
{
    atomic_fetch_add_explicit(&n_allocations, 1, memory_order_relaxed);
    if (atomic_load_explicit(&fail_countdown, memory_order_relaxed) <= 0)
        return false;
    return atomic_fetch_sub(&fail_countdown, 1) == 1;
}

static void *no_memory(size_t bytes)
{
    mz_fail(MZ_ERR_MEMORY, "out of memory: %zu bytes asked for, %zu bytes resident", bytes, mz_memory_resident());
    return NULL;
}

void *mz_alloc(size_t bytes)
{
    void *p = told_to_fail() ? NULL : malloc(bytes ? bytes : 1);
    return p ? p : no_memory(bytes);
}

void *mz_calloc(size_t n, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(n, size, &bytes))
        return no_memory(SIZE_MAX);
    void *p = told_to_fail() ? NULL : calloc(bytes ? bytes : 1, 1);
    return p ? p : no_memory(bytes);
}

void *mz_realloc(void *p, size_t bytes)
{
    void *q = told_to_fail() ? NULL : realloc(p, bytes ? bytes : 1);
    return q ? q : no_memory(bytes);
}

char *mz_strdup(const char *s)
{
    size_t bytes = strlen(s) + 1;
    char *copy = mz_alloc(bytes);
    return copy ? memcpy(copy, s, bytes) : NULL;
}

char *mz_strprintf(const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *s = mz_alloc(n < 0 ? 1 : (size_t)n + 1);
    if (s && n < 0)
        *s = '\0';
    else if (s)
        vsnprintf(s, (size_t)n + 1, format, again);
    va_end(again);
    return s;
}

void *mz_alloc_aligned(size_t bytes)
{
    size_t alignment = bytes >= 2 * (size_t)HUGE_PAGE ? HUGE_PAGE : CACHE_LINE, rounded;
    if (__builtin_add_overflow(bytes ? bytes : 1, alignment - 1, &rounded))
        return no_memory(bytes);
    rounded -= rounded % alignment;
    void *p = told_to_fail() ? NULL : aligned_alloc(alignment, rounded);
    if (!p)
        return no_memory(bytes);
    if (alignment == HUGE_PAGE)
        madvise(p, rounded, MADV_HUGEPAGE); /* a wish; a kernel without huge pages is as good */
    return p;
}

void mz_free(void *p)
{
    free(p);
}

/* A line "name:   123 kB" of /proc/self/status, in bytes. */
static size_t status_bytes(const char *name)
{
    FILE *f = fopen("/proc/self/status", "r");
    if (!f)
        return 0;
    char line[256];
    size_t kilobytes = 0, length = strlen(name);
    while (fgets(line, sizeof line, f)) {
        if (strncmp(line, name, length) == 0 && line[length] == ':') {
            kilobytes = strtoull(line + length + 1, NULL, 10);
            break;
        }
    }
    fclose(f);
    return kilobytes * 1024;
}

size_t mz_memory_resident(void)
{
    return status_bytes("VmRSS");
}

size_t mz_memory_peak(void)
{
    return status_bytes("VmHWM");
}

size_t mz_memory_total(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    size_t machine = pages > 0 && page > 0 ? (size_t)pages * (size_t)page : 0;
    double limit = mz_cgroup_memory_limit();
    return limit > 0 && limit < (double)machine ? (size_t)limit : machine;
}
