/* What tests of tensors need: the CPU device over the reference kernels, a growing arena, a tape, parameters. */
#ifndef TESTS_TENSOR_RIG_H
#define TESTS_TENSOR_RIG_H

#include "device/arena.h"
#include "device/device.h"
#include "kernels/kernels.h"
#include "mpizero/nn.h"
#include "tensor/tape.h"

typedef struct rig {
    mz_device *device;
    mz_device_ops ops; /* the device's own, over the kernels under test */
    mz_stream *stream;
    mz_arena *arena;
    mz_tape *tape;
    mz_dtype dtype, grad_dtype;
    mz_rng_state rng;
    float loss_weight, grad_weight;
} rig;

enum {
    RIG_REFERENCE = 1, /* kernels/ref instead of the device's best */
    RIG_RECOMPUTE = 2, /* the tape's MZ_RECOMPUTE_ALL */
    RIG_BF16 = 4,      /* parameters and activations; else fp32 */
    RIG_F16 = 8,
    RIG_GRAD_F32 = 16 /* parameters' gradients; else as parameters */
};

/* device_name "cpu" or "meta". Fails the test on error. */
void rig_open(rig *r, const char *device_name, int flags);
void rig_close(rig *r); /* also checks that the arena is empty after a reset */

/* Numbers around 0 that depend on `seed` alone. */
void rig_fill(float *x, int64_t n, uint64_t seed, float scale);

/* A fp32 tensor of the tape with random contents. */
mz_tensor *rig_tensor(rig *r, int n_dims, const int64_t *shape, uint64_t seed);
/* An int32 tensor over the ids. */
mz_tensor *rig_ids(rig *r, int n_dims, const int64_t *shape, const int32_t *ids);

/* A parameter with memory for values and gradient, random contents. */
void rig_param(mz_param *param, const char *name, int n_dims, int64_t d0, int64_t d1, uint64_t seed);
void rig_param_free(mz_param *param);

/* Fails the test with the library's message. */
void rig_ok(mz_status status, const char *what);

#endif
