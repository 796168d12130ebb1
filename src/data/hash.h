/* A fast 64-bit hash for tables, cache names and fingerprints. Not for secrets. */
#ifndef MZ_DATA_HASH_H
#define MZ_DATA_HASH_H

#include <stddef.h>
#include <stdint.h>

/* The same value on every machine of the same byte order; chain pieces by giving the last value as seed. */
uint64_t mz_hash64(uint64_t seed, const void *data, size_t bytes);

#endif
