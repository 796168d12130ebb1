/* What every backend checks before it computes: shapes, dtypes, pointers. Device memory is not read.
 * Each returns MZ_OK or MZ_ERR_ARGUMENT with a message that names the kernel and the argument. */
#ifndef MZ_KERNELS_CHECK_H
#define MZ_KERNELS_CHECK_H

#include "kernels/kernels.h"

mz_status mz_check_matmul(const mz_matmul_args *a);
mz_status mz_check_layer_norm(const mz_layer_norm_args *a);
mz_status mz_check_layer_norm_grad(const mz_layer_norm_grad_args *a);
mz_status mz_check_embedding(const mz_embedding_args *a);
mz_status mz_check_embedding_grad(const mz_embedding_grad_args *a);
mz_status mz_check_attention(const mz_attention_args *a);
/* `workspace_bytes`: what the backend's attention_grad_workspace says for this shape. */
mz_status mz_check_attention_grad(const mz_attention_grad_args *a, size_t workspace_bytes);
mz_status mz_check_activation(const mz_activation_args *a);
mz_status mz_check_activation_grad(const mz_activation_grad_args *a);
mz_status mz_check_add(const mz_add_args *a);
mz_status mz_check_mul(const mz_mul_args *a);
mz_status mz_check_dropout(const mz_dropout_args *a);
mz_status mz_check_cast(const mz_cast_args *a);
mz_status mz_check_column_sum(const mz_column_sum_args *a);
mz_status mz_check_cross_entropy(const mz_cross_entropy_args *a);
mz_status mz_check_mse(const mz_mse_args *a);
mz_status mz_check_sum_squares(const mz_sum_squares_args *a);
mz_status mz_check_clip(const mz_clip_args *a);
mz_status mz_check_sum(const mz_sum_args *a);
mz_status mz_check_optim(const mz_optim_args *a);
mz_status mz_check_quantize(const mz_quantize_args *a);
mz_status mz_check_dequantize(const mz_dequantize_args *a);

#endif
