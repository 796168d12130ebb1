/* Trains small models on the runner and zero alone, without the engine, for the tests of this folder. */
#ifndef MZ_TESTS_ZERO_RIG_H
#define MZ_TESTS_ZERO_RIG_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "zero/internal.h"

#define CHECK(condition, ...)                                                                                      \
    do {                                                                                                           \
        if (!(condition)) {                                                                                        \
            rig_n_failures++;                                                                                      \
            fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #condition);                                        \
            fprintf(stderr, __VA_ARGS__);                                                                          \
            fputc('\n', stderr);                                                                                   \
        }                                                                                                          \
    } while (0)

/* For what the test cannot go on without. */
#define REQUIRE(call)                                                                                              \
    do {                                                                                                           \
        mz_status require_status = (call);                                                                         \
        if (require_status) {                                                                                      \
            fprintf(stderr, "%s:%d: %s: %s: %s\n", __FILE__, __LINE__, #call, mz_status_text(require_status),      \
                    mz_last_error());                                                                              \
            MPI_Abort(MPI_COMM_WORLD, 1);                                                                          \
        }                                                                                                          \
    } while (0)

extern int rig_n_failures;

enum { RIG_SAMPLES = 24, RIG_MICRO = 2, RIG_TOKENS = 10, RIG_VOCAB = 61, RIG_FEATURES = 7, RIG_TARGETS = 3 };

typedef struct rig {
    mz_config config;
    mz_device *device; /* borrowed, as model and comm */
    mz_comm *comm;
    int rank, size;
    mz_stream *stream;
    mz_runner *runner;
    mz_zero *zero;
    mz_arena *arena;
    mz_tape *tape;
    float *weights; /* loss_weight, grad_weight */
    double loss_scale;
    int64_t n_micro; /* per step */
    int poison_step; /* the step whose gradients become infinite on the last rank; -1: none */
} rig;

/* fp32, stage 0, AdamW, everything else as DeepSpeed's defaults. */
void rig_config(mz_config *config);
/* "gpt2": tied head; "untied gpt2". "mlp": a unit without parameters, a parameter that nothing uses, a weight used
 * by two units. `blocks` of the first. */
void rig_model(const char *kind, int blocks, mz_model **model);

/* Collective over comm; NULL: one rank. Parameters are drawn by name. */
mz_status rig_create(mz_device *device, mz_comm *comm, const mz_config *config, const mz_model *model, rig **out);
void rig_destroy(rig *r);

/* One optimiser step of the global batch `step`; *loss is its mean. */
void rig_step(rig *r, int64_t step, double *loss, mz_zero_step_info *info);
/* The loss of the global batch without gradients. */
double rig_eval(rig *r, int64_t step);

/* Collective over MPI_COMM_WORLD; ranks without a rig pass NULL. All elements of all tensors of one kind, in
 * the model's order, on every rank; counts[i] (may be NULL) how many ranks listed element i. Owned by the caller.
 */
float *rig_gather(const rig *r, const mz_model *model, mz_shard_kind kind, int **counts);
int64_t rig_elements(const mz_model *model);

/* A source for mz_zero_load_*: such an array. */
typedef struct rig_values {
    const mz_model *model;
    const float *values;
} rig_values;
mz_status rig_source(void *context, const mz_param_spec *spec, int64_t offset, int64_t count, float *dst);

#endif
