#include "core/half.h"
#include "kernels/check.h"
#include "kernels/ref/ref.h"

/* Element [row][col] of op(X), X being stored with row stride ld. */
static double element(const void *x, mz_dtype dtype, bool transposed, int64_t base, int64_t ld, int64_t row,
                      int64_t col)
{
    return (double)mz_load_f32(x, dtype, base + (transposed ? col * ld + row : row * ld + col));
}

static double op_a(const mz_matmul_args *a, int64_t batch, int64_t i, int64_t p)
{
    return element(a->a, a->dtype, a->trans_a, batch * a->stride_a, a->lda, i, p);
}

static double op_b(const mz_matmul_args *a, int64_t batch, int64_t p, int64_t j)
{
    return element(a->b, a->dtype, a->trans_b, batch * a->stride_b, a->ldb, p, j);
}

/* What the epilogue makes of x = (AB)[i][j]. */
static double apply_epilogue(const mz_matmul_args *a, int64_t i, int64_t j, double x)
{
    int64_t e = i * a->n + j;
    if (a->epilogue == MZ_EPI_DACT)
        return x * mz_ref_activate_grad(a->activation, (double)mz_load_f32(a->aux, a->dtype, e));
    if (a->epilogue != MZ_EPI_BIAS && a->epilogue != MZ_EPI_ACT)
        return x;
    if (a->bias)
        x += (double)mz_load_f32(a->bias, a->dtype, j);
    if (a->epilogue == MZ_EPI_BIAS)
        return x;
    if (a->aux)
        mz_store_f32(a->aux, a->dtype, e, (float)x);
    return mz_ref_activate(a->activation, x);
}

static void bias_grad(const mz_matmul_args *a)
{
    bool of_a = a->epilogue == MZ_EPI_BGRAD_A;
    for (int64_t i = 0; i < (of_a ? a->m : a->n); i++) {
        double sum = 0.0;
        for (int64_t p = 0; p < a->k; p++)
            sum += of_a ? op_a(a, 0, i, p) : op_b(a, 0, p, i);
        mz_ref_store_sum(a->bias_grad, a->dtype_c, i, sum, a->accumulate_bias_grad);
    }
}

mz_status mz_ref_matmul(const mz_matmul_args *a, mz_stream *stream)
{
    (void)stream;
    mz_status status = mz_check_matmul(a);
    if (status)
        return status;
    for (int64_t batch = 0; batch < a->batch; batch++)
        for (int64_t i = 0; i < a->m; i++)
            for (int64_t j = 0; j < a->n; j++) {
                double sum = 0.0;
                for (int64_t p = 0; p < a->k; p++)
                    sum += op_a(a, batch, i, p) * op_b(a, batch, p, j);
                double value = apply_epilogue(a, i, j, (double)a->alpha * sum);
                mz_ref_store_sum(a->c, a->dtype_c, batch * a->stride_c + i * a->ldc + j, value, a->accumulate);
            }
    if (a->batch && (a->epilogue == MZ_EPI_BGRAD_A || a->epilogue == MZ_EPI_BGRAD_B))
        bias_grad(a);
    return MZ_OK;
}
