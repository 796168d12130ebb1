#include "kernels/check.h"

#include "core/error.h"

/* The largest head that attention kernels must take. */
#define MAX_HEAD_SIZE 1024

static mz_status verdict(const char *kernel, const char *problem)
{
    return problem ? mz_fail(MZ_ERR_ARGUMENT, "kernel %s: %s", kernel, problem) : MZ_OK;
}

static bool is_storage(mz_dtype dtype)
{
    return dtype == MZ_F32 || dtype == MZ_F16 || dtype == MZ_BF16;
}

static bool is_activation(mz_activation activation)
{
    return (int)activation >= 0 && activation < MZ_N_ACTIVATIONS;
}

static const char *dropout_problem(const mz_dropout *d)
{
    if (!(d->p >= 0.0f && d->p <= 1.0f))
        return "dropout probability is not within 0..1";
    if (d->p > 0.0f && !d->state)
        return "dropout without a random state";
    if (d->p > 0.0f && d->sample_elements <= 0)
        return "dropout without sample_elements";
    return NULL;
}

static bool row_fits(bool transposed, int64_t rows, int64_t cols, int64_t ld)
{
    return ld >= (transposed ? rows : cols);
}

mz_status mz_check_matmul(const mz_matmul_args *a)
{
    const char *problem = NULL;
    bool empty = a->m == 0 || a->n == 0 || a->batch == 0;
    if (a->m < 0 || a->n < 0 || a->k < 0 || a->batch < 0)
        problem = "negative size";
    else if (!is_storage(a->dtype) || (a->dtype_c != a->dtype && a->dtype_c != MZ_F32))
        problem = "dtype must be f32, f16 or bf16, and dtype_c the same or f32";
    else if (!row_fits(a->trans_a, a->m, a->k, a->lda) || !row_fits(a->trans_b, a->k, a->n, a->ldb) ||
             a->ldc < a->n)
        problem = "a row stride is smaller than the row";
    else if (!empty && (!a->c || (a->k > 0 && (!a->a || !a->b))))
        problem = "A, B or C is NULL";
    else if ((int)a->epilogue < MZ_EPI_NONE || a->epilogue > MZ_EPI_BGRAD_B || !is_activation(a->activation))
        problem = "unknown epilogue or activation";
    else if (a->epilogue != MZ_EPI_NONE && a->batch > 1)
        problem = "an epilogue takes one matrix, not a batch";
    else if (a->epilogue == MZ_EPI_BIAS && !a->bias)
        problem = "the bias epilogue without a bias";
    else if (a->epilogue == MZ_EPI_DACT && !a->aux)
        problem = "the activation gradient without the pre-activation (aux)";
    else if ((a->epilogue == MZ_EPI_BGRAD_A || a->epilogue == MZ_EPI_BGRAD_B) && !a->bias_grad)
        problem = "the bias gradient epilogue without bias_grad";
    return verdict("matmul", problem);
}

mz_status mz_check_layer_norm(const mz_layer_norm_args *a)
{
    const char *problem = NULL;
    if (a->rows < 0 || a->cols <= 0)
        problem = "rows must be at least 0 and cols at least 1";
    else if (!is_storage(a->dtype))
        problem = "dtype must be f32, f16 or bf16";
    else if (a->rows && (!a->x || !a->weight || !a->bias || !a->y))
        problem = "x, weight, bias or y is NULL";
    else if (!a->residual != !a->sum)
        problem = "residual and sum go together";
    else if (!a->mean != !a->rstd)
        problem = "mean and rstd go together";
    return verdict("layer_norm", problem);
}

mz_status mz_check_layer_norm_grad(const mz_layer_norm_grad_args *a)
{
    const char *problem = NULL;
    if (a->rows < 0 || a->cols <= 0)
        problem = "rows must be at least 0 and cols at least 1";
    else if (!is_storage(a->dtype) || !is_storage(a->dtype_grad))
        problem = "dtype must be f32, f16 or bf16";
    else if (a->rows && (!a->dy || !a->x || !a->weight || !a->mean || !a->rstd))
        problem = "dy, x, weight, mean or rstd is NULL";
    else if (a->rows && (!a->dx || !a->dweight || !a->dbias))
        problem = "dx, dweight or dbias is NULL";
    return verdict("layer_norm_grad", problem);
}

mz_status mz_check_embedding(const mz_embedding_args *a)
{
    const char *problem = NULL;
    if (a->n < 0 || a->cols <= 0 || a->vocab <= 0)
        problem = "n must be at least 0, cols and vocab at least 1";
    else if (!is_storage(a->dtype))
        problem = "dtype must be f32, f16 or bf16";
    else if (a->n && (!a->ids || !a->table || !a->y))
        problem = "ids, table or y is NULL";
    else if (a->positions && !a->position_ids && (a->period <= 0 || a->position_offset < 0))
        problem = "positions need position_ids, or a period of at least 1 and an offset of at least 0";
    return verdict("embedding", problem);
}

