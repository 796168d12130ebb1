/* Stage 3's parameters: runs the schedule of fetch_plan.h. A gather is issued on the transfer stream behind what
 * the compute stream has been given so far, so that memory of released units is free by then; the unit that
 * needs it waits for its event. */
#include "core/error.h"
#include "core/memory.h"

#include "zero/internal.h"

/* The sharded segment of a unit; NULL when it has none. It comes first. */
static mz_zero_segment *sharded_segment(const mz_zero *z, int unit)
{
    int first = z->layout->unit_first[unit];
    if (first == z->layout->unit_first[unit + 1] || z->segments[first].at.persistent)
        return NULL;
    return &z->segments[first];
}

/* Points the parameters of a unit's sharded segment into it, or to nowhere. */
static void place_params(mz_zero *z, mz_zero_segment *s, uint8_t *full)
{
    size_t size = mz_dtype_size(z->dtype);
    s->full = full;
    for (int i = s->at.first; i < s->at.first + s->at.n; i++) {
        int t = z->layout->order[i];
        mz_runner_param(z->runner, t)->data = full ? full + (size_t)z->layout->tensors[t].offset * size : NULL;
    }
}

/* Keeps this rank's slice of the group's copy of what has just been gathered. */
static mz_status keep_second(mz_zero *z, const mz_fetch_action *actions, int n)
{
    mz_status status = MZ_OK;
    for (int i = 0; !status && i < n; i++) {
        mz_zero_segment *s = sharded_segment(z, actions[i].unit);
        size_t bytes = (size_t)(s->at.length / z->second_size) * mz_dtype_size(z->dtype);
        status = z->device->ops->copy(z->transfer, s->second, s->full + (size_t)z->second_rank * bytes, bytes);
        s->second_fresh = true;
    }
    return status;
}

static mz_status all_gather(mz_zero *z, bool second, int n, const char *label)
{
    mz_comm *comm = second ? z->second_comm : z->shard_comm;
    const mz_segment *segments = z->fetcher.segments;
    if (z->config.zero.zero_quantized_weights)
        return mz_all_gather_quantized(comm, segments, n, z->dtype, MZ_ZERO_WEIGHT_BITS, label, z->transfer);
    return mz_all_gather(comm, segments, n, z->dtype, label, z->transfer);
}

/* One collective for a run of actions of the same kind and source. */
static mz_status gather(mz_zero *z, const mz_fetch_action *actions, int n)
{
    mz_fetcher *f = &z->fetcher;
    size_t size = mz_dtype_size(z->dtype);
    bool second = sharded_segment(z, actions[0].unit)->second_fresh;
    for (int i = 0; i < n; i++) {
        mz_zero_segment *s = sharded_segment(z, actions[i].unit);
        place_params(z, s, f->pool + (size_t)actions[i].offset * size);
        int64_t count = second ? s->at.length / z->second_size : s->at.slice;
        f->segments[i] = (mz_segment){second ? s->second : s->own, s->full, count, count};
        f->ahead[actions[i].unit] = actions[i].kind == MZ_FETCH_AHEAD;
        z->counters.gathered_elements += s->at.length;
        z->counters.second_elements += second ? s->at.length : 0;
    }
    z->counters.n_gathers++;
    mz_status status = mz_zero_transfer_begin(z, f->ready);
    if (!status && z->comm)
        status = all_gather(z, second, n, z->labels[actions[0].unit]);
    if (!status)
        status = mz_zero_transfer_end(z, NULL);
    for (int i = 0; !status && z->overlap && i < n; i++)
        status = mz_zero_transfer_mark(z, f->gathered[actions[i].unit]);
    return status || !z->second_size || second ? status : keep_second(z, actions, n);
}

/* Whether one collective can do both. */
static bool go_together(const mz_zero *z, const mz_fetch_action *a, const mz_fetch_action *b)
{
    return a->kind == b->kind && (a->kind == MZ_FETCH_RELEASE || sharded_segment(z, a->unit)->second_fresh ==
                                                                     sharded_segment(z, b->unit)->second_fresh);
}

static mz_status run_actions(mz_zero *z, const mz_fetch_action *actions, int n)
{
    mz_status status = MZ_OK;
    for (int i = 0, end; !status && i < n; i = end) {
        for (end = i + 1; end < n && go_together(z, &actions[i], &actions[end]);)
            end++;
        if (actions[i].kind != MZ_FETCH_RELEASE)
            status = gather(z, actions + i, end - i);
        else
            for (int k = i; k < end; k++)
                place_params(z, sharded_segment(z, actions[k].unit), NULL);
    }
    return status;
}

