#include "kernels/cpu/attention.h"

#include "kernels/check.h"
#include "kernels/cpu/vmath.h"

/* One thread's buffers, in floats. */
typedef struct layout {
    int64_t panel, vector;                                           /* row strides of [d][key] and of [.][d] */
    int64_t key_panel, value_panel, keys, dk, dv;                    /* of a head */
    int64_t q_columns, q_rows, do_columns, do_rows, strip, grad, dq; /* of a block of queries */
    int64_t grad_over_keys;                                          /* grad again, as an operand over keys */
    int64_t total;
} layout;

typedef struct work {
    const mz_attention_grad_args *args;
    const mz_attention_form *form;
    layout at;
    mz_cpu_rooms rooms;
} work;

static layout lay_out(const mz_attention_shape *s, const mz_attention_form *form)
{
    layout l = {.panel = mz_panel_stride(s->t_k), .vector = mz_whole_vectors(s->head_size)};
    const int64_t panel = l.panel * s->head_size, rows = l.vector * s->t_k;
    const int64_t block_columns = MZ_QB * s->head_size, block_rows = MZ_QB * l.vector, strip = MZ_QB * s->t_k;
    int64_t end = 0;
#define CUT(field, size) (l.field = end, end += (size))
    CUT(key_panel, panel);
    CUT(value_panel, panel);
    CUT(keys, rows);
    CUT(dk, rows);
    CUT(dv, rows);
    CUT(q_columns, block_columns);
    CUT(do_columns, block_columns);
    CUT(dq, block_columns);
    CUT(q_rows, block_rows);
    CUT(do_rows, block_rows);
    CUT(strip, strip);
    CUT(grad, strip);
    l.grad_over_keys = l.grad;
    if (form->elements > 1)
        CUT(grad_over_keys, strip);
#undef CUT
    l.total = (end + 63) / 64 * 64;
    return l;
}

/* delta[q] = d_o . o, which is the sum over keys of p dp. */
static void row_products(const mz_attention_shape *s, const mz_view *o, const mz_view *d_o, int64_t i0, int64_t n,
                         float delta[MZ_QB])
{
    for (int64_t i = 0; i < MZ_QB; i++) {
        vf sum = vf_set1(0.0f);
        const int64_t x = o->base + (i0 + i) * o->token, y = d_o->base + (i0 + i) * d_o->token;
        for (int64_t d = 0; i < n && d < s->head_size; d += VF_N)
            sum = vf_fma(mz_load_n(o->data, s->dtype, x + d, s->head_size - d),
                         mz_load_n(d_o->data, s->dtype, y + d, s->head_size - d), sum);
        delta[i] = vf_sum(sum);
    }
}

/* The strip's products of q and k become the softmax's probabilities. */
static void probabilities(const mz_attention_shape *s, int64_t b, int64_t i0, int64_t n_keys,
                          const float lse[MZ_QB], float *strip)
{
    for (int64_t v = 0; v < MZ_QB; v += VF_N) {
        const vf shift = vf_load(lse + v), zero = vf_set1(0.0f);
        const int64_t first_hidden = s->key_mask ? 0 : i0 + v + (s->t_k - s->t_q) + 1;
        for (int64_t key = 0; key < n_keys; key++) {
            float *x = strip + key * MZ_QB + v;
            vf p = vf_exp(vf_fma(vf_load(x), vf_set1(s->scale), -shift));
            if (s->key_mask || (s->causal && key >= first_hidden))
                p = vf_select(mz_sees_key(s, b, i0, v, key), p, zero);
            vf_store(x, p);
        }
    }
}

/* grad holds d_o . v and becomes p (factor * d_o . v - delta), factor being dropout's; the strip becomes
 * p * factor. Without dropout `factor` is NULL. */