mz_status mz_check_embedding_grad(const mz_embedding_grad_args *a)
{
    const char *problem = NULL;
    if (a->n < 0 || a->cols <= 0 || (a->dtable && a->vocab <= 0) || (a->dpositions && a->n_positions <= 0))
        problem = "n must be at least 0, cols, vocab and n_positions at least 1";
    else if (!is_storage(a->dtype) || !is_storage(a->dtype_grad))
        problem = "dtype must be f32, f16 or bf16";
    else if (a->n && (!a->dy || (a->dtable && !a->ids)))
        problem = "dy or ids is NULL";
    else if (a->dpositions && !a->position_ids && (a->period <= 0 || a->position_offset < 0))
        problem = "positions need position_ids, or a period of at least 1 and an offset of at least 0";
    return verdict("embedding_grad", problem);
}

static const char *shape_problem(const mz_attention_shape *s)
{
    if (s->batch < 0 || s->heads < 0 || s->t_q < 0 || s->t_k < 0)
        return "negative size";
    if (s->head_size < 1 || s->head_size > MAX_HEAD_SIZE)
        return "head_size is not within 1..1024";
    if (!is_storage(s->dtype))
        return "dtype must be f32, f16 or bf16";
    return dropout_problem(&s->dropout);
}

mz_status mz_check_attention(const mz_attention_args *a)
{
    const char *problem = shape_problem(&a->shape);
    bool empty = !a->shape.batch || !a->shape.heads || !a->shape.t_q;
    if (!problem && !empty && (!a->q || !a->o || (a->shape.t_k && (!a->k || !a->v))))
        problem = "q, k, v or o is NULL";
    return verdict("attention", problem);
}

mz_status mz_check_attention_grad(const mz_attention_grad_args *a, size_t workspace_bytes)
{
    const char *problem = shape_problem(&a->shape);
    bool empty = !a->shape.batch || !a->shape.heads || !a->shape.t_q;
    if (!problem && !empty && (!a->q || !a->o || !a->d_o || !a->lse || !a->dq))
        problem = "q, o, d_o, lse or dq is NULL";
    if (!problem && !empty && a->shape.t_k && (!a->k || !a->v || !a->dk || !a->dv))
        problem = "k, v, dk or dv is NULL";
    if (!problem && (a->workspace_bytes < workspace_bytes || (workspace_bytes && !a->workspace)))
        problem = "the workspace is smaller than attention_grad_workspace says";
    return verdict("attention_grad", problem);
}

mz_status mz_check_activation(const mz_activation_args *a)
{
    const char *problem = NULL;
    if (a->n < 0 || !is_storage(a->dtype) || !is_activation(a->activation))
        problem = "bad size, dtype or activation";
    else if (a->n && (!a->x || !a->y))
        problem = "x or y is NULL";
    return verdict("activation", problem);
}

mz_status mz_check_activation_grad(const mz_activation_grad_args *a)
{
    const char *problem = NULL;
    if (a->n < 0 || !is_storage(a->dtype) || !is_activation(a->activation))
        problem = "bad size, dtype or activation";
    else if (a->n && (!a->dy || !a->x || !a->dx))
        problem = "dy, x or dx is NULL";
    return verdict("activation_grad", problem);
}

mz_status mz_check_add(const mz_add_args *a)
{
    const char *problem = NULL;
    if (a->n < 0 || !is_storage(a->dtype))
        problem = "bad size or dtype";
    else if (a->n && (!a->a || !a->y))
        problem = "a or y is NULL";
    return verdict("add", problem);
}

mz_status mz_check_mul(const mz_mul_args *a)
{
    const char *problem = NULL;
    if (a->n < 0 || !is_storage(a->dtype))
        problem = "bad size or dtype";
    else if (a->n && (!a->a || !a->b || !a->y))
        problem = "a, b or y is NULL";
    return verdict("mul", problem);
}

mz_status mz_check_dropout(const mz_dropout_args *a)
{
    const char *problem = dropout_problem(&a->dropout);
    if (a->n < 0 || !is_storage(a->dtype))
        problem = "bad size or dtype";
    else if (a->n && (!a->x || !a->y))
        problem = "x or y is NULL";
    return verdict("dropout", problem);
}

mz_status mz_check_cast(const mz_cast_args *a)
{
    const char *problem = NULL;
    if (a->n < 0 || !is_storage(a->src_dtype) || !is_storage(a->dst_dtype))
        problem = "bad size or dtype";
    else if (a->n && (!a->src || !a->dst))
        problem = "src or dst is NULL";
    else if (a->n && a->src == a->dst && mz_dtype_size(a->src_dtype) != mz_dtype_size(a->dst_dtype))
        problem = "in place between dtypes of unequal size";
    return verdict("cast", problem);
}

