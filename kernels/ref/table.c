#include "kernels/ref/ref.h"

const mz_kernels mz_kernels_ref = {
    .matmul = mz_ref_matmul,
    .layer_norm = mz_ref_layer_norm,
    .layer_norm_grad = mz_ref_layer_norm_grad,
    .embedding = mz_ref_embedding,
    .embedding_grad = mz_ref_embedding_grad,
    .attention = mz_ref_attention,
    .attention_grad = mz_ref_attention_grad,
    .attention_grad_workspace = mz_ref_attention_grad_workspace,
    .activation = mz_ref_activation,
    .activation_grad = mz_ref_activation_grad,
    .add = mz_ref_add,
    .mul = mz_ref_mul,
    .dropout = mz_ref_dropout,
    .cast = mz_ref_cast,
    .column_sum = mz_ref_column_sum,
    .cross_entropy = mz_ref_cross_entropy,
    .mse = mz_ref_mse,
    .sum_squares = mz_ref_sum_squares,
    .sum = mz_ref_sum,
    .optim = mz_ref_optim,
};
