/* Matrix products by cuBLASLt. It thinks in columns: our row-major C = A B is its column-major C' = B' A' of the
 * same memory, so its A is our B, its m our n, and a bias of its rows a bias of our columns.
 *
 * The algorithm of a product depends on its shape alone and is chosen once (matmul_choice.cu): a table in the
 * device keeps it. */
#include <string.h>

extern "C" {
#include "core/memory.h"
}
#include "kernels/cuda/matmul_plan.cuh"

enum { MAX_PLANS = 256 };

struct mz_matmul_plans {
    int n;
    int next; /* to be replaced when all are taken */
    plan at[MAX_PLANS];
};

static void plan_clear(plan *p)
{
    if (p->what)
        cublasLtMatmulDescDestroy(p->what);
    if (p->a)
        cublasLtMatrixLayoutDestroy(p->a);
    if (p->b)
        cublasLtMatrixLayoutDestroy(p->b);
    if (p->c)
        cublasLtMatrixLayoutDestroy(p->c);
    memset(p, 0, sizeof *p);
}

extern "C" void mz_cuda_matmul_plans_destroy(struct mz_matmul_plans *plans)
{
    if (!plans)
        return;
    for (int i = 0; i < plans->n; i++)
        plan_clear(&plans->at[i]);
    mz_free(plans);
}

mz_status mz_cuda_blas_check(cublasStatus_t status, const char *call)
{
    if (status == CUBLAS_STATUS_SUCCESS)
        return MZ_OK;
    return mz_fail(MZ_ERR_DEVICE, "%s: %s", call, cublasLtGetStatusString(status));
}

static cudaDataType_t data_type(int dtype)
{
    return dtype == MZ_F32 ? CUDA_R_32F : dtype == MZ_F16 ? CUDA_R_16F : CUDA_R_16BF;
}

/* The largest power of two up to 16 that divides the address. */
static int alignment(const void *pointer)
{
    int bytes = 16;
    while (bytes > 1 && !is_aligned(pointer, (size_t)bytes))
        bytes /= 2;
    return bytes;
}

/* Elements of a 16-bit matrix can be read 16 bytes at a time. */
static bool is_whole(const void *x, int64_t ld, int64_t batch, int64_t stride)
{
    return is_aligned(x, 16) && ld % 8 == 0 && (batch == 1 || stride % 8 == 0);
}

bool mz_cuda_blas_adds(const mz_matmul_args *a)
{
    return a->dtype_c == MZ_F32 ||
           (is_whole(a->a, a->lda, a->batch, a->stride_a) && is_whole(a->b, a->ldb, a->batch, a->stride_b) &&
            is_whole(a->c, a->ldc, a->batch, a->stride_c));
}

bool mz_cuda_blas_adds_bias(const mz_matmul_args *a)
{
    return mz_cuda_blas_adds(a) && is_aligned(a->bias, 16); /* read as vectors; there is no telling of less */
}

bool mz_cuda_blas_fuses(const mz_matmul_args *a)
{
    if (a->accumulate || a->dtype_c != a->dtype || !mz_cuda_blas_adds_bias(a))
        return false;
    if (a->epilogue == MZ_EPI_BIAS)
        return true;
    /* 16 bits only: its GELU is an approximation good enough for their rounding, bf16's at least. */
    const bool gelu = a->activation == MZ_ACT_GELU_TANH && a->dtype == MZ_BF16;
    const bool whole_rows = a->n % 8 == 0 && is_aligned(a->aux, 16);
    if (a->epilogue == MZ_EPI_ACT)
        return gelu && a->bias && a->aux && whole_rows;
    return a->epilogue == MZ_EPI_DACT && gelu && whole_rows;
}

static plan_key key_of(const mz_matmul_args *a, mz_epilogue epilogue, const mz_device *device)
{
    plan_key key;
    memset(&key, 0, sizeof key);
    key.m = a->m;
    key.n = a->n;
    key.k = a->k;
    key.batch = a->batch;
    key.lda = a->lda;
    key.ldb = a->ldb;
    key.ldc = a->ldc;
    if (a->batch > 1) {
        key.stride_a = a->stride_a;
        key.stride_b = a->stride_b;
        key.stride_c = a->stride_c;
    }
    key.trans_a = a->trans_a;
    key.trans_b = a->trans_b;
    key.dtype = a->dtype;
    key.dtype_c = a->dtype_c;
    key.epilogue = epilogue;
    key.accumulate = a->accumulate;
    key.align_a = alignment(a->a);
    key.align_b = alignment(a->b);
    key.align_c = alignment(a->c);
    key.tf32 = a->dtype == MZ_F32 && device->tf32;
    return key;
}

/* A row-major [rows][cols] matrix is a column-major [cols][rows] one. */
static cublasStatus_t layout(cublasLtMatrixLayout_t *out, int dtype, int64_t rows, int64_t cols, int64_t ld,
                             int64_t batch, int64_t stride)
{
    cublasStatus_t status = cublasLtMatrixLayoutCreate(out, data_type(dtype), (uint64_t)cols, (uint64_t)rows, ld);
    const int32_t count = (int32_t)batch;
    if (status == CUBLAS_STATUS_SUCCESS && batch > 1) {
        status = cublasLtMatrixLayoutSetAttribute(*out, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count);
        if (status == CUBLAS_STATUS_SUCCESS)
            status = cublasLtMatrixLayoutSetAttribute(*out, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride,
                                                      sizeof stride);
    }
    return status;
}

