/* In place of a GPU and of NCCL, so that the way of GPU memory between nodes runs where there is no GPU: a CPU
 * device that passes for a GPU, and whose kernels are stream-ordered as a GPU's, and a node transport through
 * shared memory that does its work on the stream. A program linked with this has mz_nccl_create from here. */
#ifndef MZ_TESTS_COMM_GPU_DOUBLE_H
#define MZ_TESTS_COMM_GPU_DOUBLE_H

#include "device/device.h"

/* Makes a CPU device the double of a GPU, the one with this number on its machine. */
void gpu_double_become(mz_device *device, int number);

#endif
