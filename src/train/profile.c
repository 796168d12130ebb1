#include "train/profile.h"

#include <string.h>

#include "core/error.h"
#include "core/memory.h"
#include "kernels/kernels.h"
#include "model/model.h"
#include "train/engine_impl.h"

enum { OF_UNIT_FORWARD = MZ_N_FAMILIES, OF_UNIT_BACKWARD };

typedef struct span {
    mz_event *begin, *end;
    int what; /* a family, or of a unit */
    int unit;
} span;

struct mz_profile {
    mz_engine *engine;
    mz_runner_hooks hooks; /* the engine's */
    mz_event *begin, *end;
    span *spans;
    int n_spans, capacity;
    int open_unit; /* index of the running unit's span */
};

/* The recording tables. Other threads launch through them as well (on streams of their own), and may still be doing
 * so when the profile ends, so these outlive it; only who launches on `compute` looks at the profile. */
static struct {
    mz_profile *profile;
    mz_stream *compute;       /* what is timed; atomic; NULL: no profile is open */
    const mz_device_ops *own; /* the device's table */
    mz_device_ops ops;
    mz_kernels kernels;
} recorder;

static bool is_timed(const mz_stream *stream)
{
    return stream && stream == __atomic_load_n(&recorder.compute, __ATOMIC_ACQUIRE);
}

static const char *const family_names[MZ_N_FAMILIES] = {
    [MZ_FAMILY_MATMUL] = "matmul",
    [MZ_FAMILY_ATTENTION] = "attention",
    [MZ_FAMILY_NORM] = "norm",
    [MZ_FAMILY_EMBEDDING] = "embedding",
    [MZ_FAMILY_LOSS] = "loss",
    [MZ_FAMILY_ELEMENTWISE] = "elementwise",
    [MZ_FAMILY_OPTIMISER] = "optimiser",
    [MZ_FAMILY_COPIES] = "copies",
    [MZ_FAMILY_COMMUNICATION] = "communication",
};

const char *mz_family_name(mz_family family)
{
    return family_names[family];
}

/* ---- spans ---- */

static mz_status make_event(const mz_profile *p, mz_event **event)
{
    return recorder.own->event_create(p->engine->device, event);
}

static mz_status open_span(mz_profile *p, int what, int unit)
{
    if (p->n_spans == p->capacity) {
        int capacity = p->capacity ? 2 * p->capacity : 1024;
        span *grown = mz_realloc(p->spans, (size_t)capacity * sizeof *grown);
        if (!grown)
            return MZ_ERR_MEMORY;
        p->spans = grown;
        p->capacity = capacity;
    }
    span *s = &p->spans[p->n_spans++];
    *s = (span){.what = what, .unit = unit};
    mz_status st = make_event(p, &s->begin);
    if (st == MZ_OK)
        st = make_event(p, &s->end);
    return st == MZ_OK ? recorder.own->event_record(s->begin, p->engine->compute) : st;
}

static mz_status close_span(mz_profile *p, int index, mz_status st)
{
    return st == MZ_OK ? recorder.own->event_record(p->spans[index].end, p->engine->compute) : st;
}

/* ---- the recording tables ---- */

/* Launches on the compute stream are timed; on another stream, or from a host call (stream NULL), only passed on.
 */
#define TIMED(kernel, family)                                                                                      \
    static mz_status timed_##kernel(const mz_##kernel##_args *args, mz_stream *stream)                             \
    {                                                                                                              \
        if (!is_timed(stream))                                                                                     \
            return recorder.own->kernels->kernel(args, stream);                                                    \
        mz_profile *p = recorder.profile;                                                                          \
        int index = p->n_spans;                                                                                    \
        mz_status st = open_span(p, family, -1);                                                                   \
        return st == MZ_OK ? close_span(p, index, recorder.own->kernels->kernel(args, stream)) : st;               \
    }