static void score_gradients(int64_t n_keys, const float delta[MZ_QB], const float *factor, float *strip,
                            float *grad)
{
    for (int64_t at = 0; at < n_keys * MZ_QB; at += MZ_QB)
        for (int64_t v = 0; v < MZ_QB; v += VF_N) {
            const vf p = vf_load(strip + at + v), d = vf_load(delta + v);
            vf dp = vf_load(grad + at + v);
            if (factor) {
                const vf f = vf_load(factor + at + v);
                dp *= f;
                vf_store(strip + at + v, p * f);
            }
            vf_store(grad + at + v, p * (dp - d));
        }
}

/* With dropout the kept probabilities are needed apart from p: dropout is applied to a strip of ones, which
 * lies behind the thread's other buffers. */
static float *dropout_factors(const work *w, int64_t b, int64_t h, int64_t i0, int64_t n_keys, float *room)
{
    const mz_attention_shape *s = &w->args->shape;
    if (s->dropout.p == 0.0f)
        return NULL;
    float *factor = room + w->at.total;
    for (int64_t i = 0; i < n_keys * MZ_QB; i += VF_N)
        vf_store(factor + i, vf_set1(1.0f));
    MZ_CPU(attention_dropout)(s, b, h, i0, n_keys, factor);
    return factor;
}

static void block_grad(const work *w, int64_t b, int64_t h, int64_t i0, float *room)
{
    const mz_attention_grad_args *a = w->args;
    const mz_attention_shape *s = &a->shape;
    const layout *at = &w->at;
    const mz_attention_form *form = w->form;
    const int64_t hs = s->head_size, n = s->t_q - i0 < MZ_QB ? s->t_q - i0 : MZ_QB;
    const int64_t n_keys = mz_visible_keys(s, i0 + n);
    const mz_view q = MZ_VIEW(s, a->q, q, b, h), o = MZ_VIEW(s, a->o, o, b, h), d_o = MZ_VIEW(s, a->d_o, o, b, h);
    float *strip = room + at->strip, *grad = room + at->grad, *q_columns = room + at->q_columns;
    float *do_columns = room + at->do_columns, *q_rows = room + at->q_rows, *do_rows = room + at->do_rows;
    float lse[MZ_QB], delta[MZ_QB], scale[MZ_QB];

    for (int i = 0; i < MZ_QB; i++) {
        /* Lanes beyond the last query, and queries that see no key, get probabilities of 0. */
        const float x = i < n ? a->lse[(b * s->heads + h) * s->t_q + i0 + i] : -INFINITY;
        lse[i] = x == -INFINITY ? INFINITY : x;
        scale[i] = s->scale;
    }
    row_products(s, &o, &d_o, i0, n, delta);
    memset(q_columns, 0, (size_t)(MZ_QB * hs) * sizeof *q_columns);
    memset(do_columns, 0, (size_t)(MZ_QB * hs) * sizeof *do_columns);
    form->columns(&q, s->dtype, i0, n, hs, q_columns, MZ_QB);
    form->columns(&d_o, s->dtype, i0, n, hs, do_columns, MZ_QB);
    form->rows(&q, s->dtype, i0, n, hs, q_rows, at->vector);
    form->rows(&d_o, s->dtype, i0, n, hs, do_rows, at->vector);

    const int64_t size_steps = mz_steps(form, hs), query_steps = mz_steps(form, n);
    mz_tiles(form->panel, false, n_keys, MZ_QB, size_steps, room + at->key_panel, at->panel, q_columns, MZ_QB,
             false, strip, MZ_QB);
    probabilities(s, b, i0, n_keys, lse, strip);
    mz_tiles(form->panel, false, n_keys, MZ_QB, size_steps, room + at->value_panel, at->panel, do_columns, MZ_QB,
             false, grad, MZ_QB);
    score_gradients(n_keys, delta, dropout_factors(w, b, h, i0, n_keys, room), strip, grad);

    form->over_queries(strip, n_keys);
    mz_tiles(form->strip, true, n_keys, at->vector, query_steps, strip, 0, do_rows, at->vector, true, room + at->dv,
             at->vector);
    form->over_keys(grad, n_keys, room + at->grad_over_keys);
    form->over_queries(grad, n_keys);
    mz_tiles(form->strip, true, n_keys, at->vector, query_steps, grad, 0, q_rows, at->vector, true, room + at->dk,
             at->vector);
    mz_tiles(form->panel, false, hs, MZ_QB, mz_steps(form, n_keys), room + at->keys, at->vector,
             room + at->grad_over_keys, MZ_QB, false, room + at->dq, MZ_QB);
    MZ_CPU(attention_put)(room + at->dq, n, hs, scale, s->dtype, a->dq, q.base + i0 * q.token, q.token);
}

