/* Choosing the next token from logits. */
#ifndef MZ_TRAIN_SAMPLING_H
#define MZ_TRAIN_SAMPLING_H

#include <stdint.h>

#include "mpizero/status.h"

typedef struct mz_sampling {
    double temperature; /* 0: greedy */
    int64_t top_k;      /* 0: all */
    double top_p;       /* 1: all */
    uint64_t seed;
} mz_sampling;

/* Temperature, then the top_k largest, then the smallest set whose probability reaches top_p, as transformers'
 * processors in that order. Ties go to the lower id. The draw is a function of (seed, sequence, position).
 * scratch: room for vocab indices. */
int32_t mz_sample_token(const mz_sampling *sampling, const float *logits, int64_t vocab, uint32_t sequence,
                        uint64_t position, int32_t *scratch);

#endif
