/* What a cluster does in a second, as measured or as claimed: the numbers behind a predicted step. */
#ifndef MZ_TRAIN_RATES_H
#define MZ_TRAIN_RATES_H

#include "comm/predicted.h"

/* 0: not known. */
typedef struct mz_rates {
    double flops;  /* per second and rank in forward and backward passes, counted as 6 N + 12 L H Q T per token */
    double tokens; /* instead of flops: per second, of one rank alone in whole steps of the model to be predicted */
    double updates; /* parameters per second and rank in the optimiser and the gradients' norm */
    double
        overlap_cost; /* of a second of communication that compute hides, the part by which compute takes longer */
    mz_links links;
} mz_rates;

/* Local. Fills what is 0 in *rates from files that bench collectives --json and bench train --json wrote, several
 * separated by commas. A bench of collectives on one node tells the inner links, one on several the outer:
 * bandwidth from how the times of the smallest and the largest all-gather and reduce-scatter differ, latency from
 * what is left of the smallest. MZ_ERR_IO, MZ_ERR_CONFIG. */
mz_status mz_rates_read(const char *paths, mz_rates *rates);

#endif