TIMED(matmul, MZ_FAMILY_MATMUL)
TIMED(layer_norm, MZ_FAMILY_NORM)
TIMED(layer_norm_grad, MZ_FAMILY_NORM)
TIMED(embedding, MZ_FAMILY_EMBEDDING)
TIMED(embedding_grad, MZ_FAMILY_EMBEDDING)
TIMED(attention, MZ_FAMILY_ATTENTION)
TIMED(attention_grad, MZ_FAMILY_ATTENTION)
TIMED(activation, MZ_FAMILY_ELEMENTWISE)
TIMED(activation_grad, MZ_FAMILY_ELEMENTWISE)
TIMED(add, MZ_FAMILY_ELEMENTWISE)
TIMED(mul, MZ_FAMILY_ELEMENTWISE)
TIMED(dropout, MZ_FAMILY_ELEMENTWISE)
TIMED(cast, MZ_FAMILY_ELEMENTWISE)
TIMED(column_sum, MZ_FAMILY_ELEMENTWISE)
TIMED(cross_entropy, MZ_FAMILY_LOSS)
TIMED(mse, MZ_FAMILY_LOSS)
TIMED(sum_squares, MZ_FAMILY_OPTIMISER)
TIMED(clip, MZ_FAMILY_OPTIMISER)
TIMED(sum, MZ_FAMILY_COMMUNICATION)
TIMED(optim, MZ_FAMILY_OPTIMISER)
TIMED(quantize, MZ_FAMILY_COMMUNICATION)
TIMED(dequantize, MZ_FAMILY_COMMUNICATION)

static void fill_kernels(mz_kernels *kernels)
{
    *kernels = *recorder.own->kernels;
    kernels->matmul = timed_matmul;
    kernels->layer_norm = timed_layer_norm;
    kernels->layer_norm_grad = timed_layer_norm_grad;
    kernels->embedding = timed_embedding;
    kernels->embedding_grad = timed_embedding_grad;
    kernels->attention = timed_attention;
    kernels->attention_grad = timed_attention_grad;
    kernels->activation = timed_activation;
    kernels->activation_grad = timed_activation_grad;
    kernels->add = timed_add;
    kernels->mul = timed_mul;
    kernels->dropout = timed_dropout;
    kernels->cast = timed_cast;
    kernels->column_sum = timed_column_sum;
    kernels->cross_entropy = timed_cross_entropy;
    kernels->mse = timed_mse;
    kernels->sum_squares = timed_sum_squares;
    kernels->clip = timed_clip;
    kernels->sum = timed_sum;
    kernels->optim = timed_optim;
    kernels->quantize = timed_quantize;
    kernels->dequantize = timed_dequantize;
}

static mz_status timed_wait(mz_stream *stream, mz_event *event)
{
    if (!is_timed(stream))
        return recorder.own->wait(stream, event);
    mz_profile *p = recorder.profile;
    int index = p->n_spans;
    mz_status st = open_span(p, MZ_FAMILY_COMMUNICATION, -1);
    return st == MZ_OK ? close_span(p, index, recorder.own->wait(stream, event)) : st;
}

static mz_status timed_copy(mz_stream *stream, void *dst, const void *src, size_t bytes)
{
    if (!is_timed(stream))
        return recorder.own->copy(stream, dst, src, bytes);
    mz_profile *p = recorder.profile;
    int index = p->n_spans;
    mz_status st = open_span(p, MZ_FAMILY_COPIES, -1);
    return st == MZ_OK ? close_span(p, index, recorder.own->copy(stream, dst, src, bytes)) : st;
}

static mz_status timed_copy_2d(mz_stream *stream, void *dst, size_t dst_stride, const void *src, size_t src_stride,
                               size_t row_bytes, size_t n_rows)
{
    if (!is_timed(stream))
        return recorder.own->copy_2d(stream, dst, dst_stride, src, src_stride, row_bytes, n_rows);
    mz_profile *p = recorder.profile;
    int index = p->n_spans;
    mz_status st = open_span(p, MZ_FAMILY_COPIES, -1);
    if (st == MZ_OK)
        st = close_span(p, index,
                        recorder.own->copy_2d(stream, dst, dst_stride, src, src_stride, row_bytes, n_rows));
    return st;
}

static mz_status timed_fill(mz_stream *stream, void *dst, uint8_t byte, size_t bytes)
{
    if (!is_timed(stream))
        return recorder.own->fill(stream, dst, byte, bytes);
    mz_profile *p = recorder.profile;
    int index = p->n_spans;
    mz_status st = open_span(p, MZ_FAMILY_COPIES, -1);
    return st == MZ_OK ? close_span(p, index, recorder.own->fill(stream, dst, byte, bytes)) : st;
}

/* ---- units ---- */

static mz_status before_unit(void *context, int unit, mz_phase phase)
{
    mz_profile *p = context;
    mz_status st = p->hooks.before ? p->hooks.before(p->hooks.context, unit, phase) : MZ_OK;
    p->open_unit = p->n_spans;
    return st == MZ_OK ? open_span(p, phase == MZ_PHASE_FORWARD ? OF_UNIT_FORWARD : OF_UNIT_BACKWARD, unit) : st;
}

