#include "model/model.h"

#include <inttypes.h>
#include <string.h>

#include "core/error.h"
#include "core/memory.h"

mz_status mz_model_create(const char *name, mz_model **out)
{
    mz_model *model = mz_calloc(1, sizeof *model);
    if (!model)
        return MZ_ERR_MEMORY;
    model->info = (mz_model_info){.bos_id = -1, .eos_id = -1, .pad_id = -1};
    model->name = mz_strdup(name);
    if (!model->name) {
        mz_model_destroy(model);
        return MZ_ERR_MEMORY;
    }
    *out = model;
    return MZ_OK;
}

/* ---- units ---- */

static void unit_free(mz_unit_spec *unit)
{
    for (int i = 0; unit->params && i < unit->n_params; i++)
        mz_free((void *)unit->params[i].name);
    for (int i = 0; unit->uses && i < unit->n_uses; i++)
        mz_free((void *)unit->uses[i]);
    mz_free((void *)unit->params);
    mz_free((void *)unit->uses);
    mz_free((void *)unit->name);
    mz_free((void *)unit->self);
}

static mz_status copy_params(const mz_unit_spec *from, mz_unit_spec *to)
{
    mz_param_spec *params = mz_calloc((size_t)from->n_params, sizeof *params);
    if (!params)
        return MZ_ERR_MEMORY;
    to->params = params;
    to->n_params = from->n_params;
    for (int i = 0; i < from->n_params; i++) {
        params[i] = from->params[i];
        params[i].name = mz_strdup(from->params[i].name);
        if (!params[i].name)
            return MZ_ERR_MEMORY;
    }
    return MZ_OK;
}

static mz_status copy_uses(const mz_unit_spec *from, mz_unit_spec *to)
{
    const char **uses = mz_calloc((size_t)from->n_uses, sizeof *uses);
    if (!uses)
        return MZ_ERR_MEMORY;
    to->uses = uses;
    to->n_uses = from->n_uses;
    for (int i = 0; i < from->n_uses; i++) {
        uses[i] = mz_strdup(from->uses[i]);
        if (!uses[i])
            return MZ_ERR_MEMORY;
    }
    return MZ_OK;
}

/* On failure *to holds what unit_free takes away. */
static mz_status unit_copy(const mz_unit_spec *from, mz_unit_spec *to)
{
    *to = (mz_unit_spec){.forward = from->forward,
                         .self_bytes = from->self_bytes,
                         .recomputable = from->recomputable,
                         .flops_per_token = from->flops_per_token,
                         .replayable = from->replayable};
    to->name = mz_strdup(from->name);
    mz_status status = to->name ? copy_params(from, to) : MZ_ERR_MEMORY;
    if (status == MZ_OK)
        status = copy_uses(from, to);
    if (status != MZ_OK || from->self_bytes == 0)
        return status;
    void *self = mz_alloc(from->self_bytes);
    if (!self)
        return MZ_ERR_MEMORY;
    memcpy(self, from->self, from->self_bytes);
    to->self = self;
    return MZ_OK;
}

static mz_status check_params(const mz_model *model, const mz_unit_spec *unit)
{
    for (int i = 0; i < unit->n_params; i++) {
        const mz_param_spec *param = &unit->params[i];
        int index;
        bool taken = mz_model_find_param(model, param->name, &index) >= 0;
        for (int j = 0; j < i; j++)
            taken = taken || strcmp(unit->params[j].name, param->name) == 0;
        if (taken)
            return mz_fail(MZ_ERR_ARGUMENT, "model \"%s\", unit \"%s\": parameter \"%s\" exists already",
                           model->name, unit->name, param->name);
        if (param->n_dims < 1 || param->n_dims > MZ_MAX_DIMS)
            return mz_fail(MZ_ERR_ARGUMENT, "parameter \"%s\": expected 1 to %d dimensions, found %d", param->name,
                           MZ_MAX_DIMS, param->n_dims);
        for (int d = 0; d < param->n_dims; d++)
            if (param->shape[d] < 1)
                return mz_fail(MZ_ERR_ARGUMENT, "parameter \"%s\": dimension %d is %" PRId64, param->name, d,
                               param->shape[d]);
    }
    return MZ_OK;
}

mz_status mz_model_add_unit(mz_model *model, const mz_unit_spec *unit)
{
    if (!unit->name || !unit->forward)
        return mz_fail(MZ_ERR_ARGUMENT, "model \"%s\": a unit needs a name and a forward function", model->name);
    mz_status status = check_params(model, unit);
    if (status != MZ_OK)
        return status;
    for (int i = 0; i < unit->n_uses; i++) {
        int index;
        if (mz_model_find_param(model, unit->uses[i], &index) < 0)
            return mz_fail(MZ_ERR_ARGUMENT, "model \"%s\", unit \"%s\": uses \"%s\", which no earlier unit has",
                           model->name, unit->name, unit->uses[i]);
    }
    if (model->n_units == model->capacity) {
        int capacity = model->capacity ? 2 * model->capacity : 16;
        mz_unit_spec *units = mz_realloc(model->units, (size_t)capacity * sizeof *units);
        if (!units)
            return MZ_ERR_MEMORY;
        model->units = units;
        model->capacity = capacity;
    }
    mz_unit_spec copy;
    status = unit_copy(unit, &copy);
    if (status != MZ_OK) {
        unit_free(&copy);
        return status;
    }
    model->units[model->n_units++] = copy;
    return MZ_OK;
}

int mz_model_find_param(const mz_model *model, const char *name, int *index)
{
    for (int u = 0; u < model->n_units; u++) {
        for (int i = 0; i < model->units[u].n_params; i++) {
            if (strcmp(model->units[u].params[i].name, name) == 0) {
                *index = i;
                return u;
            }
        }
    }
    return -1;
}

int mz_model_n_units(const mz_model *model)
{
    return model->n_units;
}

const mz_unit_spec *mz_model_unit(const mz_model *model, int unit)
{
    return &model->units[unit];
}

int64_t mz_model_n_params(const mz_model *model)
{
    int64_t total = 0;
    for (int u = 0; u < model->n_units; u++) {
        for (int i = 0; i < model->units[u].n_params; i++) {
            const mz_param_spec *param = &model->units[u].params[i];
            int64_t n = 1;
            for (int d = 0; d < param->n_dims; d++)
                n *= param->shape[d];
            total += n;
        }
    }
    return total;
}

/* ---- facts ---- */

static void info_free(mz_model_info *info)
{
    mz_free((void *)info->family);
    mz_free((void *)info->config_json);
}

const mz_model_info *mz_model_get_info(const mz_model *model)
{
    return &model->info;
}

mz_status mz_model_set_info(mz_model *model, const mz_model_info *info)
{
    mz_model_info copy = *info;
    copy.family = info->family ? mz_strdup(info->family) : NULL;
    copy.config_json = info->config_json ? mz_strdup(info->config_json) : NULL;
    if ((info->family && !copy.family) || (info->config_json && !copy.config_json)) {
        info_free(&copy);
        return MZ_ERR_MEMORY;
    }
    info_free(&model->info);
    model->info = copy;
    return MZ_OK;
}

void mz_model_destroy(mz_model *model)
{
    if (!model)
        return;
    for (int u = 0; u < model->n_units; u++)
        unit_free(&model->units[u]);
    mz_free(model->units);
    info_free(&model->info);
    mz_free(model->name);
    mz_free(model);
}
