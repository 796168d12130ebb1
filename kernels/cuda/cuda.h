/* The kernels of the CUDA backend. Launchers are C functions in the .cu files of this folder, one family
 * each; they take streams of src/device/cuda and borrow the stream's workspace for split sums. */
#ifndef MZ_KERNELS_CUDA_CUDA_H
#define MZ_KERNELS_CUDA_CUDA_H

#include "kernels/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

extern const mz_kernels mz_kernels_cuda;

mz_status mz_cuda_matmul(const mz_matmul_args *a, mz_stream *stream);
mz_status mz_cuda_layer_norm(const mz_layer_norm_args *a, mz_stream *stream);
mz_status mz_cuda_layer_norm_grad(const mz_layer_norm_grad_args *a, mz_stream *stream);
mz_status mz_cuda_embedding(const mz_embedding_args *a, mz_stream *stream);
mz_status mz_cuda_embedding_grad(const mz_embedding_grad_args *a, mz_stream *stream);
mz_status mz_cuda_attention(const mz_attention_args *a, mz_stream *stream);
mz_status mz_cuda_attention_grad(const mz_attention_grad_args *a, mz_stream *stream);
size_t mz_cuda_attention_grad_workspace(const mz_attention_shape *shape);
mz_status mz_cuda_activation(const mz_activation_args *a, mz_stream *stream);
mz_status mz_cuda_activation_grad(const mz_activation_grad_args *a, mz_stream *stream);
mz_status mz_cuda_add(const mz_add_args *a, mz_stream *stream);
mz_status mz_cuda_mul(const mz_mul_args *a, mz_stream *stream);
mz_status mz_cuda_dropout(const mz_dropout_args *a, mz_stream *stream);
mz_status mz_cuda_cast(const mz_cast_args *a, mz_stream *stream);
mz_status mz_cuda_column_sum(const mz_column_sum_args *a, mz_stream *stream);
mz_status mz_cuda_cross_entropy(const mz_cross_entropy_args *a, mz_stream *stream);
mz_status mz_cuda_mse(const mz_mse_args *a, mz_stream *stream);
mz_status mz_cuda_sum_squares(const mz_sum_squares_args *a, mz_stream *stream);
mz_status mz_cuda_clip(const mz_clip_args *a, mz_stream *stream);
mz_status mz_cuda_sum(const mz_sum_args *a, mz_stream *stream);
mz_status mz_cuda_optim(const mz_optim_args *a, mz_stream *stream);
mz_status mz_cuda_quantize(const mz_quantize_args *a, mz_stream *stream);
mz_status mz_cuda_dequantize(const mz_dequantize_args *a, mz_stream *stream);

#ifdef __cplusplus
}
#endif
#endif
