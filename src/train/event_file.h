/* TensorBoard event files: TFRecord framing around a small protocol buffer (tensorflow/core/util/event.proto). */
#ifndef MZ_TRAIN_EVENT_FILE_H
#define MZ_TRAIN_EVENT_FILE_H

#include <stdint.h>
#include <stdio.h>

#include "mpizero/status.h"

typedef struct mz_event_scalar {
    const char *tag;
    double value;
} mz_event_scalar;

/* Creates FOLDER/events.out.tfevents.<time>.<host>.<pid> with its version record. */
mz_status mz_event_file_open(const char *folder, FILE **file);
/* One record with n scalars; false when the write failed. */
int mz_event_file_put(FILE *file, int64_t step, const mz_event_scalar *scalars, int n);

#endif
