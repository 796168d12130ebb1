/* A training step played on the meta device with the time that it would take: the units' passes, ZeRO's gathers and
 * reductions and the update are issued by the very code that trains, to streams that keep time. */
#ifndef MZ_TRAIN_PREDICT_H
#define MZ_TRAIN_PREDICT_H

#include "train/rates.h"
#include "train/engine_impl.h"

typedef struct mz_prediction {
    mz_zero_memory memory;
    double step;           /* seconds of an optimiser step; 0: no rates of compute were given */
    double exposed;        /* of these, in which compute waits for communication */
    double communication;  /* of all collectives */
    double sent, received; /* bytes a step: by each rank, and into each node */
} mz_prediction;

/* Local. One optimiser step of rank 0 of n_nodes * per_node, the second of two, so that what a step leaves to the
 * next is in it. rates->tokens is not looked at: flops are what counts. */
mz_status mz_predict_step(const mz_model *model, const mz_config *config, const mz_batch *shapes, int n_nodes,
                          int per_node, const mz_rates *rates, mz_prediction *prediction);

/* What bench train counts for a token: 6 N + 12 L H Q T. */
double mz_flops_per_token(const mz_model *model, int64_t block_size);

#endif
