#include "kernels/cuda/cuda.h"

const mz_kernels mz_kernels_cuda = {
    .matmul = mz_cuda_matmul,
    .layer_norm = mz_cuda_layer_norm,
    .layer_norm_grad = mz_cuda_layer_norm_grad,
    .embedding = mz_cuda_embedding,
    .embedding_grad = mz_cuda_embedding_grad,
    .attention = mz_cuda_attention,
    .attention_grad = mz_cuda_attention_grad,
    .attention_grad_workspace = mz_cuda_attention_grad_workspace,
    .activation = mz_cuda_activation,
    .activation_grad = mz_cuda_activation_grad,
    .add = mz_cuda_add,
    .mul = mz_cuda_mul,
    .dropout = mz_cuda_dropout,
    .cast = mz_cuda_cast,
    .column_sum = mz_cuda_column_sum,
    .cross_entropy = mz_cuda_cross_entropy,
    .mse = mz_cuda_mse,
    .sum_squares = mz_cuda_sum_squares,
    .sum = mz_cuda_sum,
    .optim = mz_cuda_optim,
};
