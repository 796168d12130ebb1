/* The kernel table: every numeric operation a device must have, exactly typed.
 *
 * kernels/ref defines them in plain C, one family per file: those functions are the specification.
 * kernels/cpu overrides them with vectorised code chosen at run time, kernels/cuda with CUDA. A table is
 * filled with designated initialisers over the reference one; an empty slot is refused at open.
 *
 * Conventions. Matrices are row-major. `dtype` is the storage type (MZ_F32, MZ_F16, MZ_BF16) of the
 * pointers not said to be otherwise; arithmetic and sums are fp32 at least. Pointers are device memory
 * unless a comment says host. `accumulate` adds to what the output holds; otherwise the output is
 * overwritten and may hold anything before. Outputs do not overlap inputs unless said. Launchers neither
 * allocate nor synchronise; they return MZ_ERR_ARGUMENT for shapes they cannot take. Given the same inputs
 * they give the same bits each time. Row counts of 0 are legal and do nothing. */
#ifndef MZ_KERNELS_H
#define MZ_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "device/device.h"
#include "mpizero/dtype.h"
#include "mpizero/nn.h"
#include "mpizero/status.h"

/* ---- shared types ---- */

/* Where in the global batch and in training a step stands; lies in device memory so that a recorded
 * launch sequence can be replayed. */
typedef struct mz_rng_state {
    uint64_t seed;
    uint64_t step;        /* optimiser step */
    int64_t first_sample; /* position in the global batch of this micro-batch's sample 0 */
} mz_rng_state;

/* Dropout by counter: element e of this rank's tensor is element first_sample * sample_elements + e of the
 * global one, and is kept when its draw >= p * 2^32 (core/rng.h). p == 0 means no dropout, and then
 * state may be NULL. */
typedef struct mz_dropout {
    float p;
    uint32_t site;
    int64_t sample_elements;
    const mz_rng_state *state;
} mz_dropout;

/* ---- matmul ---- */

typedef enum mz_epilogue {
    MZ_EPI_NONE = 0,
    MZ_EPI_BIAS,   /* C = AB + bias[n] */
    MZ_EPI_ACT,    /* aux = AB + bias (bias may be NULL); C = activation(aux). aux may be NULL: not kept */
    MZ_EPI_DACT,   /* C = (AB) * activation'(aux), aux being the stored pre-activation */
    MZ_EPI_BGRAD_A, /* also bias_grad[m] = sum over k of op(A)[m][k] */
    MZ_EPI_BGRAD_B  /* also bias_grad[n] = sum over k of op(B)[k][n] */
} mz_epilogue;

/* C[m][n] = alpha * op(A)[m][k] op(B)[k][n] (+ C), for each of `batch` matrices. op transposes when
 * trans_* is set: A is then stored [k][m], B [n][k]. ld* are row strides of the stored matrices and
 * stride_* distances between matrices of the batch, in elements. A product that is added to a C of 16 bits may be
 * rounded to 16 bits before. A launcher may measure how it is best done when it sees a shape for the first time, and
 * wait for the device then. */
typedef struct mz_matmul_args {
    int64_t m, n, k, batch;
    bool trans_a, trans_b;
    const void *a, *b;
    void *c;
    int64_t lda, ldb, ldc;
    int64_t stride_a, stride_b, stride_c;
    mz_dtype dtype;   /* of A, B, bias and aux */
    mz_dtype dtype_c; /* dtype or MZ_F32 */
    float alpha;
    bool accumulate;
    mz_epilogue epilogue;
    mz_activation activation;
    const void *bias; /* [n] */
    void *aux;        /* [m][n], row stride n */
    void *bias_grad;  /* dtype_c */
    bool accumulate_bias_grad;
} mz_matmul_args;

/* ---- normalisation ---- */

/* sum = x + residual (residual may be NULL, then sum too and x itself is normalised);
 * y = (sum - mean) * rstd * weight + bias. x, residual, sum, y: [rows][cols]; mean, rstd: fp32 [rows]. */
