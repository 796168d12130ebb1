/* What a person sees of a run: one live line on a terminal, plain lines elsewhere. Rank 0 only. */
#ifndef MZ_TRAIN_PROGRESS_H
#define MZ_TRAIN_PROGRESS_H

#include <stdbool.h>

#include "train/trackers.h"

typedef struct mz_progress {
    bool on, live;  /* shown at all; standard output is a terminal */
    bool line_open; /* the live line has no newline yet */
    int64_t max_steps, first_step, logging_steps;
    double peak_flops;     /* of all ranks; 0: unknown */
    double flops_per_step; /* model FLOPs of one optimiser step over all ranks */
    double started, last_shown;
    double mean_seconds; /* smoothed */
} mz_progress;

void mz_progress_start(mz_progress *progress);
void mz_progress_step(mz_progress *progress, const mz_metrics *metrics);
void mz_progress_eval(mz_progress *progress, const mz_metrics *metrics);
/* A message line that does not disturb the live one. */
void mz_progress_say(mz_progress *progress, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
