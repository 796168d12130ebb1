#include "checkpoint/manifest.h"

#include <stdio.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"

int64_t mz_run_block(int64_t count)
{
    int64_t block = 65536;
    while (count / block >= MZ_RUN_MOST_BLOCKS)
        block *= 2;
    return block;
}

int64_t mz_run_n_blocks(int64_t count)
{
    const int64_t block = mz_run_block(count);
    return count / block + (count % block > 0);
}

mz_status mz_manifest_build(int64_t step, int world_size, const char *state, const char *const *files, char **text,
                            size_t *bytes)
{
    size_t room = strlen(state) + 256;
    for (int i = 0; i < world_size; i++)
        room += strlen(files[i]) + 4;
    char *out = mz_alloc(room);
    if (!out)
        return MZ_ERR_MEMORY;
    size_t used = (size_t)snprintf(out, room,
                                   "{\"format\": \"%s\", \"version\": %d, \"step\": %lld, \"world_size\": %d,\n"
                                   " \"state\": %s,\n \"files\": [",
                                   MZ_MANIFEST_FORMAT, MZ_MANIFEST_VERSION, (long long)step, world_size, state);
    for (int i = 0; i < world_size; i++)
        used += (size_t)snprintf(out + used, room - used, "%s%s", i ? ",\n  " : "\n  ", files[i]);
    used += (size_t)snprintf(out + used, room - used, "]");
    const uint32_t crc = mz_crc32c(0, out, used);
    used += (size_t)snprintf(out + used, room - used, ",\n \"crc32c\": \"%08x\"\n}\n", crc);
    *text = out;
    *bytes = used;
    return MZ_OK;
}
