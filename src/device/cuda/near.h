/* Which processors lie near a GPU, by what the kernel says of its place on the PCI bus. */
#ifndef MZ_DEVICE_CUDA_NEAR_H
#define MZ_DEVICE_CUDA_NEAR_H

/* Keeps the calling thread, and those that it starts from now on, to the processors of the GPU's NUMA node, and so
 * the pinned memory that they touch first. What a launcher chose is kept where it is narrower or elsewhere. */
void mz_cuda_stay_near(const char *pci_address);

#endif
