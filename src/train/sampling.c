#include "train/sampling.h"

#include <math.h>
#include <stdlib.h>

#include "core/rng.h"

static int32_t largest(const float *logits, int64_t vocab)
{
    int32_t best = 0;
    for (int64_t i = 1; i < vocab; i++)
        if (logits[i] > logits[best])
            best = (int32_t)i;
    return best;
}

static int by_logit(const void *a, const void *b, void *context)
{
    const float *logits = context;
    int32_t i = *(const int32_t *)a, j = *(const int32_t *)b;
    if (logits[i] != logits[j])
        return logits[i] > logits[j] ? -1 : 1;
    return i < j ? -1 : 1;
}

int32_t mz_sample_token(const mz_sampling *sampling, const float *logits, int64_t vocab, uint32_t sequence,
                        uint64_t position, int32_t *scratch)
{
    if (sampling->temperature <= 0)
        return largest(logits, vocab);
    for (int64_t i = 0; i < vocab; i++)
        scratch[i] = (int32_t)i;
    qsort_r(scratch, (size_t)vocab, sizeof *scratch, by_logit, (void *)logits);

    int64_t n = sampling->top_k > 0 && sampling->top_k < vocab ? sampling->top_k : vocab;
    double top = logits[scratch[0]], total = 0, kept = 0;
    for (int64_t i = 0; i < n; i++)
        total += exp((logits[scratch[i]] - top) / sampling->temperature);
    for (int64_t i = 0; i < n; i++) {
        kept += exp((logits[scratch[i]] - top) / sampling->temperature);
        if (kept >= sampling->top_p * total) {
            n = i + 1;
            break;
        }
    }
    double draw = (double)mz_rng_uniform(mz_rng_u32(sampling->seed, sequence, position, 0)) * kept;
    for (int64_t i = 0; i < n; i++) {
        draw -= exp((logits[scratch[i]] - top) / sampling->temperature);
        if (draw < 0)
            return scratch[i];
    }
    return scratch[n - 1];
}