mz_status mz_zero_fetch_before(mz_zero *z, int step, int unit)
{
    mz_fetcher *f = &z->fetcher;
    const mz_fetch_plan *plan = f->plans[z->training];
    const mz_fetch_step *s = &plan->steps[step];
    mz_status status = run_actions(z, plan->actions + s->first, s->n_before);
    for (int i = 0; i < s->n_before; i++)
        z->counters.prefetch_misses += plan->actions[s->first + i].kind == MZ_FETCH_DEMAND;
    for (int i = 0; !status && i < z->n_needs[unit]; i++) {
        int need = z->needs[unit][i];
        z->counters.prefetch_hits += f->ahead[need];
        f->ahead[need] = false;
        if (z->overlap && sharded_segment(z, need))
            status = mz_zero_wait(z, f->gathered[need]);
    }
    return status;
}

mz_status mz_zero_fetch_after(mz_zero *z, int step)
{
    const mz_fetch_plan *plan = z->fetcher.plans[z->training];
    const mz_fetch_step *s = &plan->steps[step];
    return run_actions(z, plan->actions + s->first + s->n_before, s->n_after);
}

void mz_zero_fetch_reset(mz_zero *z)
{
    for (int unit = 0; unit < z->layout->n_units; unit++) {
        mz_zero_segment *s = sharded_segment(z, unit);
        z->fetcher.ahead[unit] = false;
        if (s && s->full)
            place_params(z, s, NULL);
    }
}

void mz_zero_fetch_stale(mz_zero *z)
{
    for (int i = 0; i < z->layout->n_segments; i++)
        z->segments[i].second_fresh = false;
}

static mz_status create_plans(mz_zero *z)
{
    mz_fetcher *f = &z->fetcher;
    int n_units = z->layout->n_units;
    int64_t *elements = mz_calloc((size_t)n_units + 1, sizeof *elements);
    if (!elements)
        return MZ_ERR_MEMORY;
    for (int unit = 0; unit < n_units; unit++) {
        const mz_zero_segment *s = sharded_segment(z, unit);
        elements[unit] = s ? s->at.length : 0;
    }
    mz_fetch_options options = {
        .n_units = n_units,
        .elements = elements,
        .needs = (const int *const *)z->needs,
        .n_needs = z->n_needs,
        .prefetch = z->config.zero.stage3_prefetch_bucket_size,
        .max_live = z->config.zero.stage3_max_live_parameters,
        .max_reuse = z->config.zero.stage3_max_reuse_distance,
    };
    mz_status status = mz_fetch_plan_create(&options, &f->plans[0]);
    options.training = true;
    if (!status)
        status = mz_fetch_plan_create(&options, &f->plans[1]);
    mz_free(elements);
    return status;
}

mz_status mz_zero_fetcher_create(mz_zero *z)
{
    mz_fetcher *f = &z->fetcher;
    size_t n_units = (size_t)z->layout->n_units;
    if (z->stage < 3)
        return MZ_OK;
    f->gathered = mz_calloc(n_units + 1, sizeof(mz_event *));
    f->ahead = mz_calloc(n_units + 1, sizeof *f->ahead);
    f->segments = mz_calloc(n_units + 1, sizeof *f->segments);
    if (!f->gathered || !f->ahead || !f->segments)
        return MZ_ERR_MEMORY;
    mz_status status = create_plans(z);
    if (status)
        return status;
    int64_t pool = f->plans[0]->pool > f->plans[1]->pool ? f->plans[0]->pool : f->plans[1]->pool;
    void *memory;
    status = mz_zero_alloc(z, pool, mz_dtype_size(z->dtype), &z->memory.gather_buffers, &memory);
    f->pool = memory;
    z->counters.max_live_elements =
        f->plans[0]->max_live > f->plans[1]->max_live ? f->plans[0]->max_live : f->plans[1]->max_live;
    for (size_t unit = 0; !status && unit < n_units; unit++)
        status = z->device->ops->event_create(z->device, &f->gathered[unit]);
    return status ? status : z->device->ops->event_create(z->device, &f->ready);
}

void mz_zero_fetcher_free(mz_zero *z)
{
    mz_fetcher *f = &z->fetcher;
    for (int unit = 0; z->layout && unit < z->layout->n_units; unit++)
        if (f->gathered && f->gathered[unit])
            z->device->ops->event_destroy(f->gathered[unit]);
    if (f->ready)
        z->device->ops->event_destroy(f->ready);
    mz_fetch_plan_destroy(f->plans[0]);
    mz_fetch_plan_destroy(f->plans[1]);
    mz_free(f->gathered);
    mz_free(f->ahead);
    mz_free(f->segments);
}
