#include "kernels/cpu/attention.h"

#include "kernels/check.h"
#include "kernels/cpu/vmath.h"

/* One thread's buffers, in floats. */
typedef struct layout {
    int64_t panel, vector; /* row strides of [d][key] and of [key][d] */
    int64_t keys, values, queries, strip, out, total;
} layout;

typedef struct work {
    const mz_attention_args *args;
    const mz_attention_form *form;
    layout at;
    int64_t n_blocks; /* of queries per head */
    mz_cpu_rooms rooms;
} work;

static layout lay_out(const mz_attention_shape *s)
{
    layout l = {.panel = mz_panel_stride(s->t_k), .vector = mz_whole_vectors(s->head_size)};
    int64_t end = 0;
    l.keys = end;
    end += l.panel * s->head_size;
    l.values = end;
    end += l.vector * s->t_k;
    l.queries = end;
    end += MZ_QB * s->head_size;
    l.strip = end;
    end += MZ_QB * s->t_k;
    l.out = end;
    end += MZ_QB * s->head_size;
    l.total = (end + 63) / 64 * 64;
    return l;
}

/* The strip's products of q and k become exp(score - max) of each query; gives the sums and the maxima. */
static void exponentiate(const mz_attention_shape *s, int64_t b, int64_t i0, int64_t n_keys, float *strip,
                         float sums[MZ_QB], float maxima[MZ_QB])
{
    for (int64_t v = 0; v < MZ_QB; v += VF_N) {
        const vf nothing = vf_set1(-INFINITY);
        vf max = nothing, sum = vf_set1(0.0f);
        const int64_t first_hidden = s->key_mask ? 0 : i0 + v + (s->t_k - s->t_q) + 1;
        for (int64_t key = 0; key < n_keys; key++) {
            float *p = strip + key * MZ_QB + v;
            vf x = vf_load(p) * s->scale;
            if (s->key_mask || (s->causal && key >= first_hidden))
                x = vf_select(mz_sees_key(s, b, i0, v, key), x, nothing);
            vf_store(p, x);
            max = vf_max(max, x);
        }
        /* A query that sees no key keeps -infinity in all its scores, whose exponentials shall be 0. */
        const vf shift = vf_select(vf_lt(nothing, max), max, vf_set1(0.0f));
        for (int64_t key = 0; key < n_keys; key++) {
            float *p = strip + key * MZ_QB + v;
            const vf e = vf_exp(vf_load(p) - shift);
            vf_store(p, e);
            sum += e;
        }
        vf_store(sums + v, sum);
        vf_store(maxima + v, max);
    }
}

static void attend_block(const work *w, int64_t b, int64_t h, int64_t i0, float *room)
{
    const mz_attention_shape *s = &w->args->shape;
    const mz_attention_form *form = w->form;
    const layout *at = &w->at;
    const int64_t n = s->t_q - i0 < MZ_QB ? s->t_q - i0 : MZ_QB, lanes = mz_whole_vectors(n);
    const int64_t n_keys = mz_visible_keys(s, i0 + n);
    const mz_view q = MZ_VIEW(s, w->args->q, q, b, h), o = MZ_VIEW(s, w->args->o, o, b, h);
    float *queries = room + at->queries, *strip = room + at->strip, *out = room + at->out;
    float sums[MZ_QB], maxima[MZ_QB], inverse[MZ_QB];

    memset(queries, 0, (size_t)(MZ_QB * s->head_size) * sizeof *queries);
    form->columns(&q, s->dtype, i0, n, s->head_size, queries, MZ_QB);
    mz_tiles(form->panel, false, n_keys, MZ_QB, mz_steps(form, s->head_size), room + at->keys, at->panel, queries,
             MZ_QB, false, strip, MZ_QB);
    exponentiate(s, b, i0, n_keys, strip, sums, maxima);
    MZ_CPU(attention_dropout)(s, b, h, i0, n_keys, strip);
    form->over_keys(strip, n_keys, strip);
    mz_tiles(form->panel, false, s->head_size, lanes, mz_steps(form, n_keys), room + at->values, at->vector, strip,
             MZ_QB, false, out, MZ_QB);
    for (int i = 0; i < MZ_QB; i++)
        inverse[i] = sums[i] > 0.0f ? 1.0f / sums[i] : 0.0f;
    MZ_CPU(attention_put)(out, n, s->head_size, inverse, s->dtype, w->args->o, o.base + i0 * o.token, o.token);
    for (int64_t i = 0; w->args->lse && i < n; i++)
        w->args->lse[(b * s->heads + h) * s->t_q + i0 + i] =
            sums[i] > 0.0f ? (float)((double)maxima[i] + log((double)sums[i])) : -INFINITY;
}

/* Items are blocks of queries, those of a head in sequence, so that its keys are packed once by a thread. */
static void attend_part(void *arg, int64_t begin, int64_t end, int thread)
{
    const work *w = arg;
    const mz_attention_shape *s = &w->args->shape;
    float *room = (float *)(w->rooms.first + (size_t)thread * w->rooms.distance);
    int64_t packed = -1;
    for (int64_t item = begin; item < end; item++) {
        const int64_t head = item / w->n_blocks, b = head / s->heads, h = head % s->heads;
        if (head != packed) {
            const mz_view k = MZ_VIEW(s, w->args->k, k, b, h), v = MZ_VIEW(s, w->args->v, v, b, h);
            const int64_t last = item - head * w->n_blocks + (end - item), n_blocks = w->n_blocks;
            const int64_t i_end = (last < n_blocks ? last : n_blocks) * MZ_QB;
            const int64_t n_keys = mz_visible_keys(s, i_end < s->t_q ? i_end : s->t_q);
            w->form->columns(&k, s->dtype, 0, n_keys, s->head_size, room + w->at.keys, w->at.panel);
            w->form->rows(&v, s->dtype, 0, n_keys, s->head_size, room + w->at.values, w->at.vector);
            packed = head;
        }
        attend_block(w, b, h, item % w->n_blocks * MZ_QB, room);
    }
}

mz_status MZ_CPU(attention)(const mz_attention_args *args, mz_stream *stream)
{
    mz_status status = mz_check_attention(args);
    const mz_attention_shape *s = &args->shape;
    if (status || s->batch == 0 || s->heads == 0 || s->t_q == 0)
        return status;
    work w = {.args = args,
              .form = mz_attention_form_for(s->dtype),
              .at = lay_out(s),
              .n_blocks = (s->t_q + MZ_QB - 1) / MZ_QB};
    mz_threads *threads =
        mz_threads_if_worth(stream, s->batch * s->heads * s->t_q * s->t_k * (s->head_size / 8 + 1));
    status = mz_cpu_rooms_take(stream, (size_t)w.at.total * sizeof(float), &w.rooms);
    if (status)
        return status;
    mz_threads_for(threads, s->batch * s->heads * w.n_blocks, 1, attend_part, &w);
    mz_cpu_rooms_give(stream, &w.rooms);
    return MZ_OK;
}
