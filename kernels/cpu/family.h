/* The kernels of one instruction set, as simd.h names them; table.c makes a table of them. */
#ifndef MZ_KERNELS_CPU_FAMILY_H
#define MZ_KERNELS_CPU_FAMILY_H

#include "device/cpu_stream.h"
#include "kernels/cpu/simd.h"
#include "kernels/kernels.h"

mz_status MZ_CPU(matmul)(const mz_matmul_args *args, mz_stream *stream);
mz_status MZ_CPU(layer_norm)(const mz_layer_norm_args *args, mz_stream *stream);
mz_status MZ_CPU(layer_norm_grad)(const mz_layer_norm_grad_args *args, mz_stream *stream);
mz_status MZ_CPU(embedding)(const mz_embedding_args *args, mz_stream *stream);
mz_status MZ_CPU(embedding_grad)(const mz_embedding_grad_args *args, mz_stream *stream);
mz_status MZ_CPU(attention)(const mz_attention_args *args, mz_stream *stream);
mz_status MZ_CPU(attention_grad)(const mz_attention_grad_args *args, mz_stream *stream);
size_t MZ_CPU(attention_grad_workspace)(const mz_attention_shape *shape);
mz_status MZ_CPU(activation)(const mz_activation_args *args, mz_stream *stream);
mz_status MZ_CPU(activation_grad)(const mz_activation_grad_args *args, mz_stream *stream);
mz_status MZ_CPU(add)(const mz_add_args *args, mz_stream *stream);
mz_status MZ_CPU(mul)(const mz_mul_args *args, mz_stream *stream);
mz_status MZ_CPU(dropout)(const mz_dropout_args *args, mz_stream *stream);
mz_status MZ_CPU(cast)(const mz_cast_args *args, mz_stream *stream);
mz_status MZ_CPU(column_sum)(const mz_column_sum_args *args, mz_stream *stream);
mz_status MZ_CPU(cross_entropy)(const mz_cross_entropy_args *args, mz_stream *stream);
mz_status MZ_CPU(mse)(const mz_mse_args *args, mz_stream *stream);
mz_status MZ_CPU(sum_squares)(const mz_sum_squares_args *args, mz_stream *stream);
mz_status MZ_CPU(sum)(const mz_sum_args *args, mz_stream *stream);
mz_status MZ_CPU(optim)(const mz_optim_args *args, mz_stream *stream);
mz_status MZ_CPU(quantize)(const mz_quantize_args *args, mz_stream *stream);
mz_status MZ_CPU(dequantize)(const mz_dequantize_args *args, mz_stream *stream);

/* out[c] (+)= sum over rows of x[r][c], row stride ld. The bias gradient of a matrix product too. */
void MZ_CPU(sum_columns)(mz_threads *threads, const void *x, mz_dtype dtype, int64_t rows, int64_t cols, int64_t ld,
                         void *out, mz_dtype dtype_out, bool accumulate);
/* out[r] (+)= sum over columns of x[r][c]. */
void MZ_CPU(sum_rows)(mz_threads *threads, const void *x, mz_dtype dtype, int64_t rows, int64_t cols, int64_t ld,
                      void *out, mz_dtype dtype_out, bool accumulate);

/* Threads for a kernel over n elements: none for work shorter than waking them takes. */
MZ_INLINE mz_threads *mz_threads_if_worth(mz_stream *stream, int64_t n)
{
    return n >= 1 << 14 ? mz_cpu_stream_threads(stream) : NULL;
}

#endif
