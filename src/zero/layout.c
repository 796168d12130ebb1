#include "zero/layout.h"

#include "core/memory.h"

static int64_t round_up(int64_t n, int64_t unit)
{
    return (n + unit - 1) / unit * unit;
}

static int64_t room_of(const mz_layout_input *tensor)
{
    return tensor->room > tensor->numel ? tensor->room : tensor->numel;
}

/* Which tensors persist: those below the threshold, in the model's order, as long as their sum allows. */
static bool *choose_persistent(const mz_layout_options *o)
{
    bool *persistent = mz_calloc((size_t)o->n_tensors + 1, sizeof *persistent);
    int64_t total = 0;
    for (int t = 0; persistent && t < o->n_tensors; t++) {
        int64_t n = o->tensors[t].numel;
        if (n >= o->persistence_threshold || n > o->model_persistence_threshold - total)
            continue;
        persistent[t] = true;
        total += n;
    }
    return persistent;
}

/* Appends to the open segment those tensors of its unit that persist or not and decay or not, as asked. */
static void place(mz_layout *l, const mz_layout_options *o, const bool *persistent, int begin, int end, bool decay)
{
    mz_layout_segment *s = &l->segments[l->n_segments];
    for (int t = begin; t < end; t++) {
        if (persistent[t] != s->persistent || o->tensors[t].decay != decay)
            continue;
        s->length = round_up(s->length, mz_layout_align(o->tensors[t].numel));
        l->tensors[t] = (mz_layout_tensor){l->n_segments, s->length, o->tensors[t].numel};
        l->order[s->first + s->n++] = t;
        s->length += round_up(room_of(&o->tensors[t]), MZ_LAYOUT_ALIGN);
    }
}

static void add_segment(mz_layout *l, const mz_layout_options *o, const bool *persistent, int unit, int begin,
                        int end, bool is_persistent)
{
    mz_layout_segment *s = &l->segments[l->n_segments];
    const mz_layout_segment *last = l->n_segments > 0 ? s - 1 : NULL;
    *s = (mz_layout_segment){.unit = unit, .persistent = is_persistent, .first = last ? last->first + last->n : 0};
    place(l, o, persistent, begin, end, true);
    s->decay_end = s->length;
    place(l, o, persistent, begin, end, false);
    if (s->n == 0)
        return;
    s->length = round_up(s->length, mz_layout_align(s->length / o->n_ranks) * o->n_ranks);
    s->slice = s->length / o->n_ranks;
    l->elements += s->length;
    l->persistent_elements += is_persistent ? s->length : 0;
    l->n_segments++;
}

mz_status mz_layout_create(const mz_layout_options *o, mz_layout **layout)
{
    mz_layout *l = mz_calloc(1, sizeof *l);
    bool *persistent = choose_persistent(o);
    if (!l || !persistent)
        goto fail;
    l->n_tensors = o->n_tensors;
    l->n_units = o->n_units;
    l->tensors = mz_calloc((size_t)o->n_tensors + 1, sizeof *l->tensors);
    l->segments = mz_calloc(2 * (size_t)o->n_units + 1, sizeof *l->segments);
    l->order = mz_calloc((size_t)o->n_tensors + 1, sizeof *l->order);
    l->unit_first = mz_calloc((size_t)o->n_units + 1, sizeof *l->unit_first);
    if (!l->tensors || !l->segments || !l->order || !l->unit_first)
        goto fail;
    for (int unit = 0, begin = 0, end; unit < o->n_units; unit++, begin = end) {
        for (end = begin; end < o->n_tensors && o->tensors[end].unit == unit;)
            end++;
        l->unit_first[unit] = l->n_segments;
        add_segment(l, o, persistent, unit, begin, end, false);
        add_segment(l, o, persistent, unit, begin, end, true);
    }
    l->unit_first[o->n_units] = l->n_segments;
    mz_free(persistent);
    *layout = l;
    return MZ_OK;
fail:
    mz_free(persistent);
    mz_layout_destroy(l);
    return MZ_ERR_MEMORY;
}

void mz_layout_destroy(mz_layout *l)
{
    if (!l)
        return;
    mz_free(l->tensors);
    mz_free(l->segments);
    mz_free(l->order);
    mz_free(l->unit_first);
    mz_free(l);
}

void mz_layout_intersect(const mz_layout *l, int t, int64_t begin, int64_t count, int64_t *offset, int64_t *n)
{
    const mz_layout_tensor *tensor = &l->tensors[t];
    int64_t low = begin > tensor->offset ? begin : tensor->offset;
    int64_t high = begin + count < tensor->offset + tensor->numel ? begin + count : tensor->offset + tensor->numel;
    *offset = low - tensor->offset;
    *n = high > low ? high - low : 0;
    if (*n == 0)
        *offset = 0;
}
