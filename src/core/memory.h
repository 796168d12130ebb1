/* Host memory. Every allocation of the library passes through here, so that tests can make the n-th
 * one fail (mz_memory_fail_at) and see that each create function cleans up. */
#ifndef MZ_CORE_MEMORY_H
#define MZ_CORE_MEMORY_H

#include <stddef.h>
#include <stdint.h>

#include "mpizero/status.h"

/* NULL with MZ_ERR_MEMORY recorded as last error when there is no memory. Zero bytes give a valid pointer. */
void *mz_alloc(size_t bytes);
void *mz_calloc(size_t n, size_t size); /* zeroed; checks n * size for overflow */
void *mz_realloc(void *p, size_t bytes);
char *mz_strdup(const char *s);
/* printf into a new string, owned by the caller. */
char *mz_strprintf(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Aligned to 64 bytes (a cache line, a vector register); large blocks ask for huge pages. */
void *mz_alloc_aligned(size_t bytes);
void mz_free(void *p); /* frees any of the above; NULL is legal */

/* Test hook: the n-th allocation from now (1 = the next one) fails, once; 0 turns it off.
 * Returns the number of allocations seen since the last call. */
long mz_memory_fail_at(long n);

/* Resident set size of this process in bytes, and its high-water mark; 0 when unknown. */
size_t mz_memory_resident(void);
size_t mz_memory_peak(void);
/* Bytes of memory this machine has, less what a cgroup limit takes away. */
size_t mz_memory_total(void);

#endif
