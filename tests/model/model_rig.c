#include "tests/model/model_rig.h"

#include "tests/core/cmocka_all.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/half.h"
#include "core/memory.h"
#include "model/weights.h"

static const mz_weights_tensor *find_weight(const mz_weights *weights, const mz_model *model, const char *name)
{
    const char *aliases[MZ_MAX_WEIGHT_ALIASES];
    const mz_weights_tensor *tensor = mz_weights_find(weights, name);
    int n = mz_model_weight_aliases(model, name, aliases);
    for (int i = 0; i < n && !tensor; i++)
        tensor = mz_weights_find(weights, aliases[i]);
    return tensor;
}

static void load_params(model_rig *m)
{
    mz_weights *weights;
    rig_ok(mz_weights_open(m->folder, &weights), "weights");
    for (int i = 0; i < mz_runner_n_params(m->runner); i++) {
        mz_param *param = mz_runner_param(m->runner, i);
        const mz_weights_tensor *tensor = find_weight(weights, m->model, param->spec.name);
        if (!tensor)
            fail_msg("%s: no weight for \"%s\"", m->folder, param->spec.name);
        assert_int_equal(tensor->numel, param->numel);
        float *values = mz_alloc((size_t)param->numel * sizeof *values);
        assert_non_null(values);
        rig_ok(mz_weights_read(weights, tensor, 0, param->numel, values), param->spec.name);
        mz_convert(param->data, param->dtype, values, MZ_F32, param->numel);
        mz_free(values);
    }
    mz_weights_close(weights);
}

void model_rig_alloc_params(rig *r, mz_runner *runner)
{
    for (int i = 0; i < mz_runner_n_params(runner); i++) {
        mz_param *param = mz_runner_param(runner, i);
        size_t n = (size_t)param->numel;
        rig_ok(r->device->ops->alloc(r->device, n * mz_dtype_size(param->dtype), &param->data), "parameter");
        rig_ok(r->device->ops->alloc(r->device, n * mz_dtype_size(param->grad_dtype), &param->grad), "gradient");
    }
}

void model_rig_free_params(rig *r, mz_runner *runner)
{
    for (int i = 0; i < mz_runner_n_params(runner); i++) {
        mz_param *param = mz_runner_param(runner, i);
        r->device->ops->free(r->device, param->data);
        r->device->ops->free(r->device, param->grad);
    }
}

void model_rig_clear_grads(mz_runner *runner)
{
    for (int i = 0; i < mz_runner_n_params(runner); i++)
        mz_runner_param(runner, i)->grad_written = false;
}

void model_rig_open(model_rig *m, const char *name, int flags)
{
    const char *srcdir = getenv("srcdir");
    char path[600];
    snprintf(m->folder, sizeof m->folder, "%s/tests/fixtures/%s", srcdir ? srcdir : ".", name);
    rig_open(&m->base, "cpu", flags);
    rig_ok(mz_model_from_folder(m->folder, &m->model), "model");
    rig_ok(mz_runner_create(m->model, m->base.dtype, m->base.grad_dtype, &m->runner), "runner");
    model_rig_alloc_params(&m->base, m->runner);
    load_params(m);
    snprintf(path, sizeof path, "%s/expected.safetensors", m->folder);
    rig_ok(mz_weights_open(path, &m->expected), "expected");
}

void model_rig_close(model_rig *m)
{
    model_rig_free_params(&m->base, m->runner);
    mz_weights_close(m->expected);
    mz_runner_destroy(m->runner);
    mz_model_destroy(m->model);
    rig_close(&m->base);
}

const mz_weights_tensor *model_rig_expected(const model_rig *m, const char *name, bool required)
{
    const mz_weights_tensor *tensor = mz_weights_find(m->expected, name);
    if (!tensor && required)
        fail_msg("%s/expected.safetensors: no \"%s\"", m->folder, name);
    return tensor;
}

mz_tensor *model_rig_input(model_rig *m, const char *name, int64_t first, int64_t rows)
{
    mz_tensor *input;
    const mz_weights_tensor *t = model_rig_expected(m, name, false);
    if (!t)
        return NULL;
    const int64_t shape[] = {rows, t->shape[1]};
    size_t offset = (size_t)(first * t->shape[1]) * mz_dtype_size(t->dtype);
    rig_ok(mz_tensor_borrow(m->base.tape, t->dtype, 2, shape, (char *)t->data + offset, &input), name);
    return input;
}

model_difference model_compare(const float *a, const float *b, int64_t n)
{
    double max_diff = 0, max_b = 0, sum_diff = 0, sum_b = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - b[i]);
        max_diff = fmax(max_diff, d);
        max_b = fmax(max_b, fabs((double)b[i]));
        sum_diff += d * d;
        sum_b += (double)b[i] * b[i];
    }
    return (model_difference){max_diff / fmax(max_b, 1e-30), sqrt(sum_diff / fmax(sum_b, 1e-60))};
}
