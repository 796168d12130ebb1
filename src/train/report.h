/* The reports that a configuration asks for: dump_state, wall_clock_breakdown, comms_logger, flops_profiler.
 * Printed by rank 0 beside the progress. */
#ifndef MZ_TRAIN_REPORT_H
#define MZ_TRAIN_REPORT_H

#include "mpizero/engine.h"
#include "train/progress.h"

/* Host seconds in the parts of a step, summed until they are shown. */
typedef struct mz_step_times {
    double forward, backward, step;
    int64_t n_micro, n_steps;
} mz_step_times;

/* times: before forward, after forward, after backward, after step. */
void mz_step_times_add(mz_step_times *sums, const double times[4]);

void mz_report_start(const mz_config *config, mz_progress *progress);
/* After each step; clears `times` when it has shown them. */
void mz_report_step(const mz_config *config, const mz_engine *engine, mz_progress *progress,
                    const mz_metrics *metrics, mz_step_times *times);
void mz_report_end(const mz_config *config, const mz_engine *engine, mz_progress *progress);

#endif
