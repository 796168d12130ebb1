/* A rank kills itself while the others wait for it in a collective; they print what they are told. For killed.sh.
 */
#include <signal.h>
#include <unistd.h>

#include "check.h"
#include "comm/comm.h"

int main(void)
{
    mz_world *world = NULL;
    mz_device *device = NULL;
    mz_comm *comm = NULL;
    const mz_world_options options = {.timeout_seconds = 30};
    REQUIRE(mz_world_create(&options, &world));
    REQUIRE(mz_device_open("cpu", 0, 1, &device));
    REQUIRE(mz_comm_create(world, device, 0, 0, &comm));
    REQUIRE(mz_barrier(comm, "all here"));
    if (world->rank == 1) {
        usleep(300000); /* so that the others are asleep already */
        raise(SIGKILL);
    }
    mz_status status = mz_barrier(comm, "after the deed");
    printf("rank %d: %s: %s\n", world->rank, mz_status_text(status), mz_last_error());
    fflush(stdout);
    _exit(0); /* MPI cannot be finalised any more */
}
