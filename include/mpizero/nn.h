/* Operations with gradients. All are local to the rank and stream-ordered on the tape's compute stream.
 *
 * Shapes: B samples, T positions, D features. Operations over rows see [.., D] as [rows, D]. Inputs are
 * borrowed; *y is set on success only, with a reference that the caller owns. Errors: MZ_ERR_ARGUMENT for
 * shapes that do not fit (the message names the operation and both shapes), MZ_ERR_MEMORY when the arena is
 * full. Activations have the tape's dtype; parameters likewise. Several operations may share a parameter; one
 * operation takes it in one place only. */
#ifndef MPIZERO_NN_H
#define MPIZERO_NN_H

#include "mpizero/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum mz_activation {
    MZ_ACT_NONE = 0,
    MZ_ACT_GELU_TANH, /* "gelu_new", "gelu_pytorch_tanh" */
    MZ_ACT_GELU_ERF,  /* "gelu" */
    MZ_ACT_RELU,
    MZ_ACT_TANH,
    MZ_ACT_SIGMOID,
    MZ_ACT_SILU,
    MZ_N_ACTIVATIONS
} mz_activation;

/* How a weight matrix is stored: torch.nn.Linear keeps [out, in], GPT-2's Conv1D [in, out]. */
typedef enum mz_weight_layout { MZ_WEIGHT_OUT_IN, MZ_WEIGHT_IN_OUT } mz_weight_layout;

/* y = activation(x W + b); x [.., in], y [.., out]; bias may be NULL. */
mz_status mz_linear(mz_tape *tape, mz_tensor *x, mz_param *weight, mz_param *bias, mz_weight_layout layout,
                    mz_activation activation, mz_tensor **y);

/* y[b][t] = table[ids[b][t]] + positions[position]; ids int32 [B, T], table [vocab, D], y [B, T, D].
 * positions [n_positions, D] may be NULL. position_ids int32 [B, T]; NULL counts 0..T-1 from
 * position_offset. */
mz_status mz_embedding(mz_tape *tape, mz_tensor *ids, mz_param *table, mz_param *positions,
                       mz_tensor *position_ids, int64_t position_offset, mz_tensor **y);

/* y = layer_norm(x + residual) over the last dimension. residual may be NULL; then sum must be NULL too.
 * Otherwise *sum = x + residual, which the caller owns as well. */
mz_status mz_layer_norm(mz_tape *tape, mz_tensor *x, mz_tensor *residual, mz_param *weight, mz_param *bias,
                        float eps, mz_tensor **sum, mz_tensor **y);

/* Keys and values of earlier positions, for generation (the model runner makes it). */
typedef struct mz_kv_cache mz_kv_cache;

typedef struct mz_attention_options {
    int64_t heads;
    float scale;      /* 0 takes 1/sqrt(head size) */
    bool causal;
    float dropout;    /* on the probabilities; only while the tape is training */
    mz_tensor *key_mask; /* uint8 [B, T_k], 0 = masked; NULL: none */
    mz_kv_cache *cache;  /* NULL: none. Otherwise keys and values are appended, and all are attended to */
    int layer;           /* which of the cache's layers */
} mz_attention_options;

/* Softmax attention. Either qkv is [B, T, 3 * D] with q, k, v side by side (mz_attention_fused), or q [B, T_q, D],
 * k and v [B, T_k, D] are apart. o is [B, T_q, D]. Memory: O(T) per head, the matrix of scores is never kept. */
mz_status mz_attention_fused(mz_tape *tape, mz_tensor *qkv, const mz_attention_options *options, mz_tensor **o);
mz_status mz_attention(mz_tape *tape, mz_tensor *q, mz_tensor *k, mz_tensor *v,
                       const mz_attention_options *options, mz_tensor **o);

/* y = dropout(x) + residual; residual may be NULL. Without training or with p == 0, x itself (retained) when
 * residual is NULL. */
mz_status mz_dropout_op(mz_tape *tape, mz_tensor *x, float p, mz_tensor *residual, mz_tensor **y);

mz_status mz_add(mz_tape *tape, mz_tensor *a, mz_tensor *b, mz_tensor **y); /* same shapes */
mz_status mz_mul(mz_tape *tape, mz_tensor *a, mz_tensor *b, mz_tensor **y); /* same shapes */
mz_status mz_scale(mz_tape *tape, mz_tensor *x, float factor, mz_tensor **y);
mz_status mz_activate(mz_tape *tape, mz_tensor *x, mz_activation activation, mz_tensor **y);
/* The same memory under another shape; -1 in one place is worked out. */
mz_status mz_reshape(mz_tape *tape, mz_tensor *x, int n_dims, const int64_t *shape, mz_tensor **y);

/* Losses. Each gives a fp32 scalar: the sum over targets times the tape's loss weight, so that
 * adding the values of all micro-batches and ranks gives the mean over the global batch.
 *
 * Cross-entropy of logits [.., V] with int32 labels [..]; labels equal to ignore_index (-100) do not count. */
mz_status mz_cross_entropy(mz_tape *tape, mz_tensor *logits, mz_tensor *labels, int32_t ignore_index,
                           mz_tensor **loss);
/* The same with logits = x W^T, W [V, D], never whole in memory: rows are taken in chunks of about
 * logits_bytes, and when the tape records, each chunk's gradient is formed at once (Hsu et al., "Liger
 * kernel", 2024: fused linear cross-entropy). */
mz_status mz_linear_cross_entropy(mz_tape *tape, mz_tensor *x, mz_param *weight, mz_tensor *labels,
                                  int32_t ignore_index, size_t logits_bytes, mz_tensor **loss);
/* Sum of squared differences; target has x's shape and dtype. */
mz_status mz_mse_loss(mz_tape *tape, mz_tensor *x, mz_tensor *target, mz_tensor **loss);

#ifdef __cplusplus
}
#endif
#endif
