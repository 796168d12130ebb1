/* What the CPU kernels may ask of a CPU stream. Private to src/device and kernels/cpu. */
#ifndef MZ_DEVICE_CPU_STREAM_H
#define MZ_DEVICE_CPU_STREAM_H

#include "core/threads.h"
#include "device/device.h"

/* The thread pool that a kernel called with `stream` may spread over: the device's for a compute stream.
 * NULL (run in the caller alone) for a NULL stream and for streams with a worker thread, since a pool
 * serves one caller at a time. Borrowed; lives as long as the device. */
mz_threads *mz_cpu_stream_threads(mz_stream *stream);

#endif
