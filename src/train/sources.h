/* Where parameter values come from: a model's own initialisation, a weights folder, a checkpoint. All are
 * mz_param_source functions (zero/zero.h): any rank may ask for any range. */
#ifndef MZ_TRAIN_SOURCES_H
#define MZ_TRAIN_SOURCES_H

#include "checkpoint/checkpoint.h"
#include "checkpoint/safetensors.h"
#include "core/threads.h"
#include "model/runner.h"
#include "zero/zero.h"

typedef struct mz_init_source {
    uint64_t seed;
    mz_threads *threads; /* borrowed; NULL: the caller draws alone */
} mz_init_source;
/* Draws depend on (seed, name, element) alone, so every partition starts from the same values. */
mz_status mz_init_source_read(void *context, const mz_param_spec *spec, int64_t offset, int64_t count, float *dst);

typedef struct mz_weights_source {
    const mz_weights *weights;
    const mz_model *model;
} mz_weights_source;
mz_status mz_weights_source_read(void *context, const mz_param_spec *spec, int64_t offset, int64_t count,
                                 float *dst);
/* Does the folder hold every parameter of the model in its shape? Tells the first that is missing or differs;
 * warns of tensors that the model does not know. */
mz_status mz_weights_check(const mz_weights *weights, const mz_model *model, const char *folder);

typedef struct mz_checkpoint_source {
    mz_checkpoint *checkpoint;
    mz_shard_kind kind;
} mz_checkpoint_source;
mz_status mz_checkpoint_source_read(void *context, const mz_param_spec *spec, int64_t offset, int64_t count,
                                    float *dst);
/* Does the checkpoint hold every parameter of the model in its shape? */
mz_status mz_checkpoint_check(const mz_checkpoint *checkpoint, const mz_model *model);

#endif
