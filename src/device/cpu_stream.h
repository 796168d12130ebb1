/* What the CPU kernels may ask of a CPU stream. Private to src/device and kernels/cpu. */
#ifndef MZ_DEVICE_CPU_STREAM_H
#define MZ_DEVICE_CPU_STREAM_H

#include "core/threads.h"
#include "device/device.h"

/* The thread pool that a kernel called with `stream` may spread over: the device's for a compute stream.
 * NULL (run in the caller alone) for a NULL stream and for streams with a worker thread, since a pool
 * serves one caller at a time. Borrowed; lives as long as the device. */
mz_threads *mz_cpu_stream_threads(mz_stream *stream);

/* At least `bytes` of work space, 64-byte aligned and not cleared, for the kernel that runs on `stream` now.
 * A compute stream keeps its largest block, so that nothing is allocated after the first training step; a
 * kernel without a pool gets a block of its own. Give it back before the kernel returns. MZ_ERR_MEMORY. */
mz_status mz_cpu_scratch_take(mz_stream *stream, size_t bytes, void **memory);
void mz_cpu_scratch_give(mz_stream *stream, void *memory);

/* Work space of each thread for itself: thread t's lies at first + t * distance bytes, and on a compute stream it
 * lies there for every kernel. A thread so writes to memory that no other core's cache holds, which between cores
 * without a common cache is up to 40 times faster. */
typedef struct mz_cpu_rooms {
    char *first;
    size_t distance;
} mz_cpu_rooms;

/* Rooms of at least `bytes`, 64-byte aligned and not cleared, for the threads of mz_cpu_stream_threads(stream).
 * Give them back before the kernel returns. MZ_ERR_MEMORY. */
mz_status mz_cpu_rooms_take(mz_stream *stream, size_t bytes, mz_cpu_rooms *rooms);
void mz_cpu_rooms_give(mz_stream *stream, mz_cpu_rooms *rooms);

#endif
