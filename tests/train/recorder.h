/* Graphs on the CPU: a table over a device's own, by which kernels, copies and fills that a stream is given between
 * begin and end are kept instead of done, and done when the graph is launched. What cannot be recorded on a GPU
 * fails here while something is being recorded. One device at a time in a process. */
#ifndef MZ_TESTS_TRAIN_RECORDER_H
#define MZ_TESTS_TRAIN_RECORDER_H

#include "device/device.h"

/* The device has graphs from here on. Its work in between is its own's. */
void recorder_install(mz_device *device);

#endif
