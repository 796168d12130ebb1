/* Loss scaling with DeepSpeed's rules (runtime/fp16/loss_scaler.py): dynamic with window, hysteresis and
 * minimum, or static. */
#ifndef MZ_OPTIM_LOSS_SCALE_H
#define MZ_OPTIM_LOSS_SCALE_H

#include <stdbool.h>

#include "mpizero/config.h"

/* Plain data: saved in checkpoints as it is. */
typedef struct mz_loss_scaler {
    bool dynamic;
    double scale, min_scale;
    int64_t window, iteration, last_overflow;
    int hysteresis, hysteresis_left;
    bool consecutive_hysteresis;
} mz_loss_scaler;

/* fp16: as configured. Other dtypes: static, scale 1. */
void mz_loss_scaler_init(mz_loss_scaler *scaler, const mz_config *config);

/* After each step: overflow says whether a gradient was infinite or NaN. MZ_ERR_NONFINITE with DeepSpeed's
 * message when the scale is at its minimum and overflows again. Logs as DeepSpeed does, from rank 0. */
mz_status mz_loss_scaler_update(mz_loss_scaler *scaler, bool overflow);

#endif
