#include "kernels/cpu/attention.h"
#include "kernels/cpu/philox.h"

MZ_INLINE void rows(const mz_view *x, mz_dtype dtype, int64_t first, int64_t n, int64_t head_size, float *out,
                    int64_t ld)
{
    for (int64_t t = 0; t < n; t++)
        for (int64_t d = 0; d < head_size; d += VF_N)
            vf_store(out + t * ld + d,
                     mz_load_n(x->data, dtype, x->base + (first + t) * x->token + d, head_size - d));
}

static void float_rows(const mz_view *x, mz_dtype dtype, int64_t first, int64_t n, int64_t head_size, float *out,
                       int64_t ld)
{
    MZ_FOR_DTYPE(dtype, rows(x, D, first, n, head_size, out, ld));
}

MZ_INLINE void columns(const mz_view *x, mz_dtype dtype, int64_t first, int64_t n, int64_t head_size, float *out,
                       int64_t ld)
{
    for (int64_t t = 0; t < n; t += VF_N)
        for (int64_t d = 0; d < head_size; d += VF_N) {
            const int64_t rows_left = head_size - d; /* of out */
            float *to = out + d * ld + t;
            vf v[VF_N];
            mz_load_transposed(x->data, dtype, x->base + (first + t) * x->token + d, x->token, n - t, rows_left, v);
            if (rows_left >= VF_N) {
#pragma GCC unroll 16
                for (int r = 0; r < VF_N; r++)
                    vf_store(to + r * ld, v[r]);
            } else {
                for (int r = 0; r < rows_left; r++)
                    vf_store(to + r * ld, v[r]);
            }
        }
}

static void float_columns(const mz_view *x, mz_dtype dtype, int64_t first, int64_t n, int64_t head_size, float *out,
                          int64_t ld)
{
    MZ_FOR_DTYPE(dtype, columns(x, D, first, n, head_size, out, ld));
}

/* A strip of fp32 is either operand as it is. */
static void as_it_is_over_keys(const float *strip, int64_t n_keys, float *out)
{
    (void)strip;
    (void)n_keys;
    (void)out;
}

static void as_it_is_over_queries(float *strip, int64_t n_keys)
{
    (void)strip;
    (void)n_keys;
}

const mz_attention_form MZ_CPU(attention_floats) = {
    .elements = 1,
    .columns = float_columns,
    .rows = float_rows,
    .over_keys = as_it_is_over_keys,
    .over_queries = as_it_is_over_queries,
    .panel = MZ_CPU(micro_panel),
    .strip = MZ_CPU(micro_strip),
};

MZ_INLINE void put(const float *x, int64_t n, int64_t head_size, const float *scale, mz_dtype dtype, void *y,
                   int64_t base, int64_t token)
{
    for (int64_t t = 0; t < n; t += VF_N)
        for (int64_t d = 0; d < head_size; d += VF_N) {
            const int64_t at = base + t * token + d, left = head_size - d;
            vf v[VF_N];
            mz_load_transposed(x, MZ_F32, d * MZ_QB + t, MZ_QB, left, VF_N, v);
            if (n - t >= VF_N && left >= VF_N) {
#pragma GCC unroll 16
                for (int r = 0; r < VF_N; r++)
                    mz_store(y, dtype, at + r * token, v[r] * scale[t + r]);
            } else {
                for (int64_t r = 0; r < VF_N && t + r < n; r++)
                    mz_store_n(y, dtype, at + r * token, v[r] * scale[t + r], left);
            }
        }
}

void MZ_CPU(attention_put)(const float *x, int64_t n, int64_t head_size, const float *scale, mz_dtype dtype,
                           void *y, int64_t base, int64_t token)
{
    MZ_FOR_DTYPE(dtype, put(x, n, head_size, scale, D, y, base, token));
}

/* A lane is a query; the four draws of a block are four keys of it, when rows start at whole blocks. */
static void drop_blocks(const mz_dropout *d, uint64_t first, int64_t t_k, int64_t n_keys, float *strip)
{
    for (int64_t v = 0; v < MZ_QB; v += VF_N)
        for (int64_t key = 0; key < n_keys; key += 4) {
            const uint64_t element = first + (uint64_t)(v * t_k + key);
            vu c0, c1, draw[4];
            mz_philox_counters(element / 4, (uint64_t)t_k / 4, &c0, &c1);
            mz_philox(d, c0, c1, draw);
            for (int w = 0; w < 4 && key + w < n_keys; w++) {
                float *p = strip + (key + w) * MZ_QB + v;
                vf_store(p, vf_load(p) * mz_keep_factor(d, draw[w]));
            }
        }
}

/* Rows of any length: each query's keys in runs. */
static void drop_rows(const mz_dropout *d, uint64_t first, int64_t t_k, int64_t n_keys, float *strip)
{
    for (int64_t q = 0; q < MZ_QB; q++)
        for (int64_t key = 0; key < n_keys;) {
            const uint64_t element = first + (uint64_t)(q * t_k + key);
            uint32_t draws[MZ_DRAWS];
            float factor[MZ_DRAWS];
            mz_philox_run(d, element / 4, draws);
            for (int i = 0; i < MZ_DRAWS; i += VF_N)
                vf_store(factor + i, mz_keep_factor(d, (vu)vf_load((const float *)draws + i)));
            for (int64_t i = (int64_t)(element % 4); i < MZ_DRAWS && key < n_keys; i++, key++)
                strip[key * MZ_QB + q] *= factor[i];
        }
}

void MZ_CPU(attention_dropout)(const mz_attention_shape *s, int64_t b, int64_t h, int64_t i0, int64_t n_keys,
                               float *strip)
{
    const mz_dropout *d = &s->dropout;
    if (d->p == 0.0f)
        return;
    const int64_t first = d->state->first_sample * d->sample_elements + ((b * s->heads + h) * s->t_q + i0) * s->t_k;
    if (s->t_k % 4 == 0 && first % 4 == 0)
        drop_blocks(d, (uint64_t)first, s->t_k, n_keys, strip);
    else
        drop_rows(d, (uint64_t)first, s->t_k, n_keys, strip);
}
