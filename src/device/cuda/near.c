#include <config.h>

#include "device/cuda/near.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#ifdef HAVE_HWLOC
#include <hwloc.h>
#include <hwloc/glibc-sched.h>
#endif

/* "0-15,64-79" of /sys; an empty set where there is none. */
static void read_near(const char *pci_address, cpu_set_t *near)
{
    char path[128], address[MZ_PCI_BYTES];
    int first, last, used = 0;
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

#ifdef HAVE_HWLOC
/* Only the bus is wanted: hwloc's own look at GPUs would start their driver on all of them. */
static bool load(hwloc_topology_t *topology)
{
    static const char *const unwanted[] = {"cuda", "nvml", "opencl", "gl", "rsmi", "levelzero"};
    if (hwloc_topology_init(topology))
        return false;
    for (size_t i = 0; i < sizeof unwanted / sizeof *unwanted; i++)
        hwloc_topology_set_components(*topology, HWLOC_TOPOLOGY_COMPONENTS_FLAG_BLACKLIST, unwanted[i]);
    hwloc_topology_set_io_types_filter(*topology, HWLOC_TYPE_FILTER_KEEP_NONE);
    hwloc_topology_set_type_filter(*topology, HWLOC_OBJ_PCI_DEVICE, HWLOC_TYPE_FILTER_KEEP_IMPORTANT);
    if (hwloc_topology_load(*topology) == 0)
        return true;
    hwloc_topology_destroy(*topology);
    return false;
}

static void ask_hwloc(char (*addresses)[MZ_PCI_BYTES], int n, cpu_set_t *near)
{
    hwloc_topology_t topology;
    if (!load(&topology))
        return;
    for (int i = 0; i < n; i++) {
        hwloc_obj_t gpu = addresses[i][0] ? hwloc_get_pcidev_by_busidstring(topology, addresses[i]) : NULL;
        hwloc_obj_t place = gpu ? hwloc_get_non_io_ancestor_obj(topology, gpu) : NULL;
        if (place)
            hwloc_cpuset_to_glibc_sched_affinity(topology, place->cpuset, &near[i], sizeof near[i]);
    }
    hwloc_topology_destroy(topology);
}
#endif

void mz_cuda_find_near(char (*addresses)[MZ_PCI_BYTES], int n, cpu_set_t *near)
{
    for (int i = 0; i < n; i++)
        CPU_ZERO(&near[i]);
#ifdef HAVE_HWLOC
    ask_hwloc(addresses, n, near);
#endif
    for (int i = 0; i < n; i++)
        if (addresses[i][0] && CPU_COUNT(&near[i]) == 0)
            read_near(addresses[i], &near[i]);
}

void mz_cuda_stay_near(const char *pci_address)
{
    cpu_set_t near, own, both;
    char address[1][MZ_PCI_BYTES];
    snprintf(address[0], sizeof address[0], "%s", pci_address);
    mz_cuda_find_near(address, 1, &near);
    if (sched_getaffinity(0, sizeof own, &own))
        return;
    CPU_AND(&both, &near, &own);
    if (CPU_COUNT(&both) > 0 && CPU_COUNT(&both) < CPU_COUNT(&own))
        sched_setaffinity(0, sizeof both, &both);
}