/* y[t][d] = scale * x[t][d] */
static void store_rows(const float *x, int64_t ld, int64_t n, int64_t head_size, float scale, mz_dtype dtype,
                       void *y, const mz_view *at)
{
    for (int64_t t = 0; t < n; t++)
        for (int64_t d = 0; d < head_size; d += VF_N)
            mz_store_n(y, dtype, at->base + t * at->token + d, vf_load(x + t * ld + d) * scale, head_size - d);
}

static void head_grad(const work *w, int64_t b, int64_t h, float *room)
{
    const mz_attention_grad_args *a = w->args;
    const mz_attention_shape *s = &a->shape;
    const layout *at = &w->at;
    const mz_view k = MZ_VIEW(s, a->k, k, b, h), v = MZ_VIEW(s, a->v, v, b, h);
    const size_t rows_bytes = (size_t)(at->vector * s->t_k) * sizeof(float);
    w->form->columns(&k, s->dtype, 0, s->t_k, s->head_size, room + at->key_panel, at->panel);
    w->form->columns(&v, s->dtype, 0, s->t_k, s->head_size, room + at->value_panel, at->panel);
    w->form->rows(&k, s->dtype, 0, s->t_k, s->head_size, room + at->keys, at->vector);
    memset(room + at->dk, 0, rows_bytes);
    memset(room + at->dv, 0, rows_bytes);
    for (int64_t i0 = 0; i0 < s->t_q; i0 += MZ_QB)
        block_grad(w, b, h, i0, room);
    store_rows(room + at->dk, at->vector, s->t_k, s->head_size, s->scale, s->dtype, a->dk, &k);
    store_rows(room + at->dv, at->vector, s->t_k, s->head_size, 1.0f, s->dtype, a->dv, &v);
}

static int64_t thread_floats(const mz_attention_shape *s, const layout *at)
{
    return at->total + (s->dropout.p == 0.0f ? 0 : MZ_QB * s->t_k);
}

static void grad_part(void *arg, int64_t begin, int64_t end, int thread)
{
    const work *w = arg;
    const mz_attention_shape *s = &w->args->shape;
    float *room = (float *)(w->rooms.first + (size_t)thread * w->rooms.distance);
    for (int64_t head = begin; head < end; head++)
        head_grad(w, head / s->heads, head % s->heads, room);
}

mz_status MZ_CPU(attention_grad)(const mz_attention_grad_args *args, mz_stream *stream)
{
    mz_status status = mz_check_attention_grad(args, 0);
    const mz_attention_shape *s = &args->shape;
    if (status || s->batch == 0 || s->heads == 0)
        return status;
    const mz_attention_form *form = mz_attention_form_for(s->dtype);
    work w = {.args = args, .form = form, .at = lay_out(s, form)};
    mz_threads *threads =
        mz_threads_if_worth(stream, s->batch * s->heads * s->t_q * s->t_k * (s->head_size / 8 + 1));
    status = mz_cpu_rooms_take(stream, (size_t)thread_floats(s, &w.at) * sizeof(float), &w.rooms);
    if (status)
        return status;
    mz_threads_for(threads, s->batch * s->heads, 1, grad_part, &w);
    mz_cpu_rooms_give(stream, &w.rooms);
    return MZ_OK;
}

/* Buffers are per thread, not per shape, and belong to the stream. */
size_t MZ_CPU(attention_grad_workspace)(const mz_attention_shape *shape)
{
    (void)shape;
    return 0;
}
