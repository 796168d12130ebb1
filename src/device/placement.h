/* Which device each process of a machine takes, by the processors that lie near. */
#ifndef MZ_DEVICE_PLACEMENT_H
#define MZ_DEVICE_PLACEMENT_H

#include <sched.h>

/* near[d]: the processors near device d; empty: not known. own[r]: those that process r may run on. Processes that may
 * run on fewer processors choose first, then those of lower number. Each takes, of the devices that the fewest have
 * taken, the one with most of its own processors near, and of equals the first: so where nobody is bound, process r
 * takes device r modulo n_devices. Every process that knows the same comes to the same. device_of: [n_processes]. */
void mz_place(const cpu_set_t *near, int n_devices, const cpu_set_t *own, int n_processes, int *device_of);

#endif
