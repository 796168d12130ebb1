/* A model on the CPU with memory for all its parameters, and the fixtures to compare it with. */
#ifndef TESTS_MODEL_MODEL_RIG_H
#define TESTS_MODEL_MODEL_RIG_H

#include "checkpoint/safetensors.h"
#include "model/runner.h"
#include "tests/tensor/rig.h"

typedef struct model_rig {
    rig base;
    mz_model *model;
    mz_runner *runner;
    mz_weights *expected; /* the fixture's expected.safetensors */
    char folder[512];
} model_rig;

/* Opens tests/fixtures/NAME: the model with its weights in every parameter. */
void model_rig_open(model_rig *m, const char *name, int flags); /* of rig_open */
void model_rig_close(model_rig *m);
/* Memory for values and gradients of a runner's parameters, values from the model's own initialisation. */
void model_rig_alloc_params(rig *r, mz_runner *runner);
void model_rig_free_params(rig *r, mz_runner *runner);
void model_rig_clear_grads(mz_runner *runner);

/* A tensor of the fixture, NULL when it has none of that name; missing fails the test when `required`. */
const mz_weights_tensor *model_rig_expected(const model_rig *m, const char *name, bool required);
/* Rows [first, first + rows) of a fixture's array as an input; NULL when the fixture has none. */
mz_tensor *model_rig_input(model_rig *m, const char *name, int64_t first, int64_t rows);

/* max |a - b| / max |b| and |a - b| / |b|. */
typedef struct model_difference {
    double max, norm;
} model_difference;
model_difference model_compare(const float *a, const float *b, int64_t n);

#endif
