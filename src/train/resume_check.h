/* Comparing a resumed run with the one that saved. */
#ifndef MZ_TRAIN_RESUME_CHECK_H
#define MZ_TRAIN_RESUME_CHECK_H

#include <stdbool.h>
#include <stdint.h>

#include "mpizero/status.h"

/* extra: what the training loop put into the checkpoint (JSON), NULL: nothing known. Another global batch or block
 * size is an error; other data, seed or order a warning. `data` is the data set's fingerprint in hexadecimal. */
mz_status mz_resume_check(const char *extra, int64_t global_batch, int64_t block_size, const char *data,
                          uint64_t seed, bool shuffle);

#endif
