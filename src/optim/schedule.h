/* Learning-rate schedules with DeepSpeed's formulas (runtime/lr_schedules.py), as pure functions of the
 * iteration, so that a resume needs nothing but the step. */
#ifndef MZ_OPTIM_SCHEDULE_H
#define MZ_OPTIM_SCHEDULE_H

#include "mpizero/config.h"

/* Learning rate and momentum (Adam: beta1) of optimiser step `iteration` (0 is the first step taken).
 * `base_lr` is the optimiser's own. momentum is left as it is unless the schedule moves it. */
void mz_schedule_at(const mz_scheduler_config *schedule, double base_lr, int64_t iteration, double *lr,
                    double *momentum);

#endif
