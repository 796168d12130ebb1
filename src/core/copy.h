/* Copies that are larger than caches. */
#ifndef MZ_CORE_COPY_H
#define MZ_CORE_COPY_H

#include <stddef.h>

/* memcpy for large blocks whose copy is not read soon: from 1 MiB on it writes past the caches, which saves reading
 * the destination first (about twice as fast from memory to memory). The ranges may not overlap. */
void mz_copy_large(void *dst, const void *src, size_t bytes);

#endif
