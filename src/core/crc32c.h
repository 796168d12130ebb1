/* The forms of mz_crc32c, for tests. All give the same. */
#ifndef MZ_CORE_CRC32C_H
#define MZ_CORE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

typedef struct mz_crc32c_form {
    const char *name;
    uint32_t (*crc)(uint32_t crc, const void *data, size_t bytes);
} mz_crc32c_form;

/* Forms that this processor can run, the best first, the portable one last; NULL when i is past the end. */
const mz_crc32c_form *mz_crc32c_form_at(int i);

uint32_t mz_crc32c_plain(uint32_t crc, const void *data, size_t bytes);

#endif
