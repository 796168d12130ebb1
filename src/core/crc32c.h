/* The portable form of mz_crc32c, for tests. */
#ifndef MZ_CORE_CRC32C_H
#define MZ_CORE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

uint32_t mz_crc32c_plain(uint32_t crc, const void *data, size_t bytes);

#endif