mz_status mz_check_column_sum(const mz_column_sum_args *a)
{
    const char *problem = NULL;
    if (a->rows < 0 || a->cols < 0 || !is_storage(a->dtype) || !is_storage(a->dtype_out))
        problem = "bad size or dtype";
    else if (a->rows && a->cols && (!a->x || !a->out))
        problem = "x or out is NULL";
    return verdict("column_sum", problem);
}

mz_status mz_check_cross_entropy(const mz_cross_entropy_args *a)
{
    const char *problem = NULL;
    if (a->rows < 0 || a->vocab <= 0 || a->ld < a->vocab)
        problem = "rows must be at least 0, vocab at least 1 and ld at least vocab";
    else if (!is_storage(a->dtype))
        problem = "dtype must be f32, f16 or bf16";
    else if (a->rows && (!a->logits || !a->labels || !a->loss || !a->loss_scale))
        problem = "logits, labels, loss or loss_scale is NULL";
    else if (a->rows && a->dlogits && !a->grad_scale)
        problem = "dlogits without grad_scale";
    return verdict("cross_entropy", problem);
}

mz_status mz_check_mse(const mz_mse_args *a)
{
    const char *problem = NULL;
    if (a->n < 0 || !is_storage(a->dtype))
        problem = "bad size or dtype";
    else if (a->n && (!a->x || !a->target || !a->loss || !a->loss_scale))
        problem = "x, target, loss or loss_scale is NULL";
    else if (a->n && a->dx && !a->grad_scale)
        problem = "dx without grad_scale";
    return verdict("mse", problem);
}

mz_status mz_check_sum_squares(const mz_sum_squares_args *a)
{
    const char *problem = NULL;
    if (a->n < 0 || !is_storage(a->dtype))
        problem = "bad size or dtype";
    else if (a->n && (!a->x || !a->sum || !a->nonfinite))
        problem = "x, sum or nonfinite is NULL";
    return verdict("sum_squares", problem);
}

mz_status mz_check_sum(const mz_sum_args *a)
{
    const char *problem = NULL;
    if (a->n < 0 || a->n_sources < 1 || !is_storage(a->dtype) || !is_storage(a->dst_dtype))
        problem = "bad size, number of sources or dtype";
    else if (a->n && (!a->sources || !a->dst))
        problem = "sources or dst is NULL";
    for (int s = 0; !problem && a->n && s < a->n_sources; s++) {
        if (!a->sources[s])
            problem = "a source is NULL";
        else if (a->sources[s] == a->dst && mz_dtype_size(a->dtype) != mz_dtype_size(a->dst_dtype))
            problem = "in place between dtypes of unequal size";
    }
    return verdict("sum", problem);
}

mz_status mz_check_optim(const mz_optim_args *a)
{
    const char *problem = NULL;
    if ((int)a->kind < 0 || a->kind >= MZ_N_OPTIMS)
        problem = "unknown optimiser";
    else if (a->n_chunks < 0 || a->n_elements < 0)
        problem = "negative size";
    else if (!is_storage(a->grad_dtype) || !is_storage(a->param_dtype))
        problem = "dtype must be f32, f16 or bf16";
    else if (a->n_chunks && (!a->chunks || !a->hyper || !a->grad_scale || !a->nonfinite))
        problem = "chunks, hyper, grad_scale or nonfinite is NULL";
    else if (a->no_master && a->param_dtype != MZ_BF16)
        problem = "without masters parameters must be bf16";
    else if (a->no_master && a->grad_dtype == MZ_F16)
        problem = "without masters gradients must be f32 or bf16";
    else if (a->state_dtype != MZ_F32 && (a->state_dtype != MZ_BF16 || !a->no_master))
        problem = "states must be f32, or without masters bf16";
    else if (a->rounding.state && !a->no_master)
        problem = "stochastic rounding with masters";
    return verdict("optim", problem);
}

static const char *quantised_problem(int64_t n, int bits, const void *plain, const void *packed, mz_dtype dtype)
{
    if (n < 0 || !is_storage(dtype))
        return "bad size or dtype";
    if (bits != 8 && bits != 4)
        return "bits must be 8 or 4";
    if (n && (!plain || !packed))
        return "src, dst or packed is NULL";
    return (uintptr_t)packed % sizeof(float) ? "packed is not aligned" : NULL;
}

mz_status mz_check_quantize(const mz_quantize_args *a)
{
    return verdict("quantize", quantised_problem(a->n, a->bits, a->src, a->packed, a->dtype));
}

mz_status mz_check_dequantize(const mz_dequantize_args *a)
{
    return verdict("dequantize", quantised_problem(a->n, a->bits, a->dst, a->packed, a->dtype));
}
