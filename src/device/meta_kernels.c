#include <config.h>

#include "device/backends.h"
#include "device/meta.h"
#include "kernels/check.h"

/* Work is counted as the operation is defined, not as some device does it: each input read once, each output
 * written once (and read, where it is added to), a transcendental function one operation. */

static double size_of(mz_dtype dtype)
{
    return (double)mz_dtype_size(dtype);
}

static double product(int64_t a, int64_t b)
{
    return (double)a * (double)b;
}

/* Counts a launch of elementwise or reduction work, unless its check failed. */
static mz_status count_other(mz_status checked, mz_stream *stream, double flops, double bytes)
{
    if (!checked)
        mz_meta_count(stream, &(mz_meta_counts){.other_flops = flops, .bytes = bytes, .n_launches = 1});
    return checked;
}

static mz_status meta_matmul(const mz_matmul_args *a, mz_stream *stream)
{
    mz_status status = mz_check_matmul(a);
    if (status)
        return status;
    double mn = product(a->m, a->n), read = product(a->m, a->k) + product(a->k, a->n);
    bool bias = a->epilogue == MZ_EPI_BIAS || a->epilogue == MZ_EPI_ACT;
    bool aux = (a->epilogue == MZ_EPI_ACT || a->epilogue == MZ_EPI_DACT) && a->aux;
    mz_meta_counts c = {
        .matmul_flops = 2.0 * mn * (double)a->k * (double)a->batch,
        .other_flops = bias ? mn : 0.0,
        .bytes = ((read + (aux ? mn : 0.0)) * size_of(a->dtype) +
                  (a->accumulate ? 2.0 : 1.0) * mn * size_of(a->dtype_c)) *
                 (double)a->batch,
        .n_launches = 1,
    };
    if (a->epilogue == MZ_EPI_ACT || a->epilogue == MZ_EPI_DACT)
        c.other_flops += mn;
    if (a->epilogue == MZ_EPI_BGRAD_A)
        c.other_flops += product(a->m, a->k);
    if (a->epilogue == MZ_EPI_BGRAD_B)
        c.other_flops += product(a->k, a->n);
    mz_meta_count(stream, &c);
    return MZ_OK;
}

static mz_status meta_layer_norm(const mz_layer_norm_args *a, mz_stream *stream)
{
    double e = product(a->rows, a->cols);
    return count_other(mz_check_layer_norm(a), stream, (a->residual ? 8.0 : 7.0) * e,
                       (a->residual ? 4.0 : 2.0) * e * size_of(a->dtype));
}

static mz_status meta_layer_norm_grad(const mz_layer_norm_grad_args *a, mz_stream *stream)
{
    double e = product(a->rows, a->cols);
    return count_other(mz_check_layer_norm_grad(a), stream, 14.0 * e,
                       (a->dresidual ? 4.0 : 3.0) * e * size_of(a->dtype));
}

static mz_status meta_embedding(const mz_embedding_args *a, mz_stream *stream)
{
    double e = product(a->n, a->cols);
    return count_other(mz_check_embedding(a), stream, a->positions ? e : 0.0,
                       (a->positions ? 3.0 : 2.0) * e * size_of(a->dtype));
}

static mz_status meta_embedding_grad(const mz_embedding_grad_args *a, mz_stream *stream)
{
    double e = product(a->n, a->cols), outputs = (a->dtable ? 1.0 : 0.0) + (a->dpositions ? 1.0 : 0.0);
    double cleared = (a->dtable && !a->accumulate_dtable ? product(a->vocab, a->cols) : 0.0) +
                     (a->dpositions && !a->accumulate_dpositions ? product(a->n_positions, a->cols) : 0.0);
    return count_other(mz_check_embedding_grad(a), stream, outputs * e,
                       e * size_of(a->dtype) + (2.0 * outputs * e + cleared) * size_of(a->dtype_grad));
}

