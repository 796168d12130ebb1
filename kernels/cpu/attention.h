/* What forward and backward attention share. One thread works on one (sample, head) and one block of up to
 * MZ_NR queries at a time, and the queries are the lanes: scores are kept as a strip [key][query], so that
 * the softmax is vertical, and every product is one of gemm_micro.h's. Causal rows stop at their last key.
 * After Dao et al., "FlashAttention", 2022, with whole rows of scores in place of the running maximum. */
#ifndef MZ_KERNELS_CPU_ATTENTION_H
#define MZ_KERNELS_CPU_ATTENTION_H

#include "kernels/cpu/family.h"
#include "kernels/cpu/gemm_micro.h"
#include "kernels/cpu/storage.h"

enum { MZ_QB = MZ_NR };

/* A tensor seen by one sample and head: element [t][d] lies at base + t * token + d. */
typedef struct mz_view {
    const void *data;
    int64_t base, token;
} mz_view;

#define MZ_VIEW(s, pointer, x, b, h)                                                                               \
    ((mz_view){pointer, (b) * (s)->x##_batch + (h) * (s)->x##_head, (s)->x##_token})

/* Row stride of [d][key] panels: off powers of two, so that rows do not fall on the same cache sets. */
MZ_INLINE int64_t mz_panel_stride(int64_t t_k)
{
    return (t_k + 15) / 16 * 16 + 16;
}

MZ_INLINE int64_t mz_whole_vectors(int64_t n)
{
    return (n + VF_N - 1) / VF_N * VF_N;
}

/* Keys that the queries below i_end may see. */
MZ_INLINE int64_t mz_visible_keys(const mz_attention_shape *s, int64_t i_end)
{
    const int64_t n = i_end + (s->t_k - s->t_q);
    return !s->causal || n > s->t_k ? s->t_k : n < 0 ? 0 : n;
}

/* How operands of the products are laid out, and the micro-kernels for them. As in gemm.h, a step of the index that
 * is summed over is what one 32-bit word holds: an element as fp32, or a pair of bf16 elements. */
typedef struct mz_attention_form {
    int elements; /* in a step */
    /* Rows first..first+n of x with d summed over: word [step of d][t], row stride ld; columns up to the next whole
     * vector are 0. */
    void (*columns)(const mz_view *x, mz_dtype dtype, int64_t first, int64_t n, int64_t head_size, float *out,
                    int64_t ld);
    /* The same with t summed over: word [step of t][d], rows filled up to whole vectors with 0. */
    void (*rows)(const mz_view *x, mz_dtype dtype, int64_t first, int64_t n, int64_t head_size, float *out,
                 int64_t ld);
    /* A strip of fp32 with keys summed over: word [step of keys][query] in `out`, which may be the strip and is for
     * fp32; then with queries summed over, for the micro-kernels' strip form, in place. */
    void (*over_keys)(const float *strip, int64_t n_keys, float *out);
    void (*over_queries)(float *strip, int64_t n_keys);
    const mz_micro_fn (*panel)[MZ_NV + 1], (*strip)[MZ_NV + 1];
} mz_attention_form;

extern const mz_attention_form MZ_CPU(attention_floats);
#ifdef MZ_HAS_PAIRS
extern const mz_attention_form MZ_CPU(attention_pairs); /* for bf16; probabilities are rounded to it too */
#endif

MZ_INLINE const mz_attention_form *mz_attention_form_for(mz_dtype dtype)
{
#ifdef MZ_HAS_PAIRS
    if (dtype == MZ_BF16)
        return &MZ_CPU(attention_pairs);
#endif
    (void)dtype;
    return &MZ_CPU(attention_floats);
}

MZ_INLINE int64_t mz_steps(const mz_attention_form *form, int64_t n)
{
    return (n + form->elements - 1) / form->elements;
}

/* y[first + q][d] = scale[q] * x[d][q], the inverse, for n <= MZ_QB queries; x has row stride MZ_QB. */
void MZ_CPU(attention_put)(const float *x, int64_t n, int64_t head_size, const float *scale, mz_dtype dtype,
                           void *y, int64_t base, int64_t token);

/* strip[key][query] *= dropout's factor of (b, h, i0 + query, key). */
void MZ_CPU(attention_dropout)(const mz_attention_shape *s, int64_t b, int64_t h, int64_t i0, int64_t n_keys,
                               float *strip);

/* Which lanes of vector v of the block at i0 see `key`. */
MZ_INLINE vm mz_sees_key(const mz_attention_shape *s, int64_t b, int64_t i0, int64_t v, int64_t key)
{
    if (s->key_mask && !s->key_mask[b * s->t_k + key])
        return vm_first(0);
    /* Query i sees key when i >= key - (t_k - t_q). */
    const int64_t first = key - (s->t_k - s->t_q) - i0 - v;
    if (!s->causal || first <= 0)
        return vm_first(VF_N);
    const int32_t lane = first < VF_N ? (int32_t)first : VF_N;
    return vf_le(vf_set1((float)lane), vi_to_vf((vi)vu_iota()));
}

#endif
