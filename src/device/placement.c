#include "device/placement.h"

#include <limits.h>

/* The process that has not chosen yet and may run on the fewest processors. */
static int next_to_choose(const cpu_set_t *own, int n_processes, const int *device_of)
{
    int next = -1;
    for (int r = 0; r < n_processes; r++)
        if (device_of[r] < 0 && (next < 0 || CPU_COUNT(&own[r]) < CPU_COUNT(&own[next])))
            next = r;
    return next;
}

static int times_taken(int device, const int *device_of, int n_processes)
{
    int n = 0;
    for (int r = 0; r < n_processes; r++)
        n += device_of[r] == device;
    return n;
}

static int choose(const cpu_set_t *near, int n_devices, const cpu_set_t *own, const int *device_of, int n_processes)
{
    int best = 0, fewest = INT_MAX, most = -1;
    for (int d = 0; d < n_devices; d++) {
        cpu_set_t both;
        CPU_AND(&both, &near[d], own);
        int taken = times_taken(d, device_of, n_processes), shared = CPU_COUNT(&both);
        if (taken < fewest || (taken == fewest && shared > most)) {
            best = d;
            fewest = taken;
            most = shared;
        }
    }
    return best;
}

void mz_place(const cpu_set_t *near, int n_devices, const cpu_set_t *own, int n_processes, int *device_of)
{
    for (int r = 0; r < n_processes; r++)
        device_of[r] = -1;
    for (int i = 0; i < n_processes; i++) {
        int r = next_to_choose(own, n_processes, device_of);
        device_of[r] = choose(near, n_devices, &own[r], device_of, n_processes);
    }
}
