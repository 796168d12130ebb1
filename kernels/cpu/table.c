#include "kernels/cpu/cpu.h"
#include "kernels/cpu/family.h"
#include "kernels/ref/ref.h"

const mz_kernels MZ_CPU(kernels) = {
    .matmul = MZ_CPU(matmul),
    .layer_norm = MZ_CPU(layer_norm),
    .layer_norm_grad = MZ_CPU(layer_norm_grad),
    .embedding = MZ_CPU(embedding),
    .embedding_grad = MZ_CPU(embedding_grad),
    .attention = MZ_CPU(attention),
    .attention_grad = MZ_CPU(attention_grad),
    .attention_grad_workspace = MZ_CPU(attention_grad_workspace),
    .activation = MZ_CPU(activation),
    .activation_grad = MZ_CPU(activation_grad),
    .add = MZ_CPU(add),
    .mul = MZ_CPU(mul),
    .dropout = MZ_CPU(dropout),
    .cast = MZ_CPU(cast),
    .column_sum = MZ_CPU(column_sum),
    .cross_entropy = MZ_CPU(cross_entropy),
    .mse = MZ_CPU(mse),
    .sum_squares = MZ_CPU(sum_squares),
    .clip = mz_ref_clip, /* one number */
    .sum = MZ_CPU(sum),
    .optim = MZ_CPU(optim),
    .quantize = MZ_CPU(quantize),
    .dequantize = MZ_CPU(dequantize),
};
