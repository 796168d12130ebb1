#include "zero/fetch_plan.h"

#include "core/memory.h"

enum { NOT_LIVE = -1, NEVER = -1 };

typedef struct player {
    const mz_fetch_options *o;
    mz_fetch_plan *plan;
    int64_t *offset; /* [n_units] place in the pool; NOT_LIVE */
    bool *ahead;     /* [n_units] fetched and not used yet */
    int64_t live, fetched_ahead;
    int capacity; /* of plan->actions */
} player;

static int unit_at(const player *p, int step)
{
    return step < p->o->n_units ? step : 2 * p->o->n_units - 1 - step;
}

static bool needed_at(const player *p, int step, int unit)
{
    int runs = unit_at(p, step);
    for (int i = 0; i < p->o->n_needs[runs]; i++)
        if (p->o->needs[runs][i] == unit)
            return true;
    return false;
}

static int next_use(const player *p, int step, int unit)
{
    for (int q = step + 1; q < p->plan->n_steps; q++)
        if (needed_at(p, q, unit))
            return q;
    return NEVER;
}

/* Elements of the units that run strictly between two steps. */
static int64_t distance(const player *p, int from, int to)
{
    int64_t sum = 0;
    for (int q = from + 1; q < to; q++) {
        int runs = unit_at(p, q);
        for (int i = 0; i < p->o->n_needs[runs]; i++)
            sum += p->o->elements[p->o->needs[runs][i]];
    }
    return sum;
}

static mz_status record(player *p, mz_fetch_kind kind, int unit)
{
    mz_fetch_plan *plan = p->plan;
    if (plan->n_actions == p->capacity) {
        int capacity = 2 * p->capacity + 64;
        mz_fetch_action *grown = mz_realloc(plan->actions, (size_t)capacity * sizeof *grown);
        if (!grown)
            return MZ_ERR_MEMORY;
        plan->actions = grown;
        p->capacity = capacity;
    }
    plan->actions[plan->n_actions++] = (mz_fetch_action){kind, unit, p->offset[unit]};
    return MZ_OK;
}

/* The lowest place where `elements` fit among the live units. */
static int64_t first_fit(const player *p, int64_t elements)
{
    int64_t at = 0;
    for (int u = 0; u < p->o->n_units; u++) {
        if (p->offset[u] != NOT_LIVE && p->offset[u] < at + elements && at < p->offset[u] + p->o->elements[u]) {
            at = p->offset[u] + p->o->elements[u];
            u = -1; /* look again from the start */
        }
    }
    return at;
}

static mz_status gather(player *p, mz_fetch_kind kind, int unit)
{
    int64_t elements = p->o->elements[unit];
    p->offset[unit] = first_fit(p, elements);
    p->live += elements;
    if (p->live > p->plan->max_live)
        p->plan->max_live = p->live;
    if (p->offset[unit] + elements > p->plan->pool)
        p->plan->pool = p->offset[unit] + elements;
    if (kind == MZ_FETCH_AHEAD) {
        p->ahead[unit] = true;
        p->fetched_ahead += elements;
    }
    return record(p, kind, unit);
}

static mz_status release(player *p, int unit)
{
    mz_status status = record(p, MZ_FETCH_RELEASE, unit);
    p->offset[unit] = NOT_LIVE;
    p->live -= p->o->elements[unit];
    return status;
}

/* Makes room for `elements` that are used at `use`, by releasing units whose next use is furthest away and
 * later than that. Returns whether they fit now. */
static bool make_room(player *p, int step, int use, int64_t elements, mz_status *status)
{
    while (p->live > p->o->max_live - elements) {
        int victim = -1, victim_use = use;
        for (int u = 0; u < p->o->n_units; u++) {
            if (p->offset[u] == NOT_LIVE || p->ahead[u] || needed_at(p, step, u))
                continue;
            int next = next_use(p, step, u);
            if (next > victim_use) {
                victim = u;
                victim_use = next;
            }
        }
        if (victim < 0)
            return false;
        *status = release(p, victim);
        if (*status)
            return false;
    }
    return true;
}

