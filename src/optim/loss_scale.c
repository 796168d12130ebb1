#include "optim/loss_scale.h"

#include <math.h>

#include "core/error.h"
#include "core/log.h"

void mz_loss_scaler_init(mz_loss_scaler *scaler, const mz_config *config)
{
    const mz_fp16_config *fp16 = &config->fp16;
    bool half = config->dtype == MZ_F16;
    *scaler = (mz_loss_scaler){
        .dynamic = half && fp16->loss_scale == 0,
        .scale = half && fp16->loss_scale > 0 ? fp16->loss_scale : 1,
        .min_scale = fp16->min_loss_scale,
        .window = fp16->loss_scale_window,
        .iteration = 0,
        .last_overflow = -1,
        .hysteresis = fp16->hysteresis,
        .hysteresis_left = fp16->hysteresis,
        .consecutive_hysteresis = fp16->consecutive_hysteresis,
    };
    if (scaler->dynamic)
        scaler->scale = ldexp(1, fp16->initial_scale_power);
}

/* An overflow spends hysteresis first; only when one is left does it halve the scale. */
static mz_status after_overflow(mz_loss_scaler *scaler)
{
    const char *front = "[deepspeed] OVERFLOW! Rank 0 Skipping step. Attempted loss scale";
    if (scaler->hysteresis != 1 && scaler->hysteresis_left != 1) {
        mz_log_root(MZ_LOG_INFO, "%s: %.0f, but hysteresis is %d. Reducing hysteresis to %d", front, scaler->scale,
                    scaler->hysteresis_left, scaler->hysteresis_left - 1);
        scaler->hysteresis_left--;
        return MZ_OK;
    }
    if (scaler->scale == scaler->min_scale)
        return mz_fail(
            MZ_ERR_NONFINITE,
            "Current loss scale already at minimum - cannot decrease scale anymore. Exiting run. (Scale %g after "
            "%lld steps: gradients overflow at any scale; lower the learning rate, or train in bf16.)",
            scaler->scale, (long long)scaler->iteration);
    double next = fmax(scaler->scale / 2, scaler->min_scale);
    mz_log_root(MZ_LOG_INFO, "%s: %.0f, reducing to %.0f", front, scaler->scale, next);
    scaler->scale = next;
    return MZ_OK;
}

static void after_clean_step(mz_loss_scaler *scaler)
{
    int64_t clean = scaler->iteration - scaler->last_overflow - 1;
    if (scaler->consecutive_hysteresis)
        scaler->hysteresis_left = scaler->hysteresis;
    if (clean > 0 && clean % scaler->window == 0) {
        scaler->hysteresis_left = scaler->hysteresis;
        scaler->scale *= 2;
    }
}

mz_status mz_loss_scaler_update(mz_loss_scaler *scaler, bool overflow)
{
    mz_status status = MZ_OK;
    if (!scaler->dynamic) {
        if (overflow)
            mz_log_root(MZ_LOG_WARN,
                        "[deepspeed] OVERFLOW! Skipping step. Gradients are non-finite, weights were not updated.");
        scaler->iteration++;
        return MZ_OK;
    }
    if (overflow)
        status = after_overflow(scaler);
    else
        after_clean_step(scaler);
    if (status != MZ_OK)
        return status;
    if (overflow)
        scaler->last_overflow = scaler->iteration;
    scaler->iteration++;
    return MZ_OK;
}
