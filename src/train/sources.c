/* Sources of parameter values. */
#include "train/sources.h"

#include <stdio.h>
#include <string.h>

#include "core/error.h"
#include "core/log.h"
#include "core/rng.h"
#include "model/weights.h"

/* A thread is not worth waking for fewer. */
#define DRAWS_PER_THREAD 4096

typedef struct draw_job {
    const mz_init_source *source;
    const mz_param_spec *spec;
    uint32_t site;
    int64_t offset;
    float *dst;
} draw_job;

static void draw(void *arg, int64_t begin, int64_t end, int thread)
{
    const draw_job *job = arg;
    const mz_param_spec *spec = job->spec;
    float *dst = job->dst;
    (void)thread;
    switch (spec->init) {
    case MZ_INIT_ZEROS:
        memset(dst + begin, 0, (size_t)(end - begin) * sizeof *dst);
        break;
    case MZ_INIT_ONES:
        for (int64_t i = begin; i < end; i++)
            dst[i] = 1;
        break;
    case MZ_INIT_NORMAL:
        mz_rng_fill_normal(job->source->seed, job->site, job->offset + begin, end - begin, dst + begin);
        for (int64_t i = begin; i < end; i++)
            dst[i] *= spec->init_scale;
        break;
    case MZ_INIT_UNIFORM:
        for (int64_t i = begin; i < end; i++) {
            float u = mz_rng_uniform(mz_rng_u32(job->source->seed, job->site, 0, (uint64_t)(job->offset + i)));
            dst[i] = (2 * u - 1) * spec->init_scale;
        }
        break;
    }
}

mz_status mz_init_source_read(void *context, const mz_param_spec *spec, int64_t offset, int64_t count, float *dst)
{
    const mz_init_source *source = context;
    draw_job job = {source, spec, mz_rng_site(spec->name, 0), offset, dst};
    mz_threads_for(source->threads, count, DRAWS_PER_THREAD, draw, &job);
    return MZ_OK;
}

static const char *shape_text(char text[96], int n_dims, const int64_t *shape)
{
    int at = snprintf(text, 96, "[");
    for (int i = 0; i < n_dims; i++)
        at += snprintf(text + at, 96 - (size_t)at, "%s%lld", i ? ", " : "", (long long)shape[i]);
    snprintf(text + at, 96 - (size_t)at, "]");
    return text;
}

static bool same_shape(const mz_param_spec *spec, int n_dims, const int64_t *shape)
{
    return n_dims == spec->n_dims && memcmp(shape, spec->shape, (size_t)n_dims * sizeof *shape) == 0;
}

/* Calls fn on every parameter of a model until one fails. */
typedef mz_status (*spec_fn)(const void *context, const mz_param_spec *spec, const char *where);
static mz_status for_each_param(const mz_model *model, spec_fn fn, const void *context, const char *where)
{
    for (int u = 0; u < mz_model_n_units(model); u++) {
        const mz_unit_spec *unit = mz_model_unit(model, u);
        for (int p = 0; p < unit->n_params; p++) {
            mz_status st = fn(context, &unit->params[p], where);
            if (st != MZ_OK)
                return st;
        }
    }
    return MZ_OK;
}

/* The tensor of a weights file that holds a parameter, under its name or another that the family knows. */
static const mz_weights_tensor *find_weight(const mz_weights_source *source, const char *name)
{
    const char *aliases[MZ_MAX_WEIGHT_ALIASES];
    const mz_weights_tensor *tensor = mz_weights_find(source->weights, name);
    int n = tensor ? 0 : mz_model_weight_aliases(source->model, name, aliases);
    for (int i = 0; i < n && !tensor; i++)
        tensor = mz_weights_find(source->weights, aliases[i]);
    return tensor;
}

static bool is_param(const mz_model *model, const char *file_name)
{
    const char *aliases[MZ_MAX_WEIGHT_ALIASES];
    for (int u = 0; u < mz_model_n_units(model); u++) {
        const mz_unit_spec *unit = mz_model_unit(model, u);
        for (int p = 0; p < unit->n_params; p++) {
            const char *name = unit->params[p].name;
            if (strcmp(name, file_name) == 0)
                return true;
            int n = mz_model_weight_aliases(model, name, aliases);
            for (int i = 0; i < n; i++)
                if (strcmp(aliases[i], file_name) == 0)
                    return true;
        }
    }
    return false;
}

