/* Which processors lie near a GPU, by its place on the PCI bus. */
#ifndef MZ_DEVICE_CUDA_NEAR_H
#define MZ_DEVICE_CUDA_NEAR_H

#include <sched.h>

enum { MZ_PCI_BYTES = 32, MZ_MAX_NEAR = 64 };

/* near[i]: the processors next to the PCI device addresses[i] ("0000:1b:00.0"), as hwloc says where it is built in, or
 * else the kernel; empty where neither knows. */
void mz_cuda_find_near(char (*addresses)[MZ_PCI_BYTES], int n, cpu_set_t *near);

/* Keeps the calling thread, and those that it starts from now on, to the processors near the GPU, and so the pinned
 * memory that they touch first. What a launcher chose is kept where it is narrower or elsewhere. */
void mz_cuda_stay_near(const char *pci_address);

#endif