static mz_status after_unit(void *context, int unit, mz_phase phase)
{
    mz_profile *p = context;
    mz_status st = close_span(p, p->open_unit, MZ_OK);
    return st == MZ_OK && p->hooks.after ? p->hooks.after(p->hooks.context, unit, phase) : st;
}

/* ---- lifecycle ---- */

/* Once for each device table: what another thread may be reading is not written again. */
static void fill_tables(const mz_device_ops *own)
{
    if (recorder.own == own)
        return;
    recorder.own = own;
    fill_kernels(&recorder.kernels);
    recorder.ops = *own;
    recorder.ops.kernels = &recorder.kernels;
    recorder.ops.graphs = NULL; /* a step's kernels are timed one by one */
    recorder.ops.wait = timed_wait;
    recorder.ops.copy = timed_copy;
    recorder.ops.copy_2d = timed_copy_2d;
    recorder.ops.fill = timed_fill;
}

mz_status mz_profile_begin(mz_engine *engine, mz_profile **out)
{
    if (recorder.profile)
        return mz_fail(MZ_ERR_ARGUMENT, "mz_profile_begin: a profile is open already");
    mz_profile *p = mz_calloc(1, sizeof *p);
    if (!p)
        return MZ_ERR_MEMORY;
    p->engine = engine;
    fill_tables(engine->device->ops);
    mz_status st = make_event(p, &p->begin);
    if (st == MZ_OK)
        st = make_event(p, &p->end);
    if (st == MZ_OK)
        st = recorder.own->event_record(p->begin, engine->compute);
    if (st != MZ_OK) {
        recorder.own->event_destroy(p->begin);
        recorder.own->event_destroy(p->end);
        mz_free(p);
        return st;
    }
    recorder.profile = p;
    __atomic_store_n(&recorder.compute, engine->compute, __ATOMIC_RELEASE);
    engine->device->ops = &recorder.ops;
    mz_zero_hooks(engine->zero, &p->hooks);
    const mz_runner_hooks hooks = {.context = p, .before = before_unit, .after = after_unit};
    mz_runner_set_hooks(engine->runner, &hooks);
    *out = p;
    return MZ_OK;
}

static mz_status add_up(const mz_profile *p, mz_profile_times *times)
{
    const mz_model *model = p->engine->model;
    memset(times, 0, sizeof *times);
    times->n_units = model->n_units;
    times->units = mz_calloc((size_t)model->n_units, sizeof *times->units);
    if (!times->units)
        return MZ_ERR_MEMORY;
    for (int u = 0; u < model->n_units; u++)
        times->units[u].name = model->units[u].name;
    mz_status st = recorder.own->event_elapsed(p->begin, p->end, &times->step);
    for (int i = 0; i < p->n_spans && st == MZ_OK; i++) {
        const span *s = &p->spans[i];
        double seconds = 0;
        st = recorder.own->event_elapsed(s->begin, s->end, &seconds);
        if (s->what == OF_UNIT_FORWARD) {
            times->units[s->unit].forward += seconds;
        } else if (s->what == OF_UNIT_BACKWARD) {
            times->units[s->unit].backward += seconds;
        } else {
            times->seconds[s->what] += seconds;
            times->launches[s->what]++;
        }
    }
    if (st != MZ_OK)
        mz_profile_times_free(times);
    return st;
}

mz_status mz_profile_end(mz_profile *p, mz_profile_times *times)
{
    if (!p)
        return MZ_OK;
    mz_status st = recorder.own->event_record(p->end, p->engine->compute);
    mz_status synced = recorder.own->stream_sync(p->engine->compute);
    p->engine->device->ops = recorder.own;
    mz_runner_set_hooks(p->engine->runner, &p->hooks);
    __atomic_store_n(&recorder.compute, NULL, __ATOMIC_RELEASE);
    recorder.profile = NULL;
    st = st == MZ_OK ? synced : st;
    if (st == MZ_OK && times)
        st = add_up(p, times);
    for (int i = 0; i < p->n_spans; i++) {
        recorder.own->event_destroy(p->spans[i].begin);
        recorder.own->event_destroy(p->spans[i].end);
    }
    recorder.own->event_destroy(p->begin);
    recorder.own->event_destroy(p->end);
    mz_free(p->spans);
    mz_free(p);
    return st;
}

void mz_profile_times_free(mz_profile_times *times)
{
    mz_free(times->units);
    memset(times, 0, sizeof *times);
}
