#include "kernels/check.h"
#include "kernels/cpu/family.h"
#include "kernels/cpu/philox.h"
#include "kernels/cpu/storage.h"

/* Settings of one chunk's update, worked out once. */
typedef struct update {
    const mz_optim_args *args;
    const mz_optim_hyper *h;
    float lr, decay, keep;         /* keep = 1 - lr * decay: what decoupled decay leaves */
    float inverse1, inverse_root2; /* 1 / bias_correction1, 1 / sqrt(bias_correction2) */
} update;

/* What a chunk's numbers are stored as; constant where the functions are inlined. */
typedef enum form { WITH_MASTER, NO_MASTER, NO_MASTER_SMALL_STATES } form;

/* The draws of stochastic rounding: those of elements first .. first + MZ_DRAWS - 1, from a block's begin on. */
typedef struct draws {
    mz_dropout source; /* its state and site */
    uint64_t first;
    uint32_t values[MZ_DRAWS];
} draws;

/* The draws of VF_N elements from `element` on. */
MZ_INLINE vu draws_at(draws *d, uint64_t element)
{
    vu lanes;
    if (element < d->first || element - d->first > MZ_DRAWS - VF_N) {
        d->first = element / 4 * 4;
        mz_philox_run(&d->source, element / 4, d->values);
    }
    memcpy(&lanes, d->values + (element - d->first), sizeof lanes);
    return lanes;
}

/* core/half.h's stochastic rounding, as the fp32 numbers that bf16 holds. */
MZ_INLINE vf round_stochastically(vf x, vu random)
{
    const vf rounded = (vf)(((vu)x + (random & 0xffffu)) & 0xffff0000u);
    return vf_select(vf_le(x, x), rounded, x);
}

/* Where VF_N elements stand, `left` of them valid. */
typedef struct place {
    const mz_optim_chunk *chunk;
    int64_t i, left;
    form form;
    bool rounds; /* stochastically */
    vu draw;
} place;

MZ_INLINE mz_dtype state_dtype(form f)
{
    return f == NO_MASTER_SMALL_STATES ? MZ_BF16 : MZ_F32;
}

MZ_INLINE vf get_state(const place *p, const void *state)
{
    return mz_load_n(state, state_dtype(p->form), p->i, p->left);
}

MZ_INLINE void put_state(const place *p, void *state, vf x, vu random)
{
    if (p->form == NO_MASTER_SMALL_STATES && p->rounds)
        x = round_stochastically(x, random);
    mz_store_n(state, state_dtype(p->form), p->i, x, p->left);
}

MZ_INLINE void put_state1(const place *p, vf x)
{
    put_state(p, p->chunk->state1, x, p->draw >> 16);
}

/* The moments with g added, and the direction of Adam's step. */
MZ_INLINE vf adam_direction(const update *u, vf g, const place *p)
{
    const vf m = vf_fma(get_state(p, p->chunk->state1), vf_set1(u->h->beta1), g * (1.0f - u->h->beta1));
    const vf v = vf_fma(get_state(p, p->chunk->state2), vf_set1(u->h->beta2), g * g * (1.0f - u->h->beta2));
    put_state1(p, m);
    put_state(p, p->chunk->state2, v, p->draw + (p->draw >> 16));
    return m * u->inverse1 / vf_fma(vf_sqrt(v), vf_set1(u->inverse_root2), vf_set1(u->h->eps));
}

MZ_INLINE vf sgd_direction(const update *u, vf g, const place *p)
{
    if (u->h->momentum == 0.0f)
        return g;
    vf buffer = g;
    if (!u->h->first_step)
        buffer = vf_fma(get_state(p, p->chunk->state1), vf_set1(u->h->momentum), g * (1.0f - u->h->dampening));
    put_state1(p, buffer);
    return u->h->nesterov ? vf_fma(buffer, vf_set1(u->h->momentum), g) : buffer;
}

MZ_INLINE vf adagrad_direction(const update *u, vf g, const place *p)
{
    const vf sum = vf_fma(g, g, get_state(p, p->chunk->state1));
    put_state1(p, sum);
    return g / (vf_sqrt(sum) + u->h->eps);
}

MZ_INLINE vf lion_direction(const update *u, vf g, const place *p)
{
    const vf m = get_state(p, p->chunk->state1), zero = vf_set1(0.0f), one = vf_set1(1.0f);
    const vf blend = vf_fma(m, vf_set1(u->h->beta1), g * (1.0f - u->h->beta1));
    put_state1(p, vf_fma(m, vf_set1(u->h->beta2), g * (1.0f - u->h->beta2)));
    return vf_select(vf_lt(zero, blend), one, vf_select(vf_lt(blend, zero), -one, zero));
}

/* The parameters that the model reads. Every thread read them, so that every cache may hold them: telling all of
 * those to drop a line takes up to 20 times as long as a store to memory. */
typedef struct output {
    void *p;
    mz_dtype dtype;
    bool streams;
} output;

static output parameters_of(const update *u, const mz_optim_chunk *c, int64_t begin)
{
    output out = {.p = c->param ? c->param : c->master, .dtype = c->param ? u->args->param_dtype : MZ_F32};
    const uintptr_t first = (uintptr_t)mz_at(out.p, out.dtype, begin);
    out.streams = first % (uintptr_t)(VF_N * mz_storage_size(out.dtype)) == 0;
    if ((!c->param || u->args->no_master) && u->args->updated)
        out.streams = false; /* they are read again at once */
    if (u->args->no_master && VF_N < 16)
        out.streams = false; /* else the rest of each line, which is read next, would come from memory */
    return out;
}

