#include <config.h>

#include "cli/machine.h"

#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#ifdef HAVE_HWLOC

#include <hwloc.h>

static hwloc_topology_t load(bool with_devices)
{
    hwloc_topology_t topology;
    if (hwloc_topology_init(&topology))
        return NULL;
    if (with_devices)
        hwloc_topology_set_io_types_filter(topology, HWLOC_TYPE_FILTER_KEEP_IMPORTANT);
    if (hwloc_topology_load(topology) == 0)
        return topology;
    hwloc_topology_destroy(topology);
    return NULL;
}

/* The NUMA node that a device hangs on; -1: none, or several. */
static int numa_of(hwloc_topology_t topology, hwloc_obj_t device)
{
    hwloc_obj_t near = hwloc_get_non_io_ancestor_obj(topology, device);
    if (!near || !near->nodeset || hwloc_bitmap_weight(near->nodeset) != 1)
        return -1;
    return hwloc_bitmap_first(near->nodeset);
}

static void address_of(hwloc_obj_t device, char *text, size_t bytes)
{
    while (device && device->type != HWLOC_OBJ_PCI_DEVICE)
        device = device->parent;
    if (!device)
        return;
    const struct hwloc_pcidev_attr_s *pci = &device->attr->pcidev;
    snprintf(text, bytes, "%04x:%02x:%02x.%01x", pci->domain, pci->bus, pci->dev, pci->func);
}

static json_t *device_json(hwloc_topology_t topology, hwloc_obj_t device, const char *name, const char *kind)
{
    char address[32] = "";
    address_of(device, address, sizeof address);
    return json_pack("{s:s, s:s, s:s, s:i}", "name", name, "kind", kind, "address", address, "numa",
                     numa_of(topology, device));
}

static void add_networks(hwloc_topology_t topology, json_t *networks)
{
    for (hwloc_obj_t o = NULL; (o = hwloc_get_next_osdev(topology, o));) {
        if (o->attr->osdev.type == HWLOC_OBJ_OSDEV_NETWORK)
            json_array_append_new(networks, device_json(topology, o, o->name, "ethernet"));
        else if (o->attr->osdev.type == HWLOC_OBJ_OSDEV_OPENFABRICS)
            json_array_append_new(networks, device_json(topology, o, o->name, "openfabrics"));
    }
}

static void add_gpus(hwloc_topology_t topology, json_t *gpus)
{
    enum { DISPLAY_CLASS = 0x03 };
    for (hwloc_obj_t o = NULL; (o = hwloc_get_next_pcidev(topology, o));) {
        const char *name = hwloc_obj_get_info_by_name(o, "PCIDevice");
        const char *vendor = hwloc_obj_get_info_by_name(o, "PCIVendor");
        if (o->attr->pcidev.class_id >> 8 == DISPLAY_CLASS)
            json_array_append_new(gpus, device_json(topology, o, name ? name : vendor ? vendor : "GPU", "pci"));
    }
}

static void add_numa(hwloc_topology_t topology, json_t *numa)
{
    for (hwloc_obj_t o = NULL; (o = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_NUMANODE, o));) {
        char cpus[256];
        hwloc_bitmap_list_snprintf(cpus, sizeof cpus, o->cpuset);
        json_array_append_new(numa, json_pack("{s:i, s:s, s:f}", "numa", (int)o->os_index, "cpus", cpus,
                                              "memory_bytes", (double)o->attr->numanode.local_memory));
    }
}

static void fill(json_t *numa, json_t *gpus, json_t *networks, int counts[3])
{
    static const hwloc_obj_type_t types[3] = {HWLOC_OBJ_PACKAGE, HWLOC_OBJ_CORE, HWLOC_OBJ_PU};
    hwloc_topology_t topology = load(true);
    if (!topology)
        return;
    for (int i = 0; i < 3; i++) {
        int n = hwloc_get_nbobjs_by_type(topology, types[i]);
        counts[i] = n > 0 ? n : 0;
    }
    add_numa(topology, numa);
    add_gpus(topology, gpus);
    add_networks(topology, networks);
    hwloc_topology_destroy(topology);
}

static void numa_of_cpus(const cpu_set_t *set, char *text, size_t bytes)
{
    hwloc_topology_t topology = load(false);
    hwloc_bitmap_t cpus = hwloc_bitmap_alloc(), nodes = hwloc_bitmap_alloc();
    for (int cpu = 0; cpu < CPU_SETSIZE && cpus; cpu++)
        if (CPU_ISSET(cpu, set))
            hwloc_bitmap_set(cpus, (unsigned)cpu);
    if (topology && cpus && nodes) {
        hwloc_cpuset_to_nodeset(topology, cpus, nodes);
        hwloc_bitmap_list_snprintf(text, bytes, nodes);
    }
    hwloc_bitmap_free(cpus);
    hwloc_bitmap_free(nodes);
    if (topology)
        hwloc_topology_destroy(topology);
}

#else

static void fill(json_t *numa, json_t *gpus, json_t *networks, int counts[3])
{
    (void)numa;
    (void)gpus;
    (void)networks;
    (void)counts;
}

static void numa_of_cpus(const cpu_set_t *set, char *text, size_t bytes)
{
    (void)set;
    (void)text;
    (void)bytes;
}

#endif

json_t *mz_machine_json(void)
{
    int counts[3] = {0};
    json_t *numa = json_array(), *gpus = json_array(), *networks = json_array();
    fill(numa, gpus, networks, counts);
    return json_pack("{s:i, s:i, s:i, s:o, s:o, s:o}", "packages", counts[0], "cores", counts[1], "threads",
                     counts[2], "numa", numa, "gpus", gpus, "networks", networks);
}

void mz_machine_place(char *cpus, size_t cpus_bytes, char *numa, size_t numa_bytes)
{
    cpu_set_t set;
    size_t length = 0;
    snprintf(cpus, cpus_bytes, "%s", "");
    snprintf(numa, numa_bytes, "%s", "");
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set))
        return;
    for (int first = 0, last; first < CPU_SETSIZE && length < cpus_bytes; first = last + 1) {
        last = first;
        if (!CPU_ISSET(first, &set))
            continue;
        while (last + 1 < CPU_SETSIZE && CPU_ISSET(last + 1, &set))
            last++;
        int n = snprintf(cpus + length, cpus_bytes - length, last > first ? "%s%d-%d" : "%s%d", length ? "," : "",
                         first, last);
        length += n > 0 ? (size_t)n : 0;
    }
    numa_of_cpus(&set, numa, numa_bytes);
}
