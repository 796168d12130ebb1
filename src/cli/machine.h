/* What hardware this machine has and where it lies, by hwloc where mpizero was built with it. */
#ifndef MZ_CLI_MACHINE_H
#define MZ_CLI_MACHINE_H

#include <jansson.h>
#include <stddef.h>

/* Local. An object, owned by the caller: "packages", "cores", "threads"; "numa": [{"numa", "cpus",
 * "memory_bytes"}]; "gpus" and "networks": [{"name", "address", "numa"}], networks with their "kind" ("ethernet",
 * "openfabrics"); numa -1: near none. Without hwloc the lists are empty and the numbers 0. NULL: no memory. */
json_t *mz_machine_json(void);

/* The processors that this thread may run on, as "0-3,8", and the NUMA nodes that they belong to, alike; numa is ""
 * where that is not known. */
void mz_machine_place(char *cpus, size_t cpus_bytes, char *numa, size_t numa_bytes);

#endif
