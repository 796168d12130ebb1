#include <math.h>

#include "core/half.h"
#include "kernels/check.h"
#include "kernels/dropout.h"
#include "kernels/ref/ref.h"

#define MAX_HEAD_SIZE 1024 /* as kernels/check.c */

/* A tensor seen by one sample and head: element [t][d] lies at base + t * token + d. */
typedef struct view {
    void *data;
    mz_dtype dtype;
    int64_t base, token;
} view;

static double get(const view *x, int64_t t, int64_t d)
{
    return (double)mz_load_f32(x->data, x->dtype, x->base + t * x->token + d);
}

static void put(const view *x, int64_t t, int64_t d, double value)
{
    mz_store_f32(x->data, x->dtype, x->base + t * x->token + d, (float)value);
}

static double dot(const view *x, int64_t i, const view *y, int64_t j, int64_t n)
{
    double sum = 0.0;
    for (int64_t d = 0; d < n; d++)
        sum += get(x, i, d) * get(y, j, d);
    return sum;
}

#define VIEW(s, pointer, x, b, h)                                                                                  \
    {                                                                                                              \
        (void *)(uintptr_t)(pointer), (s)->dtype, (b) * (s)->x##_batch + (h) * (s)->x##_head, (s)->x##_token       \
    }

static bool is_masked(const mz_attention_shape *s, int64_t b, int64_t i, int64_t j)
{
    return (s->key_mask && s->key_mask[b * s->t_k + j] == 0) || (s->causal && j > i + (s->t_k - s->t_q));
}

/* s[i][j], -inf where masked. */
static double score(const mz_attention_shape *s, const view *q, const view *k, int64_t b, int64_t i, int64_t j)
{
    return is_masked(s, b, i, j) ? -INFINITY : (double)s->scale * dot(q, i, k, j, s->head_size);
}

static double dropout_at(const mz_attention_shape *s, int64_t b, int64_t h, int64_t i, int64_t j)
{
    return mz_dropout_factor(&s->dropout, ((b * s->heads + h) * s->t_q + i) * s->t_k + j);
}

static void attend_row(const mz_attention_args *a, int64_t b, int64_t h, int64_t i)
{
    const mz_attention_shape *s = &a->shape;
    view q = VIEW(s, a->q, q, b, h), k = VIEW(s, a->k, k, b, h);
    view v = VIEW(s, a->v, v, b, h), o = VIEW(s, a->o, o, b, h);
    double max = -INFINITY, sum = 0.0, out[MAX_HEAD_SIZE] = {0};
    for (int64_t j = 0; j < s->t_k; j++)
        max = fmax(max, score(s, &q, &k, b, i, j));
    for (int64_t j = 0; j < s->t_k; j++) {
        if (is_masked(s, b, i, j))
            continue;
        double weight = exp(score(s, &q, &k, b, i, j) - max);
        sum += weight;
        weight *= dropout_at(s, b, h, i, j);
        for (int64_t d = 0; d < s->head_size; d++)
            out[d] += weight * get(&v, j, d);
    }
    for (int64_t d = 0; d < s->head_size; d++)
        put(&o, i, d, sum > 0.0 ? out[d] / sum : 0.0);
    if (a->lse)
        a->lse[(b * s->heads + h) * s->t_q + i] = sum > 0.0 ? (float)(max + log(sum)) : -INFINITY;
}

mz_status mz_ref_attention(const mz_attention_args *a, mz_stream *stream)
{
    (void)stream;
    mz_status status = mz_check_attention(a);
    if (status)
        return status;
    for (int64_t b = 0; b < a->shape.batch; b++)
        for (int64_t h = 0; h < a->shape.heads; h++)
            for (int64_t i = 0; i < a->shape.t_q; i++)
                attend_row(a, b, h, i);
    return MZ_OK;
}

/* One sample and head of the backward pass. */
typedef struct head {
    const mz_attention_shape *s;
    const float *lse; /* of this head's rows */
    view q, k, v, o, d_o, dq, dk, dv;
    int64_t b, h;
} head;

/* The softmax's p[i][j], its dropout factor, and the gradient of the scaled score s[i][j]. With
 * dp = (d_o . v_j) * factor, ds = p * (dp - sum_j p dp), and that sum is d_o . o. */
static void score_grad(const head *x, int64_t i, int64_t j, double *p, double *factor, double *ds)
{
    const mz_attention_shape *s = x->s;
    *p = *factor = *ds = 0.0;
    if (is_masked(s, x->b, i, j))
        return;
    *p = exp(score(s, &x->q, &x->k, x->b, i, j) - (double)x->lse[i]);
    *factor = dropout_at(s, x->b, x->h, i, j);
    double dp = dot(&x->d_o, i, &x->v, j, s->head_size) * *factor;
    *ds = *p * (dp - dot(&x->d_o, i, &x->o, i, s->head_size));
}

static void query_grad(const head *x, int64_t i)
{
    double dq[MAX_HEAD_SIZE] = {0}, p, factor, ds;
    for (int64_t j = 0; j < x->s->t_k; j++) {
        score_grad(x, i, j, &p, &factor, &ds);
        for (int64_t d = 0; d < x->s->head_size; d++)
            dq[d] += ds * (double)x->s->scale * get(&x->k, j, d);
    }
    for (int64_t d = 0; d < x->s->head_size; d++)
        put(&x->dq, i, d, dq[d]);
}

static void key_value_grad(const head *x, int64_t j)
{
    double dk[MAX_HEAD_SIZE] = {0}, dv[MAX_HEAD_SIZE] = {0}, p, factor, ds;
    for (int64_t i = 0; i < x->s->t_q; i++) {
        score_grad(x, i, j, &p, &factor, &ds);
        for (int64_t d = 0; d < x->s->head_size; d++) {
            dk[d] += ds * (double)x->s->scale * get(&x->q, i, d);
            dv[d] += p * factor * get(&x->d_o, i, d);
        }
    }
    for (int64_t d = 0; d < x->s->head_size; d++) {
        put(&x->dk, j, d, dk[d]);
        put(&x->dv, j, d, dv[d]);
    }
}

mz_status mz_ref_attention_grad(const mz_attention_grad_args *a, mz_stream *stream)
{
    (void)stream;
    const mz_attention_shape *s = &a->shape;
    mz_status status = mz_check_attention_grad(a, mz_ref_attention_grad_workspace(s));
    if (status)
        return status;
    for (int64_t b = 0; b < s->batch; b++)
        for (int64_t h = 0; h < s->heads; h++) {
            head x = {
                .s = s,
                .lse = a->lse + (b * s->heads + h) * s->t_q,
                .q = VIEW(s, a->q, q, b, h),
                .k = VIEW(s, a->k, k, b, h),
                .v = VIEW(s, a->v, v, b, h),
                .o = VIEW(s, a->o, o, b, h),
                .d_o = VIEW(s, a->d_o, o, b, h),
                .dq = VIEW(s, a->dq, q, b, h),
                .dk = VIEW(s, a->dk, k, b, h),
                .dv = VIEW(s, a->dv, v, b, h),
                .b = b,
                .h = h,
            };
            for (int64_t i = 0; i < s->t_q; i++)
                query_grad(&x, i);
            for (int64_t j = 0; j < s->t_k; j++)
                key_value_grad(&x, j);
        }
    return MZ_OK;
}

size_t mz_ref_attention_grad_workspace(const mz_attention_shape *shape)
{
    (void)shape;
    return 0;
}
