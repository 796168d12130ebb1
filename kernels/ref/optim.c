#include <math.h>

#include "core/half.h"
#include "core/rng.h"
#include "kernels/check.h"
#include "kernels/ref/ref.h"

/* One element's update. `g` is the scaled gradient; state1 and state2 are the element's own, left alone where the
 * optimiser has none. Returns the new weight. */
typedef double (*update_fn)(const mz_optim_hyper *h, double lr, double decay, double w, double g, float *state1,
                            float *state2);

/* The step of Adam from the moments, after both are updated with g. */
static double adam_step(const mz_optim_hyper *h, double g, float *state1, float *state2)
{
    double m = (double)h->beta1 * (double)*state1 + (1.0 - (double)h->beta1) * g;
    double v = (double)h->beta2 * (double)*state2 + (1.0 - (double)h->beta2) * g * g;
    *state1 = (float)m;
    *state2 = (float)v;
    return m / (double)h->bias_correction1 / (sqrt(v / (double)h->bias_correction2) + (double)h->eps);
}

static double adamw(const mz_optim_hyper *h, double lr, double decay, double w, double g, float *state1,
                    float *state2)
{
    return w * (1.0 - lr * decay) - lr * adam_step(h, g, state1, state2);
}

static double adam(const mz_optim_hyper *h, double lr, double decay, double w, double g, float *state1,
                   float *state2)
{
    return w - lr * adam_step(h, g + decay * w, state1, state2);
}

static double sgd(const mz_optim_hyper *h, double lr, double decay, double w, double g, float *state1,
                  float *state2)
{
    (void)state2;
    g += decay * w;
    if (h->momentum != 0.0f) {
        double buffer =
            h->first_step ? g : (double)h->momentum * (double)*state1 + (1.0 - (double)h->dampening) * g;
        *state1 = (float)buffer;
        g = h->nesterov ? g + (double)h->momentum * buffer : buffer;
    }
    return w - lr * g;
}

/* Duchi, Hazan, Singer 2011. */
static double adagrad(const mz_optim_hyper *h, double lr, double decay, double w, double g, float *state1,
                      float *state2)
{
    (void)state2;
    g += decay * w;
    double sum = (double)*state1 + g * g;
    *state1 = (float)sum;
    return w - lr * g / (sqrt(sum) + (double)h->eps);
}

/* Chen et al. 2023, "Symbolic discovery of optimization algorithms". */
static double lion(const mz_optim_hyper *h, double lr, double decay, double w, double g, float *state1,
                   float *state2)
{
    (void)state2;
    double m = (double)*state1, direction = (double)h->beta1 * m + (1.0 - (double)h->beta1) * g;
    *state1 = (float)((double)h->beta2 * m + (1.0 - (double)h->beta2) * g);
    return w * (1.0 - lr * decay) - lr * (double)((direction > 0.0) - (direction < 0.0));
}

static const update_fn updates[MZ_N_OPTIMS] = {
    [MZ_OPTIM_ADAMW] = adamw,     [MZ_OPTIM_ADAM] = adam, [MZ_OPTIM_SGD] = sgd,
    [MZ_OPTIM_ADAGRAD] = adagrad, [MZ_OPTIM_LION] = lion,
};

static float load(const void *p, mz_dtype dtype, int64_t i)
{
    return p ? mz_load_f32(p, dtype, i) : 0.0f;
}

/* `random`: for stochastic rounding. */
static void store(const mz_optim_args *a, void *p, mz_dtype dtype, int64_t i, float value, uint32_t random)
{
    if (p && dtype == MZ_BF16 && a->rounding.state)
        ((uint16_t *)p)[i] = mz_f32_to_bf16_stochastic(value, random);
    else if (p)
        mz_store_f32(p, dtype, i, value);
}

static uint32_t draw_of(const mz_optim_args *a, const mz_optim_chunk *c, int64_t i)
{
    const mz_rng_state *state = a->rounding.state;
    return state ? mz_rng_u32(state->seed, a->rounding.site, state->step, (uint64_t)(c->first + i)) : 0;
}

static void update_chunk(const mz_optim_args *a, const mz_optim_chunk *c)
{
    double lr = (double)a->hyper->lr * (double)c->lr_scale;
    void *weights = a->no_master ? c->param : c->master;
    mz_dtype dtype = a->no_master ? MZ_BF16 : MZ_F32;
    for (int64_t i = 0; i < c->n; i++) {
        double g = (double)mz_load_f32(c->grad, a->grad_dtype, i) * (double)*a->grad_scale;
        float state1 = load(c->state1, a->state_dtype, i), state2 = load(c->state2, a->state_dtype, i);
        float w = (float)updates[a->kind](a->hyper, lr, (double)c->weight_decay, (double)load(weights, dtype, i), g,
                                          &state1, &state2);
        const uint32_t draw = draw_of(a, c, i);
        store(a, weights, dtype, i, w, draw);
        store(a, c->state1, a->state_dtype, i, state1, draw >> 16);
        store(a, c->state2, a->state_dtype, i, state2, draw + (draw >> 16));
        if (c->param && !a->no_master)
            mz_store_f32(c->param, a->param_dtype, i, w);
    }
}

mz_status mz_ref_optim(const mz_optim_args *a, mz_stream *stream)
{
    (void)stream;
    mz_status status = mz_check_optim(a);
    if (status || a->n_chunks == 0 || *a->nonfinite != 0)
        return status;
    for (int chunk = 0; chunk < a->n_chunks; chunk++) {
        update_chunk(a, &a->chunks[chunk]);
        if (a->updated && a->chunks[chunk].n)
            a->updated(a->updated_context, &a->chunks[chunk], 0, a->chunks[chunk].n);
    }
    return MZ_OK;
}