static void warn_unknown(const mz_weights *weights, const mz_model *model, const char *folder)
{
    int n_unknown = 0;
    const char *first = NULL;
    for (int i = 0; i < mz_weights_n_tensors(weights); i++) {
        const char *name = mz_weights_at(weights, i)->name;
        if (is_param(model, name) || mz_model_weight_ignored(model, name))
            continue;
        first = first ? first : name;
        n_unknown++;
    }
    if (n_unknown > 0)
        mz_log_root(MZ_LOG_WARN, "%s: %d tensors are not part of this model and are left out; the first is \"%s\"",
                    folder, n_unknown, first);
}

static mz_status check_weight(const void *context, const mz_param_spec *spec, const char *where)
{
    const mz_weights_source *source = context;
    const mz_weights_tensor *tensor = find_weight(source, spec->name);
    char want[96], have[96];
    if (!tensor)
        return mz_fail(MZ_ERR_MODEL,
                       "%s: tensor \"%s\" %s is missing from the weights. Does config.json belong to them?", where,
                       spec->name, shape_text(want, spec->n_dims, spec->shape));
    if (!same_shape(spec, tensor->n_dims, tensor->shape))
        return mz_fail(MZ_ERR_MODEL,
                       "%s: tensor \"%s\": expected shape %s from config.json, found %s in the weights", where,
                       spec->name, shape_text(want, spec->n_dims, spec->shape),
                       shape_text(have, tensor->n_dims, tensor->shape));
    return MZ_OK;
}

mz_status mz_weights_check(const mz_weights *weights, const mz_model *model, const char *folder)
{
    const mz_weights_source source = {weights, model};
    mz_status st = for_each_param(model, check_weight, &source, folder);
    if (st == MZ_OK)
        warn_unknown(weights, model, folder);
    return st;
}

mz_status mz_weights_source_read(void *context, const mz_param_spec *spec, int64_t offset, int64_t count,
                                 float *dst)
{
    const mz_weights_source *source = context;
    const mz_weights_tensor *tensor = find_weight(source, spec->name);
    if (!tensor)
        return mz_fail(MZ_ERR_INTERNAL, "tensor \"%s\" vanished from the weights", spec->name);
    return mz_weights_read(source->weights, tensor, offset, count, dst);
}

mz_status mz_checkpoint_source_read(void *context, const mz_param_spec *spec, int64_t offset, int64_t count,
                                    float *dst)
{
    const mz_checkpoint_source *source = context;
    return mz_checkpoint_read(source->checkpoint, spec->name, source->kind, offset, count, dst);
}

static mz_status check_saved(const void *context, const mz_param_spec *spec, const char *where)
{
    const mz_checkpoint *checkpoint = context;
    char want[96], have[96];
    for (int i = 0; i < mz_checkpoint_n_tensors(checkpoint); i++) {
        const mz_checkpoint_tensor *tensor = mz_checkpoint_tensor_at(checkpoint, i);
        if (strcmp(tensor->name, spec->name) != 0)
            continue;
        if (same_shape(spec, tensor->n_dims, tensor->shape))
            return MZ_OK;
        return mz_fail(MZ_ERR_CHECKPOINT,
                       "%s: tensor \"%s\": the model wants shape %s, the checkpoint holds %s. It was saved from "
                       "another model: give the --model of that run",
                       where, spec->name, shape_text(want, spec->n_dims, spec->shape),
                       shape_text(have, tensor->n_dims, tensor->shape));
    }
    return mz_fail(MZ_ERR_CHECKPOINT,
                   "%s: tensor \"%s\" %s of the model is not in the checkpoint. It was saved from another model: "
                   "give the --model of that run",
                   where, spec->name, shape_text(want, spec->n_dims, spec->shape));
}

static int64_t count_params(const mz_model *model)
{
    int64_t n = 0;
    for (int u = 0; u < mz_model_n_units(model); u++)
        n += mz_model_unit(model, u)->n_params;
    return n;
}

mz_status mz_checkpoint_check(const mz_checkpoint *checkpoint, const mz_model *model)
{
    const char *folder = mz_checkpoint_folder(checkpoint);
    mz_status st = for_each_param(model, check_saved, checkpoint, folder);
    if (st == MZ_OK && count_params(model) != mz_checkpoint_n_tensors(checkpoint))
        st = mz_fail(MZ_ERR_CHECKPOINT,
                     "%s: holds %d tensors, the model has %lld. It was saved from another model: give the --model "
                     "of that run",
                     folder, mz_checkpoint_n_tensors(checkpoint), (long long)count_params(model));
    return st;
}