/* Pairs (i, j) that the causal mask leaves; the key mask lies in device memory and is not looked at. */
static double pairs(const mz_attention_shape *s)
{
    double n = 0.0;
    if (!s->causal) {
        n = product(s->t_q, s->t_k);
    } else {
        for (int64_t i = 0; i < s->t_q; i++) {
            int64_t keys = i + s->t_k - s->t_q + 1;
            n += (double)(keys < 0 ? 0 : keys > s->t_k ? s->t_k : keys);
        }
    }
    return n * product(s->batch, s->heads);
}

/* Bytes of `q` tensors of q's shape and `k` of k's. */
static double tensor_bytes(const mz_attention_shape *s, double q, double k)
{
    return (q * (double)s->t_q + k * (double)s->t_k) * product(s->batch, s->heads) * (double)s->head_size *
           size_of(s->dtype);
}

/* Products with d columns: q k^T and p v. */
static mz_status meta_attention(const mz_attention_args *a, mz_stream *stream)
{
    mz_status status = mz_check_attention(a);
    if (!status)
        mz_meta_count(stream,
                      &(mz_meta_counts){.attention_flops = 4.0 * pairs(&a->shape) * (double)a->shape.head_size,
                                        .other_flops = 5.0 * pairs(&a->shape),
                                        .bytes = tensor_bytes(&a->shape, 2.0, 2.0),
                                        .n_launches = 1});
    return status;
}

/* The most that any device of this build asks for, since what is planned here may run on any. */
static size_t meta_attention_grad_workspace(const mz_attention_shape *shape)
{
    size_t bytes = mz_cpu_ops.kernels->attention_grad_workspace(shape);
#ifdef HAVE_CUDA
    const size_t on_gpu = mz_cuda_ops.kernels->attention_grad_workspace(shape);
    bytes = on_gpu > bytes ? on_gpu : bytes;
#endif
    return bytes;
}

/* q k^T again, and the four products of dq, dk, dv and dp. */
static mz_status meta_attention_grad(const mz_attention_grad_args *a, mz_stream *stream)
{
    mz_status status = mz_check_attention_grad(a, meta_attention_grad_workspace(&a->shape));
    if (!status)
        mz_meta_count(stream,
                      &(mz_meta_counts){.attention_flops = 10.0 * pairs(&a->shape) * (double)a->shape.head_size,
                                        .other_flops = 8.0 * pairs(&a->shape),
                                        .bytes = tensor_bytes(&a->shape, 4.0, 4.0),
                                        .n_launches = 1});
    return status;
}

static mz_status meta_activation(const mz_activation_args *a, mz_stream *stream)
{
    return count_other(mz_check_activation(a), stream, (double)a->n, 2.0 * (double)a->n * size_of(a->dtype));
}

static mz_status meta_activation_grad(const mz_activation_grad_args *a, mz_stream *stream)
{
    return count_other(mz_check_activation_grad(a), stream, 2.0 * (double)a->n,
                       3.0 * (double)a->n * size_of(a->dtype));
}

static mz_status meta_add(const mz_add_args *a, mz_stream *stream)
{
    return count_other(mz_check_add(a), stream, (a->b ? 3.0 : 1.0) * (double)a->n,
                       (a->b ? 3.0 : 2.0) * (double)a->n * size_of(a->dtype));
}

static mz_status meta_mul(const mz_mul_args *a, mz_stream *stream)
{
    return count_other(mz_check_mul(a), stream, (a->accumulate ? 2.0 : 1.0) * (double)a->n,
                       (a->accumulate ? 4.0 : 3.0) * (double)a->n * size_of(a->dtype));
}

static mz_status meta_dropout(const mz_dropout_args *a, mz_stream *stream)
{
    return count_other(mz_check_dropout(a), stream, (a->residual ? 2.0 : 1.0) * (double)a->n,
                       (a->residual ? 3.0 : 2.0) * (double)a->n * size_of(a->dtype));
}

static mz_status meta_cast(const mz_cast_args *a, mz_stream *stream)
{
    double written = (a->accumulate ? 2.0 : 1.0) * (double)a->n;
    return count_other(mz_check_cast(a), stream, written,
                       (double)a->n * size_of(a->src_dtype) + written * size_of(a->dst_dtype));
}

