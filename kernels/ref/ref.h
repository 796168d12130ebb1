/* The reference kernels, one family per file. */
#ifndef MZ_KERNELS_REF_REF_H
#define MZ_KERNELS_REF_REF_H

#include "kernels/kernels.h"

/* activation(x) and its derivative; identity and 1 for MZ_ACT_NONE. */
double mz_ref_activate(mz_activation activation, double x);
double mz_ref_activate_grad(mz_activation activation, double x);

/* out[i] = sum, or out[i] += sum. */
void mz_ref_store_sum(void *out, mz_dtype dtype, int64_t i, double sum, bool accumulate);

mz_status mz_ref_matmul(const mz_matmul_args *a, mz_stream *stream);
mz_status mz_ref_layer_norm(const mz_layer_norm_args *a, mz_stream *stream);
mz_status mz_ref_layer_norm_grad(const mz_layer_norm_grad_args *a, mz_stream *stream);
mz_status mz_ref_embedding(const mz_embedding_args *a, mz_stream *stream);
mz_status mz_ref_embedding_grad(const mz_embedding_grad_args *a, mz_stream *stream);
mz_status mz_ref_attention(const mz_attention_args *a, mz_stream *stream);
mz_status mz_ref_attention_grad(const mz_attention_grad_args *a, mz_stream *stream);
size_t mz_ref_attention_grad_workspace(const mz_attention_shape *shape);
mz_status mz_ref_activation(const mz_activation_args *a, mz_stream *stream);
mz_status mz_ref_activation_grad(const mz_activation_grad_args *a, mz_stream *stream);
mz_status mz_ref_add(const mz_add_args *a, mz_stream *stream);
mz_status mz_ref_mul(const mz_mul_args *a, mz_stream *stream);
mz_status mz_ref_dropout(const mz_dropout_args *a, mz_stream *stream);
mz_status mz_ref_cast(const mz_cast_args *a, mz_stream *stream);
mz_status mz_ref_column_sum(const mz_column_sum_args *a, mz_stream *stream);
mz_status mz_ref_cross_entropy(const mz_cross_entropy_args *a, mz_stream *stream);
mz_status mz_ref_mse(const mz_mse_args *a, mz_stream *stream);
mz_status mz_ref_sum_squares(const mz_sum_squares_args *a, mz_stream *stream);
mz_status mz_ref_clip(const mz_clip_args *a, mz_stream *stream);
mz_status mz_ref_sum(const mz_sum_args *a, mz_stream *stream);
mz_status mz_ref_optim(const mz_optim_args *a, mz_stream *stream);
mz_status mz_ref_quantize(const mz_quantize_args *a, mz_stream *stream);
mz_status mz_ref_dequantize(const mz_dequantize_args *a, mz_stream *stream);

#endif
