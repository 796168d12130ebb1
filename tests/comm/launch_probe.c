/* Starts and stops a world, for launch.sh to run under all kinds of environments. */
#include <stdio.h>

#include "comm/comm.h"

int main(void)
{
    mz_world *world = NULL;
    mz_status status = mz_world_create(NULL, &world);
    if (status)
        fprintf(stderr, "%s: %s\n", mz_status_text(status), mz_last_error());
    else
        printf("rank %d of %d\n", world->rank, world->size);
    mz_world_destroy(world);
    return (int)status;
}
