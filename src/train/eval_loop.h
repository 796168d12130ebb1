/* The loss over a validation set. */
#ifndef MZ_TRAIN_EVAL_LOOP_H
#define MZ_TRAIN_EVAL_LOOP_H

#include "train/setup.h"
#include "train/trackers.h"

/* Collective. Takes the memory that an evaluation needs, or says what would fit. */
mz_status mz_eval_plan(mz_world *world, mz_engine *engine, const mz_setup *setup);

/* Collective. Every block once, spread over the ranks; fills eval_loss (mean over targets), perplexity, seconds. */
mz_status mz_eval_loop(mz_world *world, mz_engine *engine, const mz_setup *setup, mz_metrics *metrics);

#endif
