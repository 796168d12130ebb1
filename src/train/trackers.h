/* Where a run's figures go: metrics.jsonl, TensorBoard event files, DeepSpeed's CSV monitor. Rank 0 only. */
#ifndef MZ_TRAIN_TRACKERS_H
#define MZ_TRAIN_TRACKERS_H

#include <stdbool.h>
#include <stdint.h>

#include "mpizero/config.h"
#include "mpizero/status.h"

typedef struct mz_metrics {
    int64_t step, tokens_seen, memory_bytes;
    double epoch;
    /* a training step */
    double loss, learning_rate, grad_norm, loss_scale, step_seconds, tokens_per_second, exposed_seconds;
    bool skipped;
    /* an evaluation */
    bool is_eval;
    double eval_loss, perplexity, eval_seconds;
} mz_metrics;

typedef struct mz_trackers mz_trackers;

/* Appends to FOLDER/metrics.jsonl; lines of steps after `resumed_step` (a run that went on further and was lost)
 * are dropped first. Event files go to FOLDER/tensorboard when `tensorboard`, and where the configuration's
 * tensorboard and csv_monitor blocks say. */
mz_status mz_trackers_create(const char *folder, const mz_config *config, bool tensorboard, int64_t resumed_step,
                             mz_trackers **trackers);
void mz_trackers_destroy(mz_trackers *trackers); /* NULL is legal */
/* A full disk must not end a training run: a failure warns once. NULL is legal. */
void mz_trackers_put(mz_trackers *trackers, const mz_metrics *metrics);

#endif
