#include "tests/tensor/rig.h"

#include <string.h>

#include "tests/core/cmocka_all.h"

#include "core/memory.h"
#include "core/rng.h"

void rig_ok(mz_status status, const char *what)
{
    if (status != MZ_OK)
        fail_msg("%s: %s: %s", what, mz_status_text(status), mz_last_error());
}

void rig_open(rig *r, const char *device_name, int flags)
{
    *r = (rig){.rng = {.seed = 7, .step = 3}, .loss_weight = 1.0f, .grad_weight = 1.0f};
    r->dtype = flags & RIG_BF16 ? MZ_BF16 : flags & RIG_F16 ? MZ_F16 : MZ_F32;
    r->grad_dtype = flags & RIG_GRAD_F32 ? MZ_F32 : r->dtype;
    rig_ok(mz_device_open(device_name, 0, 1, &r->device), "device");
    if (flags & RIG_REFERENCE) {
        r->ops = *r->device->ops;
        r->ops.kernels = &mz_kernels_ref;
        r->device->ops = &r->ops;
    }
    rig_ok(r->device->ops->stream_create(r->device, MZ_STREAM_COMPUTE, &r->stream), "stream");
    rig_ok(mz_arena_create(r->device, 0, &r->arena), "arena");
    const mz_tape_options options = {.device = r->device,
                                     .stream = r->stream,
                                     .arena = r->arena,
                                     .dtype = r->dtype,
                                     .rng = &r->rng,
                                     .loss_weight = &r->loss_weight,
                                     .grad_weight = &r->grad_weight,
                                     .recompute = flags & RIG_RECOMPUTE ? MZ_RECOMPUTE_ALL : (mz_recompute){0}};
    rig_ok(mz_tape_create(&options, &r->tape), "tape");
}

void rig_close(rig *r)
{
    mz_tape_reset(r->tape);
    assert_int_equal(mz_arena_used(r->arena), 0);
    mz_tape_destroy(r->tape);
    mz_arena_destroy(r->arena);
    r->device->ops->stream_destroy(r->stream);
    mz_device_close(r->device);
}

void rig_fill(float *x, int64_t n, uint64_t seed, float scale)
{
    mz_rng_fill_normal(seed, 1, 0, n, x);
    for (int64_t i = 0; i < n; i++)
        x[i] *= scale;
}

mz_tensor *rig_tensor(rig *r, int n_dims, const int64_t *shape, uint64_t seed)
{
    mz_tensor *t;
    rig_ok(mz_tensor_create(r->tape, MZ_F32, n_dims, shape, &t), "tensor");
    rig_fill(mz_tensor_data(t), mz_tensor_numel(t), seed, 1.0f);
    return t;
}

mz_tensor *rig_ids(rig *r, int n_dims, const int64_t *shape, const int32_t *ids)
{
    mz_tensor *t;
    rig_ok(mz_tensor_borrow(r->tape, MZ_I32, n_dims, shape, (void *)ids, &t), "ids");
    return t;
}

/* Elements, with those of a matrix's rows beyond its shape. */
static size_t param_room(const mz_param *param)
{
    return (size_t)(param->spec.n_dims == 2 ? param->rows * param->spec.shape[1] : param->numel);
}

void rig_param(mz_param *param, const char *name, int n_dims, int64_t d0, int64_t d1, uint64_t seed)
{
    *param = (mz_param){.spec = {.name = name, .n_dims = n_dims, .shape = {d0, d1}},
                        .numel = n_dims == 1 ? d0 : d0 * d1,
                        .dtype = MZ_F32,
                        .grad_dtype = MZ_F32,
                        .trainable = true,
                        .rows = n_dims == 2 ? (d0 + 7) / 8 * 8 : 0};
    size_t bytes = param_room(param) * sizeof(float);
    param->data = mz_alloc_aligned(bytes);
    param->grad = mz_alloc_aligned(bytes);
    assert_non_null(param->data);
    assert_non_null(param->grad);
    memset(param->data, 0, bytes);
    memset(param->grad, 0, bytes);
    rig_fill(param->data, param->numel, seed, 1.0f);
}

void rig_param_free(mz_param *param)
{
    for (size_t i = (size_t)param->numel; i < param_room(param); i++) {
        assert_true(((const float *)param->data)[i] == 0.0f);
        assert_true(((const float *)param->grad)[i] == 0.0f);
    }
    mz_free(param->data);
    mz_free(param->grad);
}
