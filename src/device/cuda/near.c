#include "device/cuda/near.h"

#include <ctype.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

/* "0-15,64-79" of /sys; an empty set where there is none. */
static void read_near(const char *pci_address, cpu_set_t *near)
{
    char path[128], address[32];
    int first, last, used = 0;
    CPU_ZERO(near);
    snprintf(address, sizeof address, "%s", pci_address);
    for (char *c = address; *c; c++)
        *c = (char)tolower((unsigned char)*c);
    snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/local_cpulist", address);
    FILE *f = fopen(path, "r");
    if (!f)
        return;
    while ((used = fscanf(f, "%d-%d", &first, &last)) >= 1) {
        for (int cpu = first; cpu <= (used == 2 ? last : first) && cpu < CPU_SETSIZE; cpu++)
            CPU_SET(cpu, near);
        if (fgetc(f) != ',')
            break;
    }
    fclose(f);
}

void mz_cuda_stay_near(const char *pci_address)
{
    cpu_set_t near, own, both;
    read_near(pci_address, &near);
    if (sched_getaffinity(0, sizeof own, &own))
        return;
    CPU_AND(&both, &near, &own);
    if (CPU_COUNT(&both) > 0 && CPU_COUNT(&both) < CPU_COUNT(&own))
        sched_setaffinity(0, sizeof both, &both);
}