static mz_status meta_column_sum(const mz_column_sum_args *a, mz_stream *stream)
{
    double e = product(a->rows, a->cols);
    return count_other(mz_check_column_sum(a), stream, e,
                       e * size_of(a->dtype) + (double)a->cols * size_of(a->dtype_out));
}

static mz_status meta_cross_entropy(const mz_cross_entropy_args *a, mz_stream *stream)
{
    double e = product(a->rows, a->vocab);
    return count_other(mz_check_cross_entropy(a), stream, (a->dlogits ? 6.0 : 3.0) * e,
                       (a->dlogits ? 2.0 : 1.0) * e * size_of(a->dtype));
}

static mz_status meta_mse(const mz_mse_args *a, mz_stream *stream)
{
    return count_other(mz_check_mse(a), stream, (a->dx ? 4.0 : 3.0) * (double)a->n,
                       (a->dx ? 3.0 : 2.0) * (double)a->n * size_of(a->dtype));
}

static mz_status meta_sum_squares(const mz_sum_squares_args *a, mz_stream *stream)
{
    return count_other(mz_check_sum_squares(a), stream, 3.0 * (double)a->n, (double)a->n * size_of(a->dtype));
}

static mz_status meta_sum(const mz_sum_args *a, mz_stream *stream)
{
    double n = (double)a->n, sources = (double)a->n_sources;
    return count_other(mz_check_sum(a), stream, sources * n,
                       sources * n * size_of(a->dtype) + n * size_of(a->dst_dtype));
}

/* The chunks lie in device memory, so what they hold is taken from the kind of optimiser. */
static mz_status meta_optim(const mz_optim_args *a, mz_stream *stream)
{
    static const double states[MZ_N_OPTIMS] = {
        [MZ_OPTIM_ADAMW] = 2, [MZ_OPTIM_ADAM] = 2, [MZ_OPTIM_SGD] = 1, [MZ_OPTIM_ADAGRAD] = 1, [MZ_OPTIM_LION] = 1,
    };
    mz_status status = mz_check_optim(a);
    if (status)
        return status;
    double weights = a->no_master ? 2 * size_of(a->param_dtype)
                                  : 8.0 + (a->param_dtype == MZ_F32 ? 0.0 : size_of(a->param_dtype));
    double per_element = size_of(a->grad_dtype) + weights + 2 * size_of(a->state_dtype) * states[a->kind];
    double n = (double)a->n_elements;
    mz_meta_count(stream, &(mz_meta_counts){
                              .other_flops = 12.0 * n, .bytes = per_element * n, .updates = n, .n_launches = 1});
    return MZ_OK;
}

static mz_status meta_quantize(const mz_quantize_args *a, mz_stream *stream)
{
    double n = (double)a->n;
    return count_other(mz_check_quantize(a), stream, 3.0 * n,
                       n * size_of(a->dtype) + (double)mz_quantized_bytes(a->n, a->bits));
}

static mz_status meta_dequantize(const mz_dequantize_args *a, mz_stream *stream)
{
    double n = (double)a->n;
    return count_other(mz_check_dequantize(a), stream, n,
                       n * size_of(a->dtype) + (double)mz_quantized_bytes(a->n, a->bits));
}

const mz_kernels mz_kernels_meta = {
    .matmul = meta_matmul,
    .layer_norm = meta_layer_norm,
    .layer_norm_grad = meta_layer_norm_grad,
    .embedding = meta_embedding,
    .embedding_grad = meta_embedding_grad,
    .attention = meta_attention,
    .attention_grad = meta_attention_grad,
    .attention_grad_workspace = meta_attention_grad_workspace,
    .activation = meta_activation,
    .activation_grad = meta_activation_grad,
    .add = meta_add,
    .mul = meta_mul,
    .dropout = meta_dropout,
    .cast = meta_cast,
    .column_sum = meta_column_sum,
    .cross_entropy = meta_cross_entropy,
    .mse = meta_mse,
    .sum_squares = meta_sum_squares,
    .sum = meta_sum,
    .optim = meta_optim,
    .quantize = meta_quantize,
    .dequantize = meta_dequantize,
};