typedef struct mz_layer_norm_args {
    int64_t rows, cols;
    float eps;
    const void *x, *residual, *weight, *bias;
    void *sum, *y;
    float *mean, *rstd; /* may be NULL together: not kept */
    mz_dtype dtype;
} mz_layer_norm_args;

/* dx = gradient of the normalised input `x` (= sum above), plus dresidual when not NULL (the gradient that
 * reaches the sum by the residual path). dx may be dresidual. dweight, dbias: [cols]. */
typedef struct mz_layer_norm_grad_args {
    int64_t rows, cols;
    const void *dy, *x, *weight, *dresidual;
    const float *mean, *rstd;
    void *dx, *dweight, *dbias;
    bool accumulate_dweight, accumulate_dbias;
    mz_dtype dtype;       /* of dy, x, weight, dresidual, dx */
    mz_dtype dtype_grad;  /* of dweight, dbias */
} mz_layer_norm_grad_args;

/* ---- embedding ---- */

/* y[i] = table[ids[i]] (+ positions[pos[i]] when given). ids outside 0..vocab-1 are refused by the data
 * layer; a kernel may read row 0 for them. */
typedef struct mz_embedding_args {
    int64_t n, cols, vocab;
    const int32_t *ids; /* [n] */
    const void *table;  /* [vocab][cols] */
    const int32_t *position_ids; /* [n]; NULL: i % period */
    int64_t period;              /* sequence length; used when position_ids is NULL */
    int64_t position_offset;     /* added to i % period */
    const void *positions;       /* [n_positions][cols]; NULL: none */
    void *y;                     /* [n][cols] */
    mz_dtype dtype;
} mz_embedding_args;

/* dtable[ids[i]] += dy[i]; dpositions likewise; in a fixed order of addition. Without accumulate the whole
 * gradient table is cleared first. Either output may be NULL. */
typedef struct mz_embedding_grad_args {
    int64_t n, cols, vocab, n_positions;
    const int32_t *ids, *position_ids;
    int64_t period, position_offset;
    const void *dy;
    void *dtable, *dpositions;
    bool accumulate_dtable, accumulate_dpositions;
    mz_dtype dtype, dtype_grad;
} mz_embedding_grad_args;

/* ---- attention ---- */

/* Softmax attention for each sample b and head h:
 *     s[i][j] = scale * q[i].k[j];  masked to -inf where key_mask[b][j] == 0, and, if causal, where
 *     j > i + (t_k - t_q);  p = softmax over j;  p = dropout(p);  o[i] = sum_j p[i][j] v[j].
 * A row with no key left gives o = 0. Never stores s for more than one (b, h). Element (b, t, h, d) of q
 * lies at q[b * q_batch + t * q_token + h * q_head + d]; likewise k, v, o. Dropout's element of (b, h, i, j)
 * is ((b * heads + h) * t_q + i) * t_k + j, so sample_elements = heads * t_q * t_k. */
typedef struct mz_attention_shape {
    int64_t batch, heads, t_q, t_k, head_size;
    int64_t q_batch, q_token, q_head;
    int64_t k_batch, k_token, k_head;
    int64_t v_batch, v_token, v_head;
    int64_t o_batch, o_token, o_head;
    float scale;
    bool causal;
    const uint8_t *key_mask; /* [batch][t_k], NULL: all keys */
    mz_dropout dropout;
    mz_dtype dtype;
} mz_attention_shape;

typedef struct mz_attention_args {
    mz_attention_shape shape;
    const void *q, *k, *v;
    void *o;
    float *lse; /* [batch][heads][t_q]: log of the softmax's sum; NULL: not kept */
} mz_attention_args;

