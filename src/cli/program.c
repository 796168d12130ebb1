/* All ranks run the same program: a node with an older build would train with other code. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"
#include "core/error.h"
#include "core/file.h"

/* This program's size and CRC; zeros where the system does not show it. */
static void fingerprint(uint64_t print[2])
{
    struct stat info;
    int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    print[0] = print[1] = 0;
    if (file < 0)
        return;
    if (fstat(file, &info) == 0 && info.st_size > 0) {
        size_t bytes = (size_t)info.st_size;
        void *image = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, file, 0);
        if (image != MAP_FAILED) {
            print[0] = bytes;
            print[1] = mz_crc32c(0, image, bytes);
            munmap(image, bytes);
        }
    }
    close(file);
}

mz_status mz_same_program(mz_world *world)
{
    char reason[512];
    uint64_t print[2];
    if (world->size == 1)
        return MZ_OK;
    fingerprint(print);
    mz_status status = mz_agree_same(world, print, sizeof print, "the program");
    if (status != MZ_ERR_MISMATCH)
        return status;
    snprintf(reason, sizeof reason, "%s", mz_last_error());
    return mz_fail(MZ_ERR_LAUNCH, "%s: install the same mpizero on all nodes, or one in a shared file system",
                   reason);
}
