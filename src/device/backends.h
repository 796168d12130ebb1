/* The backends of this build, for the registry in device.c. */
#ifndef MZ_DEVICE_BACKENDS_H
#define MZ_DEVICE_BACKENDS_H

#include "device/device.h"

extern const mz_device_ops mz_cpu_ops;
extern const mz_device_ops mz_meta_ops;
extern const mz_device_ops mz_cuda_ops; /* where HAVE_CUDA is defined (config.h) */

/* The name of the first empty slot of a table, NULL when every slot is filled. */
const char *mz_device_ops_empty_slot(const mz_device_ops *ops);
const char *mz_kernels_empty_slot(const mz_kernels *kernels);

#endif