/* dq, dk, dv have the strides of q, k, v and are overwritten. do has o's strides. */
typedef struct mz_attention_grad_args {
    mz_attention_shape shape;
    const void *q, *k, *v, *o, *d_o;
    const float *lse;
    void *dq, *dk, *dv;
    void *workspace;        /* device memory of attention_grad_workspace() bytes */
    size_t workspace_bytes;
} mz_attention_grad_args;

/* ---- elementwise ---- */

/* y = activation(x) */
typedef struct mz_activation_args {
    int64_t n;
    mz_activation activation;
    const void *x;
    void *y; /* may be x */
    mz_dtype dtype;
} mz_activation_args;

/* dx = dy * activation'(x), x being the pre-activation. dx may be dy. */
typedef struct mz_activation_grad_args {
    int64_t n;
    mz_activation activation;
    const void *dy, *x;
    void *dx;
    mz_dtype dtype;
} mz_activation_grad_args;

/* y = alpha * a + beta * b; b may be NULL (then y = alpha * a); y may be a or b. */
typedef struct mz_add_args {
    int64_t n;
    float alpha, beta;
    const void *a, *b;
    void *y;
    mz_dtype dtype;
} mz_add_args;

/* y = a * b element by element; y may be a or b; accumulate adds. */
typedef struct mz_mul_args {
    int64_t n;
    const void *a, *b;
    void *y;
    bool accumulate;
    mz_dtype dtype;
} mz_mul_args;

/* y = dropout(x) (+ residual when not NULL), scaled by 1/(1-p). Its own gradient with residual NULL. y may be x. */
typedef struct mz_dropout_args {
    int64_t n;
    mz_dropout dropout;
    const void *x, *residual;
    void *y;
    mz_dtype dtype;
} mz_dropout_args;

/* dst[i] (+)= scale * src[i] between dtypes. dst may be src when the sizes are equal. */
typedef struct mz_cast_args {
    int64_t n;
    const void *src;
    mz_dtype src_dtype;
    void *dst;
    mz_dtype dst_dtype;
    float scale;
    const float *scale_device; /* device scalar multiplied into scale; NULL: 1 */
    bool accumulate;
} mz_cast_args;

/* out[c] (+)= sum over rows of x[r][c] */
typedef struct mz_column_sum_args {
    int64_t rows, cols;
    const void *x;
    mz_dtype dtype;
    void *out;
    mz_dtype dtype_out;
    bool accumulate;
} mz_column_sum_args;

/* ---- losses ---- */

/* For each row r with labels[r] != ignore_index:
 *     loss += (logsumexp(logits[r]) - logits[r][labels[r]]) * loss_scale
 *     dlogits[r] = (softmax(logits[r]) - onehot(labels[r])) * grad_scale
 * and dlogits[r] = 0 for an ignored row. dlogits may be logits (in place) or NULL (no gradient).
 * loss_scale and grad_scale are device scalars, so that they may change without a new launch sequence. */
typedef struct mz_cross_entropy_args {
    int64_t rows, vocab, ld; /* ld >= vocab; columns vocab..ld-1 of dlogits are set to 0 */
    const void *logits;
    const int32_t *labels;
    int32_t ignore_index;
    const float *loss_scale, *grad_scale;
    void *dlogits;
    float *loss;      /* device scalar, added to */
    float *row_loss;  /* [rows], unscaled, 0 where ignored; NULL: not wanted */
    mz_dtype dtype;
} mz_cross_entropy_args;

/* loss += loss_scale * sum (x - target)^2; dx = grad_scale * 2 (x - target). dx may be NULL. */
typedef struct mz_mse_args {
    int64_t n;
    const void *x, *target;
    const float *loss_scale, *grad_scale;
    void *dx;
    float *loss;
    mz_dtype dtype;
} mz_mse_args;

/* ---- reductions and collectives' arithmetic ---- */

/* *sum += sum of (scale * x[i])^2 in fp64; *nonfinite += number of infinities and NaNs. Fixed order. */
typedef struct mz_sum_squares_args {
    int64_t n;
    const void *x;
    mz_dtype dtype;
    float scale;
    double *sum;
    uint64_t *nonfinite;
} mz_sum_squares_args;