static cublasStatus_t describe(plan *p)
{
    const plan_key *key = &p->key;
    /* Sums in fp32; operands as they are unless TF32 is asked for. */
    const cublasComputeType_t compute = key->tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    cublasStatus_t status = cublasLtMatmulDescCreate(&p->what, compute, CUDA_R_32F);
    const cublasOperation_t op_a = key->trans_b ? CUBLAS_OP_T : CUBLAS_OP_N,
                            op_b = key->trans_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasLtEpilogue_t epilogue = key->epilogue == MZ_EPI_BIAS   ? CUBLASLT_EPILOGUE_BIAS
                                        : key->epilogue == MZ_EPI_ACT  ? CUBLASLT_EPILOGUE_GELU_AUX_BIAS
                                        : key->epilogue == MZ_EPI_DACT ? CUBLASLT_EPILOGUE_DGELU
                                                                       : CUBLASLT_EPILOGUE_DEFAULT;
    const int64_t aux_ld = key->n;
#define SET(attribute, value)                                                                                      \
    if (status == CUBLAS_STATUS_SUCCESS)                                                                           \
    status = cublasLtMatmulDescSetAttribute(p->what, attribute, &(value), sizeof(value))
    SET(CUBLASLT_MATMUL_DESC_TRANSA, op_a);
    SET(CUBLASLT_MATMUL_DESC_TRANSB, op_b);
    SET(CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue);
    if (key->epilogue == MZ_EPI_ACT || key->epilogue == MZ_EPI_DACT) {
        SET(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, aux_ld);
    }
#undef SET
    if (status == CUBLAS_STATUS_SUCCESS)
        status = layout(&p->a, key->dtype, key->trans_a ? key->k : key->m, key->trans_a ? key->m : key->k, key->lda,
                        key->batch, key->stride_a);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = layout(&p->b, key->dtype, key->trans_b ? key->n : key->k, key->trans_b ? key->k : key->n, key->ldb,
                        key->batch, key->stride_b);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = layout(&p->c, key->dtype_c, key->m, key->n, key->ldc, key->batch, key->stride_c);
    return status;
}

/* Pointers differ from call to call with the same plan. */
static cublasStatus_t point(const plan *p, const mz_matmul_args *a)
{
    cublasStatus_t status = CUBLAS_STATUS_SUCCESS;
    if (p->key.epilogue == MZ_EPI_BIAS || p->key.epilogue == MZ_EPI_ACT)
        status =
            cublasLtMatmulDescSetAttribute(p->what, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &a->bias, sizeof a->bias);
    if (status == CUBLAS_STATUS_SUCCESS && (p->key.epilogue == MZ_EPI_ACT || p->key.epilogue == MZ_EPI_DACT))
        status = cublasLtMatmulDescSetAttribute(p->what, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, &a->aux,
                                                sizeof a->aux);
    return status;
}

/* The plan of a product, made when it is not there yet. */
static mz_status find_plan(const mz_matmul_args *a, mz_epilogue epilogue, mz_stream *stream, const plan **out)
{
    mz_cuda_device *device = mz_cuda_of(stream);
    if (!device->plans)
        device->plans = (struct mz_matmul_plans *)mz_calloc(1, sizeof *device->plans);
    struct mz_matmul_plans *plans = device->plans;
    if (!plans)
        return MZ_ERR_MEMORY;
    const plan_key key = key_of(a, epilogue, stream->device);
    for (int i = 0; i < plans->n; i++)
        if (!memcmp(&plans->at[i].key, &key, sizeof key)) {
            *out = &plans->at[i];
            return MZ_OK;
        }
    mz_device_settle(stream->device); /* its kernel may have to be loaded */
    plan *p = plans->n < MAX_PLANS ? &plans->at[plans->n] : &plans->at[plans->next++ % MAX_PLANS];
    plan_clear(p);
    p->key = key;
    cublasStatus_t described = describe(p);
    if (described == CUBLAS_STATUS_SUCCESS)
        described = point(p, a);
    mz_status status = MZ_OK;
    if (described == CUBLAS_STATUS_SUCCESS)
        status = mz_cuda_plan_choose(p, a, stream);
    else if (described != CUBLAS_STATUS_NOT_SUPPORTED && described != CUBLAS_STATUS_INVALID_VALUE)
        status = mz_cuda_blas_check(described, "describing a matrix product");
    if (status) {
        plan_clear(p);
        return status;
    }
    if (plans->n < MAX_PLANS)
        plans->n++;
    *out = p;
    return MZ_OK;
}

cublasStatus_t mz_cuda_plan_launch(const plan *p, const mz_matmul_args *a, float alpha, mz_stream *stream)
{
    const float beta = a->accumulate ? 1.0f : 0.0f;
    return cublasLtMatmul(mz_cuda_of(stream)->blas, p->what, &alpha, a->b, p->b, a->a, p->a, &beta, a->c, p->c,
                          a->c, p->c, &p->algorithm, stream->workspace, p->workspace_bytes, stream->stream);
}

mz_status mz_cuda_blas_matmul(const mz_matmul_args *a, mz_epilogue plan_epilogue, mz_stream *stream, bool *found)
{
    const plan *p;
    *found = false;
    if (a->k == 0 || a->batch > INT32_MAX)
        return MZ_OK;
    mz_status status = find_plan(a, plan_epilogue, stream, &p);
    if (status || !p->found)
        return status;
    status = mz_cuda_blas_check(point(p, a), "cublasLtMatmulDescSetAttribute");
    if (status)
        return status;
    const cublasStatus_t done = mz_cuda_plan_launch(p, a, a->alpha, stream);
    if (done == CUBLAS_STATUS_NOT_SUPPORTED)
        return MZ_OK;
    status = mz_cuda_blas_check(done, "cublasLtMatmul");
    *found = !status;
    return status;
}