static mz_status fetch_needed(player *p, int step)
{
    int runs = unit_at(p, step);
    mz_status status = MZ_OK;
    for (int i = 0; !status && i < p->o->n_needs[runs]; i++) {
        int unit = p->o->needs[runs][i];
        int64_t elements = p->o->elements[unit];
        if (p->ahead[unit]) {
            p->ahead[unit] = false;
            p->fetched_ahead -= elements;
        } else if (elements > 0 && p->offset[unit] == NOT_LIVE) {
            make_room(p, step, step, elements, &status); /* gathered whether there is room or not */
            if (!status)
                status = gather(p, MZ_FETCH_DEMAND, unit);
        }
    }
    return status;
}

static mz_status fetch_ahead(player *p, int step)
{
    mz_status status = MZ_OK;
    for (int q = step + 1; q < p->plan->n_steps; q++) {
        int runs = unit_at(p, q);
        for (int i = 0; i < p->o->n_needs[runs]; i++) {
            int unit = p->o->needs[runs][i];
            if (p->o->elements[unit] == 0 || p->offset[unit] != NOT_LIVE)
                continue;
            if (p->fetched_ahead >= p->o->prefetch || !make_room(p, step, q, p->o->elements[unit], &status))
                return status;
            status = gather(p, MZ_FETCH_AHEAD, unit);
            if (status)
                return status;
        }
    }
    return MZ_OK;
}

static mz_status release_used(player *p, int step)
{
    int runs = unit_at(p, step);
    mz_status status = MZ_OK;
    for (int i = 0; !status && i < p->o->n_needs[runs]; i++) {
        int unit = p->o->needs[runs][i];
        if (p->offset[unit] == NOT_LIVE)
            continue;
        int next = next_use(p, step, unit);
        if (next == NEVER || p->live > p->o->max_live || distance(p, step, next) > p->o->max_reuse)
            status = release(p, unit);
    }
    return status;
}

static mz_status play(player *p)
{
    for (int step = 0; step < p->plan->n_steps; step++) {
        mz_fetch_step *s = &p->plan->steps[step];
        s->first = p->plan->n_actions;
        mz_status status = fetch_needed(p, step);
        if (!status)
            status = fetch_ahead(p, step);
        s->n_before = p->plan->n_actions - s->first;
        if (!status)
            status = release_used(p, step);
        s->n_after = p->plan->n_actions - s->first - s->n_before;
        if (status)
            return status;
    }
    return MZ_OK;
}

mz_status mz_fetch_plan_create(const mz_fetch_options *o, mz_fetch_plan **plan)
{
    mz_status status = MZ_ERR_MEMORY;
    player p = {.o = o, .plan = mz_calloc(1, sizeof *p.plan)};
    p.offset = mz_calloc((size_t)o->n_units + 1, sizeof *p.offset);
    p.ahead = mz_calloc((size_t)o->n_units + 1, sizeof *p.ahead);
    if (!p.plan || !p.offset || !p.ahead)
        goto out;
    p.plan->n_steps = o->training ? 2 * o->n_units : o->n_units;
    p.plan->steps = mz_calloc((size_t)p.plan->n_steps + 1, sizeof *p.plan->steps);
    if (!p.plan->steps)
        goto out;
    for (int u = 0; u < o->n_units; u++)
        p.offset[u] = NOT_LIVE;
    status = play(&p);
out:
    mz_free(p.offset);
    mz_free(p.ahead);
    if (status)
        mz_fetch_plan_destroy(p.plan);
    else
        *plan = p.plan;
    return status;
}

void mz_fetch_plan_destroy(mz_fetch_plan *plan)
{
    if (!plan)
        return;
    mz_free(plan->steps);
    mz_free(plan->actions);
    mz_free(plan);
}
