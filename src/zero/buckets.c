/* Memory for gradients in stages 2 and 3, and what becomes of a unit's gradients when they are complete.
 *
 * A unit gets memory when its first gradient is about to be written, in a bucket that it shares with its
 * neighbours; two buckets take turns, so that one is filled while the other is reduced. A unit whose parameters
 * other units use too has a buffer of its own, since its gradient lives from the last of them to its own
 * backward pass. */
#include "core/error.h"
#include "core/memory.h"

#include "zero/internal.h"

/* Collectives are launched in order, so a buffer is free again when its last one is done and finished. */
static mz_status reuse(mz_zero *z, int buffer)
{
    mz_reducer *r = &z->reducer;
    mz_status status = MZ_OK;
    for (int i = 0; !status && i < 2; i++)
        for (int k = 0; k < r->slots[i].n_pieces; k++)
            if (r->slots[i].unfinished && r->slots[i].pieces[k].buffer == buffer) {
                status = mz_zero_reduce_finish_slot(z, &r->slots[i]);
                break;
            }
    if (!status && z->overlap)
        status = mz_zero_wait(z, r->buffers[buffer].done);
    r->buffers[buffer].used = 0;
    r->buffers[buffer].closed = false;
    return status;
}

static int64_t unit_elements(const mz_zero *z, int unit)
{
    int64_t sum = 0;
    for (int i = z->layout->unit_first[unit]; i < z->layout->unit_first[unit + 1]; i++)
        sum += z->segments[i].at.length;
    return sum;
}

/* A bucket is reduced as a whole, so that a unit in it may not wait for its backward pass while it fills up. */
static mz_status refuse_early_gradients(const mz_zero *z)
{
    int unit = 0;
    while (!z->reducer.unit_open[unit] || z->reducer.unit_buffer[unit] != MZ_ZERO_SHARED)
        unit++;
    return mz_fail(MZ_ERR_UNSUPPORTED,
                   "unit %s forms gradients in the forward pass, but other units run after it: expected that of "
                   "the last unit only in ZeRO stage %d; use zero_optimization.stage 0 or 1",
                   mz_model_unit(mz_runner_model(z->runner), unit)->name, z->stage);
}

static mz_status choose_bucket(mz_zero *z, int unit, int *buffer)
{
    mz_reducer *r = &z->reducer;
    mz_grad_buffer *b = &r->buffers[r->current];
    int64_t elements = unit_elements(z, unit);
    int64_t limit = b->capacity < r->limit ? b->capacity : r->limit;
    mz_status status = MZ_OK;
    if (b->closed || (b->used > 0 && b->used + elements > limit)) {
        if (r->n_open_shared > 0)
            return refuse_early_gradients(z);
        status = mz_zero_reduce_flush(z);
        r->current = (r->current + 1) % r->n_shared;
        z->counters.n_bucket_switches++;
        if (!status)
            status = reuse(z, r->current);
    }
    r->n_open_shared++;
    *buffer = r->current;
    return status;
}

/* Padding counts in norms and must not hold what another unit left there. */
static mz_status clear_padding(mz_zero *z, const mz_zero_segment *s)
{
    size_t size = mz_dtype_size(z->grad_dtype);
    int64_t end = 0;
    mz_status status = MZ_OK;
    for (int i = 0; !status && i <= s->at.n; i++) {
        const mz_layout_tensor *t = i < s->at.n ? &z->layout->tensors[z->layout->order[s->at.first + i]] : NULL;
        int64_t next = t ? t->offset : s->at.length;
        if (next > end)
            status = z->device->ops->fill(z->compute, s->grad + (size_t)end * size, 0, (size_t)(next - end) * size);
        end = t ? t->offset + t->numel : next;
    }
    return status;
}

static mz_status open_unit(mz_zero *z, int unit)
{
    mz_reducer *r = &z->reducer;
    int buffer = r->unit_buffer[unit];
    mz_status status = buffer == MZ_ZERO_SHARED ? choose_bucket(z, unit, &buffer) : reuse(z, buffer);
    size_t size = mz_dtype_size(z->grad_dtype);
    for (int i = z->layout->unit_first[unit]; !status && i < z->layout->unit_first[unit + 1]; i++) {
        mz_zero_segment *s = &z->segments[i];
        s->grad = r->buffers[buffer].memory + (size_t)r->buffers[buffer].used * size;
        r->buffers[buffer].used += s->at.length;
        status = clear_padding(z, s);
    }
    int first, n;
    mz_runner_unit_params(z->runner, unit, &first, &n);
    for (int i = first; !status && i < first + n; i++) {
        mz_param *param = mz_runner_param(z->runner, i);
        const mz_layout_tensor *t = &z->layout->tensors[i];
        param->grad = z->segments[t->segment].grad + (size_t)t->offset * size;
        param->grad_written = false;
    }
    r->unit_open[unit] = true;
    return status;
}

