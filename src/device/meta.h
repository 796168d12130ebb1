/* Between the meta device (meta.c) and its kernel table (meta_kernels.c). */
#ifndef MZ_DEVICE_META_H
#define MZ_DEVICE_META_H

#include "kernels/kernels.h"

/* Checks arguments and counts the work; reads no device memory. */
extern const mz_kernels mz_kernels_meta;

/* Adds to what the stream's device counted. A NULL stream counts nowhere. */
void mz_meta_count(mz_stream *stream, const mz_meta_counts *more);

#endif