MZ_INLINE void update_range(const update *u, mz_optim_kind kind, mz_dtype dtype, form stored,
                            const mz_optim_chunk *c, int64_t begin, int64_t end)
{
    const float grad_scale = *u->args->grad_scale;
    const bool decoupled = kind == MZ_OPTIM_ADAMW || kind == MZ_OPTIM_LION;
    const output out = parameters_of(u, c, begin);
    draws d = {.source = {.state = u->args->rounding.state, .site = u->args->rounding.site}, .first = UINT64_MAX};
    for (int64_t i = begin; i < end; i += VF_N) {
        const int64_t left = end - i;
        place p = {.chunk = c, .i = i, .left = left, .form = stored};
        p.rounds = stored != WITH_MASTER && d.source.state;
        if (p.rounds)
            p.draw = draws_at(&d, (uint64_t)(c->first + i));
        const vf w = stored == WITH_MASTER ? vf_load_n(c->master + i, left) : mz_load_n(c->param, MZ_BF16, i, left);
        vf g = mz_load_n(c->grad, dtype, i, left) * grad_scale, step;
        if (!decoupled)
            g = vf_fma(w, vf_set1(u->decay), g);
        if (kind == MZ_OPTIM_ADAMW || kind == MZ_OPTIM_ADAM)
            step = adam_direction(u, g, &p);
        else if (kind == MZ_OPTIM_SGD)
            step = sgd_direction(u, g, &p);
        else if (kind == MZ_OPTIM_ADAGRAD)
            step = adagrad_direction(u, g, &p);
        else
            step = lion_direction(u, g, &p);
        vf next = vf_fma(step, vf_set1(-u->lr), decoupled ? w * u->keep : w);
        if (p.rounds)
            next = round_stochastically(next, p.draw);
        if (stored == WITH_MASTER && c->param)
            vf_store_n(c->master + i, next, left);
        if (out.streams && left >= VF_N)
            mz_stream_store(out.p, out.dtype, i, next);
        else
            mz_store_n(out.p, out.dtype, i, next, left);
    }
    if (out.streams)
        vf_stream_end();
}

static void update_chunk(const mz_optim_args *a, const mz_optim_chunk *c, int64_t begin, int64_t end)
{
    const mz_optim_hyper *h = a->hyper;
    update u = {.args = a, .h = h, .lr = h->lr * c->lr_scale, .decay = c->weight_decay};
    u.keep = (float)(1.0 - (double)u.lr * (double)u.decay);
    u.inverse1 = 1.0f / h->bias_correction1;
    u.inverse_root2 = (float)(1.0 / sqrt((double)h->bias_correction2));
    switch (a->kind) {
#define CASE(kind)                                                                                                 \
    case kind:                                                                                                     \
        if (!a->no_master)                                                                                         \
            MZ_FOR_DTYPE(a->grad_dtype, update_range(&u, kind, D, WITH_MASTER, c, begin, end));                    \
        else if (a->state_dtype == MZ_F32 && a->grad_dtype == MZ_F32)                                              \
            update_range(&u, kind, MZ_F32, NO_MASTER, c, begin, end);                                              \
        else if (a->state_dtype == MZ_F32)                                                                         \
            update_range(&u, kind, MZ_BF16, NO_MASTER, c, begin, end);                                             \
        else if (a->grad_dtype == MZ_F32)                                                                          \
            update_range(&u, kind, MZ_F32, NO_MASTER_SMALL_STATES, c, begin, end);                                 \
        else                                                                                                       \
            update_range(&u, kind, MZ_BF16, NO_MASTER_SMALL_STATES, c, begin, end);                                \
        break;
        CASE(MZ_OPTIM_ADAMW)
        CASE(MZ_OPTIM_ADAM)
        CASE(MZ_OPTIM_SGD)
        CASE(MZ_OPTIM_ADAGRAD)
        CASE(MZ_OPTIM_LION)
#undef CASE
    default:
        break;
    }
}

/* Elements begin..end of the chunks laid end to end. */
static void update_part(void *arg, int64_t begin, int64_t end, int thread)
{
    const mz_optim_args *a = arg;
    int64_t base = 0;
    (void)thread;
    for (int i = 0; i < a->n_chunks && base < end; i++) {
        const mz_optim_chunk *c = &a->chunks[i];
        const int64_t from = begin > base ? begin - base : 0, to = end - base < c->n ? end - base : c->n;
        if (from < to)
            update_chunk(a, c, from, to);
        base += c->n;
    }
}

/* The chunks that begin among elements begin..end, whole, in pieces that stay in the cache. */
static void update_and_tell(void *arg, int64_t begin, int64_t end, int thread)
{
    const mz_optim_args *a = arg;
    const int64_t piece = 16384;
    int64_t base = 0;
    (void)thread;
    for (int i = 0; i < a->n_chunks && base < end; base += a->chunks[i++].n) {
        const mz_optim_chunk *c = &a->chunks[i];
        for (int64_t from = 0, to; base >= begin && from < c->n; from = to) {
            to = from + piece < c->n ? from + piece : c->n;
            update_chunk(a, c, from, to);
            a->updated(a->updated_context, c, from, to);
        }
    }
}

mz_status MZ_CPU(optim)(const mz_optim_args *args, mz_stream *stream)
{
    mz_status status = mz_check_optim(args);
    if (status || args->n_chunks == 0 || *args->nonfinite != 0)
        return status;
    mz_optim_args a = *args;
    a.n_elements = 0;
    for (int i = 0; i < a.n_chunks; i++)
        a.n_elements += a.chunks[i].n;
    mz_threads_for(mz_threads_if_worth(stream, a.n_elements), a.n_elements, 64,
                   a.updated ? update_and_tell : update_part, &a);
    return MZ_OK;
}
