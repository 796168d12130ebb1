/* The CPU backend: host memory is device memory, and streams are this process's threads (cpu_queue.c). */
#include <stdio.h>
#include <string.h>

#include "core/error.h"
#include "core/memory.h"
#include "device/backends.h"
#include "device/cpu_queue.h"
#include "kernels/cpu/cpu.h"

/* A page: large blocks can then be written past the system's cache, from where they lie. */
#define ALIGNMENT ((size_t)4096)

/* "AMD EPYC 9654 96-Core Processor", or "processor" where the system does not tell. */
static void processor_name(char *name, size_t bytes)
{
    snprintf(name, bytes, "processor");
    FILE *f = fopen("/proc/cpuinfo", "r");
    if (!f)
        return;
    char line[256];
    while (fgets(line, sizeof line, f)) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) || !colon)
            continue;
        line[strcspn(line, "\n")] = '\0';
        snprintf(name, bytes, "%s", colon + 1 + strspn(colon + 1, " \t"));
        break;
    }
    fclose(f);
}

static int cpu_count(void)
{
    return 1;
}

static void cpu_near(cpu_set_t *cpus, int n)
{
    for (int i = 0; i < n; i++)
        CPU_ZERO(&cpus[i]);
}

static mz_status cpu_open(mz_device *device)
{
    mz_cpu_device *cpu = mz_calloc(1, sizeof *cpu);
    if (!cpu)
        return MZ_ERR_MEMORY;
    device->impl = cpu;
    mz_status status = mz_threads_create(device->n_threads, &cpu->threads);
    if (status)
        return status;
    char name[80];
    processor_name(name, sizeof name);
    snprintf(device->label, sizeof device->label, "CPU %s, %s, %d thread%s", name, mz_kernels_cpu_isa(),
             device->n_threads, device->n_threads == 1 ? "" : "s");
    return MZ_OK;
}

static void cpu_close(mz_device *device)
{
    mz_cpu_device *cpu = device->impl;
    if (!cpu)
        return;
    mz_threads_destroy(cpu->threads);
    mz_free(cpu);
}

/* The block that the host allocator gave stands just before the aligned address. */
static mz_status cpu_alloc(mz_device *device, size_t bytes, void **memory)
{
    if (bytes > SIZE_MAX - ALIGNMENT)
        return mz_fail(MZ_ERR_MEMORY, "%s: %zu bytes asked for", device->label, bytes);
    char *block = mz_alloc_aligned(bytes + ALIGNMENT);
    if (!block)
        return MZ_ERR_MEMORY;
    char *aligned = block + ALIGNMENT - (uintptr_t)block % ALIGNMENT;
    memcpy(aligned - sizeof block, &block, sizeof block);
    *memory = aligned;
    return MZ_OK;
}

static void cpu_free(mz_device *device, void *memory)
{
    (void)device;
    if (!memory)
        return;
    char *block;
    memcpy(&block, (char *)memory - sizeof block, sizeof block);
    mz_free(block);
}

/* What can be had without swapping, within what a cgroup leaves. */
static size_t available_bytes(size_t total)
{
    FILE *f = fopen("/proc/meminfo", "r");
    if (!f)
        return total;
    char line[128];
    size_t kilobytes, available = total;
    while (fgets(line, sizeof line, f))
        if (sscanf(line, "MemAvailable: %zu kB", &kilobytes) == 1)
            available = kilobytes * 1024;
    fclose(f);
    size_t resident = mz_memory_resident(), limit = resident < total ? total - resident : 0;
    return available < limit ? available : limit;
}

static mz_status cpu_memory_info(mz_device *device, size_t *free_bytes, size_t *total_bytes)
{
    (void)device;
    *total_bytes = mz_memory_total();
    *free_bytes = available_bytes(*total_bytes);
    return MZ_OK;
}

static mz_status cpu_check(mz_stream *stream)
{
    (void)stream;
    return MZ_OK;
}

const mz_device_ops mz_cpu_ops = {
    .name = "cpu",
    .count = cpu_count,
    .near = cpu_near,
    .open = cpu_open,
    .close = cpu_close,
    .alloc = cpu_alloc,
    .free = cpu_free,
    .alloc_pinned = cpu_alloc,
    .free_pinned = cpu_free,
    .memory_info = cpu_memory_info,
    .stream_create = mz_cpu_stream_create,
    .stream_destroy = mz_cpu_stream_destroy,
    .stream_sync = mz_cpu_stream_sync,
    .event_create = mz_cpu_event_create,
    .event_destroy = mz_cpu_event_destroy,
    .event_record = mz_cpu_event_record,
    .event_sync = mz_cpu_event_sync,
    .event_done = mz_cpu_event_done,
    .event_elapsed = mz_cpu_event_elapsed,
    .wait = mz_cpu_wait,
    .copy = mz_cpu_copy,
    .copy_2d = mz_cpu_copy_2d,
    .fill = mz_cpu_fill,
    .host_call = mz_cpu_host_call,
    .post = mz_cpu_post,
    .await = mz_cpu_await,
    .check = cpu_check,
    .kernels = &mz_kernels_cpu,
};