/* dst[i] = scale * sum over s < n_sources of sources[s][i], added in fp32 in the order of s.
 * `sources` is a host array of device pointers; dst may be one of them. */
typedef struct mz_sum_args {
    int64_t n;
    int n_sources;
    const void *const *sources;
    mz_dtype dtype; /* of the sources */
    void *dst;
    mz_dtype dst_dtype;
    float scale;
} mz_sum_args;

/* ---- optimisers ---- */

typedef enum mz_optim_kind {
    MZ_OPTIM_ADAMW = 0, /* decoupled weight decay (Loshchilov and Hutter 2019) */
    MZ_OPTIM_ADAM,      /* decay added to the gradient (Kingma and Ba 2015, L2) */
    MZ_OPTIM_SGD,       /* momentum, as torch.optim.SGD: buffer = momentum*buffer + g (first step: g) */
    MZ_OPTIM_ADAGRAD,
    MZ_OPTIM_LION,
    MZ_N_OPTIMS
} mz_optim_kind;

/* One run of consecutive elements of this rank's shard with the same settings. Device memory. */
typedef struct mz_optim_chunk {
    float *master;        /* fp32 weights; in fp32 training the parameter itself; NULL with no_master */
    void *state1;         /* state_dtype. Adam: exp_avg. SGD: momentum buffer. Adagrad: sum. Lion: exp_avg */
    void *state2;         /* Adam: exp_avg_sq; NULL elsewhere */
    const void *grad;     /* grad_dtype */
    void *param;          /* 16-bit copy to write, or NULL; with no_master the weights themselves */
    int64_t n;
    int64_t first;        /* number of element 0 among all of the model's, for stochastic rounding */
    float weight_decay;
    float lr_scale;       /* multiplies the learning rate, 1 as a rule */
} mz_optim_chunk;

/* Stochastic rounding to bf16: of x's two neighbours the one farther from zero with the probability of x's share of
 * the way to it, so that on average nothing is lost. Which one follows from 16 random bits that are added to those
 * that bf16 lacks (core/half.h). Element i of a chunk has one draw, that of element chunk.first + i at (seed, site,
 * step); first_sample is not read. The weight takes its lower half, state1 the upper one, state2 the sum of the two
 * modulo 2^16: each two of them are independent. */
typedef struct mz_optim_rounding {
    const mz_rng_state *state; /* device; NULL: round to nearest even */
    uint32_t site;
} mz_optim_rounding;

/* Called with elements begin .. end of a chunk that have just been updated, in the thread that did that, while they
 * are in its cache; a chunk's elements in order, and all by one thread. */
typedef void (*mz_optim_updated_fn)(void *context, const mz_optim_chunk *chunk, int64_t begin, int64_t end);

/* Changes from step to step; device memory. */
typedef struct mz_optim_hyper {
    float lr, beta1, beta2, eps, momentum, dampening;
    float bias_correction1, bias_correction2; /* 1 - beta^t, or 1 without bias correction */
    int32_t first_step;                       /* SGD: the buffer holds nothing yet */
    int32_t nesterov;
} mz_optim_hyper;

typedef struct mz_optim_args {
    mz_optim_kind kind;
    const mz_optim_chunk *chunks; /* device memory */
    int n_chunks;
    int64_t n_elements; /* sum of the chunks' n, for launch shapes */
    const mz_optim_hyper *hyper;
    const float *grad_scale;   /* device scalar that multiplies every gradient: clipping and loss scale */
    const uint64_t *nonfinite; /* device; != 0: leave everything as it is */
    mz_dtype grad_dtype, param_dtype;
    bool no_master;       /* the weights are param, in bf16: read, updated in fp32, rounded back. No f16 gradients */
    mz_dtype state_dtype; /* f32; with no_master also bf16: read, updated in fp32 and rounded back, too */
    mz_optim_rounding rounding; /* with no_master only */
    mz_optim_updated_fn updated; /* NULL: nobody. Where kernels run on the host only */
    void *updated_context;
} mz_optim_args;

