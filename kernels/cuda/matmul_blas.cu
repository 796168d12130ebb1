/* Matrix products by cuBLASLt. It thinks in columns: our row-major C = A B is its column-major C' = B' A' of the
 * same memory, so its A is our B, its m our n, and a bias of its rows a bias of our columns.
 *
 * The algorithm of a product depends on its shape alone and is asked for once: a table in the device keeps it. */
#include <string.h>

extern "C" {
#include "core/memory.h"
}
#include "kernels/cuda/matmul.cuh"

enum { MAX_PLANS = 256 };

/* What an algorithm is chosen by. Compared as bytes: cleared before it is filled. */
typedef struct plan_key {
    int64_t m, n, k, batch, lda, ldb, ldc, stride_a, stride_b, stride_c;
    int trans_a, trans_b, dtype, dtype_c, epilogue, accumulate;
    int align_a, align_b, align_c;
} plan_key;

typedef struct plan {
    plan_key key;
    bool found; /* false: cuBLASLt has no algorithm */
    cublasLtMatmulDesc_t what;
    cublasLtMatrixLayout_t a, b, c; /* ours */
    cublasLtMatmulAlgo_t algorithm;
    size_t workspace_bytes;
} plan;

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

static mz_status blas_check(cublasStatus_t status, const char *call)
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

bool mz_cuda_blas_adds_bias(const mz_matmul_args *a)
{
    const bool whole = a->dtype_c == MZ_F32 || (is_whole(a->a, a->lda, a->batch, a->stride_a) &&
                                                is_whole(a->b, a->ldb, a->batch, a->stride_b) &&
                                                is_whole(a->c, a->ldc, a->batch, a->stride_c));
    return whole && is_aligned(a->bias, 16); /* the bias is read as vectors; there is no telling of less */
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

static plan_key key_of(const mz_matmul_args *a, mz_epilogue epilogue)
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
    /* Sums in fp32, without TF32. */
    cublasStatus_t status = cublasLtMatmulDescCreate(&p->what, CUBLAS_COMPUTE_32F, CUDA_R_32F);
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

/* Asks for the algorithm; p->found says whether there is one. */
static mz_status choose(plan *p, const mz_matmul_args *a, mz_stream *stream)
{
    cublasLtMatmulPreference_t wish = nullptr;
    cublasLtMatmulHeuristicResult_t result;
    /* Split sums are added in fp32 and a fixed order: neither in the output's type nor as they come. */
    const uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    const uint32_t align_a = (uint32_t)p->key.align_b, align_b = (uint32_t)p->key.align_a;
    const uint32_t align_c = (uint32_t)p->key.align_c;
    const size_t room = mz_cuda_blas_room(stream);
    int n_found = 0;
    cublasStatus_t status = describe(p);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = point(p, a);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatmulPreferenceCreate(&wish);
#define SET(attribute, value)                                                                                      \
    if (status == CUBLAS_STATUS_SUCCESS)                                                                           \
    status = cublasLtMatmulPreferenceSetAttribute(wish, attribute, &(value), sizeof(value))
    SET(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, room);
    SET(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, schemes);
    SET(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, align_a);
    SET(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, align_b);
    SET(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, align_c);
    SET(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, align_c);
#undef SET
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatmulAlgoGetHeuristic(mz_cuda_of(stream)->blas, p->what, p->b, p->a, p->c, p->c, wish, 1,
                                                &result, &n_found);
    if (wish)
        cublasLtMatmulPreferenceDestroy(wish);
    if (status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE)
        return MZ_OK;
    if (status == CUBLAS_STATUS_SUCCESS && n_found > 0 && result.state == CUBLAS_STATUS_SUCCESS) {
        p->found = true;
        p->algorithm = result.algo;
        p->workspace_bytes = result.workspaceSize;
    }
    return blas_check(status, "cublasLtMatmulAlgoGetHeuristic");
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
    const plan_key key = key_of(a, epilogue);
    for (int i = 0; i < plans->n; i++)
        if (!memcmp(&plans->at[i].key, &key, sizeof key)) {
            *out = &plans->at[i];
            return MZ_OK;
        }
    plan *p = plans->n < MAX_PLANS ? &plans->at[plans->n] : &plans->at[plans->next++ % MAX_PLANS];
    plan_clear(p);
    p->key = key;
    mz_status status = choose(p, a, stream);
    if (status) {
        plan_clear(p);
        return status;
    }
    if (plans->n < MAX_PLANS)
        plans->n++;
    *out = p;
    return MZ_OK;
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
    const float beta = a->accumulate ? 1.0f : 0.0f;
    status = blas_check(point(p, a), "cublasLtMatmulDescSetAttribute");
    if (status)
        return status;
    const cublasStatus_t done =
        cublasLtMatmul(mz_cuda_of(stream)->blas, p->what, &a->alpha, a->b, p->b, a->a, p->a, &beta, a->c, p->c,
                       a->c, p->c, &p->algorithm, stream->workspace, p->workspace_bytes, stream->stream);
    if (done == CUBLAS_STATUS_NOT_SUPPORTED)
        return MZ_OK;
    status = blas_check(done, "cublasLtMatmul");
    *found = !status;
    return status;
}
