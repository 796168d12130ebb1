/* The matrix product: cuBLASLt where it has the contract's meaning, our own kernels beside it elsewhere. */
#include "kernels/cuda/act.cuh"
#include "kernels/cuda/matmul.cuh"
#include "kernels/cuda/sums.cuh"

enum { THREADS = 256 };

/* C (+)= activation(x + bias), keeping x + bias in aux; or x * activation'(aux). x, the product, may be C. */
template <typename T, typename TX, typename TC>
__global__ void finish_kernel(const __grid_constant__ mz_matmul_args a, const TX *product, int64_t ld)
{
    GRID_LOOP(e, a.m * a.n)
    {
        const int64_t i = e / a.n, j = e - i * a.n;
        float x = to_float(product[i * ld + j]);
        if (a.epilogue == MZ_EPI_DACT) {
            x *= activate_grad(a.activation, to_float(((const T *)a.aux)[e]));
        } else if (a.epilogue == MZ_EPI_BIAS || a.epilogue == MZ_EPI_ACT) {
            if (a.bias)
                x += to_float(((const T *)a.bias)[j]);
            if (a.epilogue == MZ_EPI_ACT) {
                if (a.aux)
                    ((T *)a.aux)[e] = from_float<T>(x);
                x = activate(a.activation, x);
            }
        }
        put_sum((TC *)a.c + i * a.ldc + j, x, a.accumulate);
    }
}

/* The epilogue from `product`, fp32 rows of `ld`, or from C itself with product NULL. */
static mz_status finish(const mz_matmul_args *a, const float *product, int64_t ld, mz_stream *stream)
{
    const unsigned grid = grid_for(stream, a->m * a->n, THREADS);
    FOR_DTYPE(a->dtype, T, FOR_DTYPE(a->dtype_c, TC, {
                  if (product)
                      finish_kernel<T, float, TC><<<grid, THREADS, 0, stream->stream>>>(*a, product, ld);
                  else
                      finish_kernel<T, TC, TC><<<grid, THREADS, 0, stream->stream>>>(*a, (const TC *)a->c, a->ldc);
              }));
    return mz_cuda_launched("matmul's epilogue");
}

static mz_status bias_grad(const mz_matmul_args *a, mz_stream *stream)
{
    const bool of_a = a->epilogue == MZ_EPI_BGRAD_A;
    /* The sums run over k: down the columns of a stored [k][..] matrix, along the rows of a [..][k] one. */
    const bool by_columns = of_a ? a->trans_a : !a->trans_b;
    const int64_t n = of_a ? a->m : a->n;
    const matrix_sum s = {
        of_a ? a->a : a->b, a->dtype,   by_columns ? a->k : n,  by_columns ? n : a->k, of_a ? a->lda : a->ldb,
        a->bias_grad,       a->dtype_c, a->accumulate_bias_grad};
    return by_columns ? mz_cuda_sum_columns(&s, stream) : mz_cuda_sum_rows(&s, stream);
}

/* Rows i0 .. i0 + m - 1 of a product. */
static mz_matmul_args rows_of(const mz_matmul_args *a, int64_t i0, int64_t m)
{
    const int64_t size = (int64_t)mz_dtype_size(a->dtype);
    mz_matmul_args part = *a;
    part.m = m;
    part.a = (const char *)a->a + (a->trans_a ? i0 : i0 * a->lda) * size;
    part.c = (char *)a->c + i0 * a->ldc * (int64_t)mz_dtype_size(a->dtype_c);
    if (a->aux)
        part.aux = (char *)a->aux + i0 * a->n * size;
    return part;
}

/* Sums of products in fp32 beside C, as many rows at a time as the second half of the workspace holds, then all of
 * the epilogue. */
static mz_status beside(const mz_matmul_args *a, mz_stream *stream)
{
    const size_t room = mz_cuda_blas_room(stream);
    float *sums = (float *)((char *)stream->workspace + room);
    const int64_t most = (int64_t)(room / sizeof *sums) / a->n;
    bool found = a->batch == 1 && most > 0;
    mz_status status = MZ_OK;
    int64_t i = 0;
    for (int64_t n; !status && found && i < a->m; i += found ? n : 0) {
        n = a->m - i < most ? a->m - i : most;
        const mz_matmul_args part = rows_of(a, i, n);
        mz_matmul_args product = part;
        product.c = sums;
        product.ldc = a->n;
        product.dtype_c = MZ_F32;
        product.accumulate = false;
        status = mz_cuda_blas_matmul(&product, MZ_EPI_NONE, stream, &found);
        if (!status && found)
            status = finish(&part, sums, a->n, stream);
    }
    if (status || found)
        return status;
    const mz_matmul_args rest = rows_of(a, i, a->m - i);
    return mz_cuda_plain_matmul(&rest, stream);
}

/* How to come by a product and its epilogue, bias gradients left out. */
typedef struct route {
    bool into_c;          /* by cuBLASLt; else beside C */
    mz_epilogue epilogue; /* of cuBLASLt */
    bool finish;          /* the rest by a kernel over C */
} route;

static route route_of(const mz_matmul_args *a)
{
    if (a->epilogue == MZ_EPI_NONE || a->epilogue == MZ_EPI_BGRAD_A || a->epilogue == MZ_EPI_BGRAD_B)
        return route{!a->accumulate || mz_cuda_blas_adds(a), MZ_EPI_NONE, false};
    if (mz_cuda_blas_fuses(a))
        return route{true, a->epilogue, false};
    /* To add epilogue(A B) to C, or the bias before rounding, the sums may not pass through C. */
    if (a->accumulate)
        return route{false, MZ_EPI_NONE, false};
    if (a->dtype_c == MZ_F32 || a->epilogue == MZ_EPI_DACT || !a->bias)
        return route{true, MZ_EPI_NONE, true};
    return route{a->epilogue == MZ_EPI_ACT && mz_cuda_blas_adds_bias(a), MZ_EPI_BIAS, true};
}

static mz_status product(const mz_matmul_args *a, mz_stream *stream)
{
    const route r = route_of(a);
    bool found = false;
    if (!r.into_c)
        return beside(a, stream);
    mz_status status = mz_cuda_blas_matmul(a, r.epilogue, stream, &found);
    if (status || !found)
        return status ? status : mz_cuda_plain_matmul(a, stream);
    if (!r.finish)
        return MZ_OK;
    mz_matmul_args rest = *a;
    if (r.epilogue == MZ_EPI_BIAS)
        rest.bias = nullptr; /* is in */
    return finish(&rest, nullptr, 0, stream);
}

extern "C" mz_status mz_cuda_matmul(const mz_matmul_args *a, mz_stream *stream)
{
    mz_status status = mz_check_matmul(a);
    if (status)
        return status;
    if (a->m && a->n && a->batch)
        status = product(a, stream);
    if (!status && a->batch && (a->epilogue == MZ_EPI_BGRAD_A || a->epilogue == MZ_EPI_BGRAD_B))
        status = bias_grad(a, stream);
    return status;
}