/* ---- quantisation ---- */

/* Numbers of few bits, by blocks of MZ_QUANT_BLOCK elements, of which the last may be shorter (as ZeRO++ has them; Wang
 * et al., 2023): an element is a whole number q, |q| <= L = 2^(bits - 1) - 1, times its block's scale m / L, m being the
 * block's largest magnitude. q = x * (L / m), both operations and the rounding to the nearest whole number (even
 * between two) in fp32, so that all backends pack the same bits. A block in which something is not finite becomes NaN,
 * one whose m is below 2^-100 becomes 0.
 *
 * Packed: the fp32 scales of all blocks, then the blocks. 8 bits: one int8 per element. 4 bits: element i of a block
 * of n is the lower half of byte i, element i + (n + 1) / 2 the upper half. */
enum { MZ_QUANT_BLOCK = 256 };

static inline size_t mz_quantized_bytes(int64_t n, int bits)
{
    return (size_t)((n + MZ_QUANT_BLOCK - 1) / MZ_QUANT_BLOCK) * sizeof(float) + (size_t)((n * bits + 7) / 8);
}

typedef struct mz_quantize_args {
    int64_t n;
    int bits; /* 8 or 4 */
    const void *src;
    mz_dtype dtype;
    void *packed; /* mz_quantized_bytes, 4-byte aligned */
} mz_quantize_args;

typedef struct mz_dequantize_args {
    int64_t n;
    int bits;
    const void *packed;
    void *dst;
    mz_dtype dtype;
} mz_dequantize_args;

/* ---- the table ---- */

struct mz_kernels {
    mz_status (*matmul)(const mz_matmul_args *args, mz_stream *stream);
    mz_status (*layer_norm)(const mz_layer_norm_args *args, mz_stream *stream);
    mz_status (*layer_norm_grad)(const mz_layer_norm_grad_args *args, mz_stream *stream);
    mz_status (*embedding)(const mz_embedding_args *args, mz_stream *stream);
    mz_status (*embedding_grad)(const mz_embedding_grad_args *args, mz_stream *stream);
    mz_status (*attention)(const mz_attention_args *args, mz_stream *stream);
    mz_status (*attention_grad)(const mz_attention_grad_args *args, mz_stream *stream);
    size_t (*attention_grad_workspace)(const mz_attention_shape *shape);
    mz_status (*activation)(const mz_activation_args *args, mz_stream *stream);
    mz_status (*activation_grad)(const mz_activation_grad_args *args, mz_stream *stream);
    mz_status (*add)(const mz_add_args *args, mz_stream *stream);
    mz_status (*mul)(const mz_mul_args *args, mz_stream *stream);
    mz_status (*dropout)(const mz_dropout_args *args, mz_stream *stream);
    mz_status (*cast)(const mz_cast_args *args, mz_stream *stream);
    mz_status (*column_sum)(const mz_column_sum_args *args, mz_stream *stream);
    mz_status (*cross_entropy)(const mz_cross_entropy_args *args, mz_stream *stream);
    mz_status (*mse)(const mz_mse_args *args, mz_stream *stream);
    mz_status (*sum_squares)(const mz_sum_squares_args *args, mz_stream *stream);
    mz_status (*sum)(const mz_sum_args *args, mz_stream *stream);
    mz_status (*optim)(const mz_optim_args *args, mz_stream *stream);
    mz_status (*quantize)(const mz_quantize_args *args, mz_stream *stream);
    mz_status (*dequantize)(const mz_dequantize_args *args, mz_stream *stream);
};

/* The reference: plain C on host memory. */
extern const mz_kernels mz_kernels_ref;

#endif