mz_status mz_zero_grad_request(void *context, mz_param *param)
{
    mz_zero *z = context;
    return param->grad ? MZ_OK : open_unit(z, param->unit);
}

/* Parameters that nothing used have the gradient 0. */
static mz_status clear_unwritten(mz_zero *z, int unit)
{
    int first, n;
    mz_status status = MZ_OK;
    mz_runner_unit_params(z->runner, unit, &first, &n);
    for (int i = first; !status && i < first + n; i++) {
        mz_param *param = mz_runner_param(z->runner, i);
        if (!param->grad_written)
            status = z->device->ops->fill(z->compute, param->grad, 0,
                                          (size_t)param->numel * mz_dtype_size(z->grad_dtype));
        param->grad_written = true;
    }
    return status;
}

/* From here on the unit's gradients belong to the collective. */
static void close_unit(mz_zero *z, int unit)
{
    mz_reducer *r = &z->reducer;
    int first, n;
    mz_runner_unit_params(z->runner, unit, &first, &n);
    for (int i = first; i < first + n; i++) {
        mz_runner_param(z->runner, i)->grad = NULL;
        mz_runner_param(z->runner, i)->grad_written = false;
    }
    for (int i = z->layout->unit_first[unit]; i < z->layout->unit_first[unit + 1]; i++)
        z->segments[i].grad = NULL;
    if (r->unit_open[unit] && r->unit_buffer[unit] == MZ_ZERO_SHARED)
        r->n_open_shared--;
    r->unit_open[unit] = false;
}

mz_status mz_zero_grads_complete(mz_zero *z, int unit)
{
    mz_reducer *r = &z->reducer;
    if (z->layout->unit_first[unit] == z->layout->unit_first[unit + 1] || (z->stage <= 1 && !z->last))
        return MZ_OK;
    mz_status status = z->stage >= 2 && !r->unit_open[unit] ? open_unit(z, unit) : MZ_OK;
    if (!status)
        status = clear_unwritten(z, unit);
    if (z->size == 1)
        return status;
    for (int i = z->layout->unit_first[unit]; !status && i < z->layout->unit_first[unit + 1]; i++)
        status = mz_zero_reduce_segment(z, &z->segments[i]);
    if (z->stage >= 2)
        close_unit(z, unit);
    return status;
}

void mz_zero_grads_begin(mz_zero *z)
{
    if (z->stage >= 2) {
        for (int unit = 0; unit < z->layout->n_units; unit++)
            if (z->reducer.unit_open[unit]) /* left by a micro-batch that failed */
                close_unit(z, unit);
    } else if (z->first) {
        for (int i = 0; i < z->layout->n_tensors; i++)
            mz_runner_param(z->runner, i)->grad_written = false;
    }
}

static bool used_by_others(const mz_zero *z, int unit)
{
    const mz_model *model = mz_runner_model(z->runner);
    for (int other = unit + 1; other < z->layout->n_units; other++)
        for (int i = 0; i < mz_model_unit(model, other)->n_uses; i++)
            if (mz_runner_find(z->runner, mz_model_unit(model, other)->uses[i])->unit == unit)
                return true;
    return false;
}

static mz_status create_buffer(mz_zero *z, int64_t capacity)
{
    mz_grad_buffer *b = &z->reducer.buffers[z->reducer.n_buffers++];
    void *memory;
    mz_status status = mz_zero_alloc(z, capacity, mz_dtype_size(z->grad_dtype), &z->memory.reduce_buffers, &memory);
    *b = (mz_grad_buffer){.memory = memory, .capacity = capacity};
    return status ? status : z->device->ops->event_create(z->device, &b->done);
}

mz_status mz_zero_buffers_create(mz_zero *z)
{
    mz_reducer *r = &z->reducer;
    int64_t sum = 0, largest = 0;
    for (int unit = 0; unit < z->layout->n_units; unit++) {
        int64_t elements = unit_elements(z, unit);
        r->unit_buffer[unit] = MZ_ZERO_SHARED;
        if (used_by_others(z, unit) || elements == 0)
            continue;
        sum += elements;
        largest = elements > largest ? elements : largest;
    }
    int64_t usual = mz_zero_bucket_limit(z), capacity = largest > usual ? largest : usual < sum ? usual : sum;
    mz_status status = MZ_OK;
    r->n_shared = z->overlap && sum > capacity ? 2 : 1;
    for (int i = 0; !status && i < r->n_shared; i++)
        status = create_buffer(z, capacity);
    for (int unit = 0; !status && unit < z->layout->n_units; unit++)
        if (used_by_others(z, unit)) {
            r->unit_buffer[unit] = r->n_buffers;
            status = create_buffer(z, unit_elements(z, unit));
        }
    return status;
}
