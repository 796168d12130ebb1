/* Attention's operands as pairs of bf16, next to each other along the index that is summed over. */
#include "kernels/cpu/attention.h"

static const uint16_t *row_of(const mz_view *x, int64_t t)
{
    return (const uint16_t *)x->data + x->base + t * x->token;
}

/* Rows of x are pairs along d already, and are transposed as such. */
static void columns(const mz_view *x, mz_dtype dtype, int64_t first, int64_t n, int64_t head_size, float *out,
                    int64_t ld)
{
    (void)dtype;
    for (int64_t t = 0; t < n; t += VF_N)
        for (int64_t d = 0; d < head_size; d += 2 * VF_N) {
            const int64_t left = head_size - d, rows = (left + 1) / 2;
            float *to = out + d / 2 * ld + t;
            vf v[VF_N];
            if (n - t >= VF_N && left >= 2 * VF_N) {
#pragma GCC unroll 16
                for (int r = 0; r < VF_N; r++)
                    v[r] = vf_pairs(row_of(x, first + t + r) + d);
            } else {
#pragma GCC unroll 16
                for (int r = 0; r < VF_N; r++)
                    v[r] = t + r < n ? vf_pairs_n(row_of(x, first + t + r) + d, left) : vf_set1(0.0f);
            }
            vf_transpose(v);
            if (rows >= VF_N) {
#pragma GCC unroll 16
                for (int r = 0; r < VF_N; r++)
                    vf_store(to + r * ld, v[r]);
            } else {
                for (int r = 0; r < rows; r++)
                    vf_store(to + r * ld, v[r]);
            }
        }
}

/* A row of words is woven from two rows of x. */
static void rows(const mz_view *x, mz_dtype dtype, int64_t first, int64_t n, int64_t head_size, float *out,
                 int64_t ld)
{
    (void)dtype;
    for (int64_t t = 0; t < n; t += 2) {
        const uint16_t *early = row_of(x, first + t), *late = t + 1 < n ? row_of(x, first + t + 1) : NULL;
        float *to = out + t / 2 * ld;
        for (int64_t d = 0; d < head_size; d += 2 * VF_N) {
            const int64_t left = head_size - d;
            const vf even = vf_pairs_n(early + d, left), odd = late ? vf_pairs_n(late + d, left) : vf_set1(0.0f);
            vf_store(to + d, vf_zip_pairs(even, odd, 0));
            if (left > VF_N)
                vf_store(to + d + VF_N, vf_zip_pairs(even, odd, VF_N));
        }
    }
}

static void over_keys(const float *strip, int64_t n_keys, float *out)
{
    for (int64_t key = 0; key < n_keys; key += 2)
        for (int64_t v = 0; v < MZ_QB; v += VF_N) {
            const vf late = key + 1 < n_keys ? vf_load(strip + (key + 1) * MZ_QB + v) : vf_set1(0.0f);
            vf_store(out + key / 2 * MZ_QB + v, vf_pairs_of(vf_load(strip + key * MZ_QB + v), late));
        }
}

/* A row's queries become pairs in its first half. */
static void over_queries(float *strip, int64_t n_keys)
{
    _Static_assert(MZ_QB == 2 * VF_N, "a row of a strip is two vectors");
    for (float *row = strip; row < strip + n_keys * MZ_QB; row += MZ_QB)
        vf_store(row, vf_narrow(vf_load(row), vf_load(row + VF_N)));
}

const mz_attention_form MZ_CPU(attention_pairs) = {
    .elements = 2,
    .columns = columns,
    .rows = rows,
    .over_keys = over_keys,
    .over_queries = over_queries,
    .panel = MZ_CPU(micro_pairs_panel),
    .strip = MZ_CPU(micro_pairs_strip),
};
