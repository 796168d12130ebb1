/* The rate of matrix products that a device can reach, for the share of peak (MFU). */
#ifndef MZ_TRAIN_PEAK_H
#define MZ_TRAIN_PEAK_H

#include "device/device.h"

/* FLOP/s of a large product in `dtype`: the best of a few, some tens of milliseconds in all. 0 when it could not be
 * measured. Allocates and frees; call it before the first step. */
double mz_peak_flops(mz_device *device, mz_stream *stream, mz_dtype dtype);

#endif
