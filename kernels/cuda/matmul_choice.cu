/* Which of cuBLASLt's algorithms computes a product: what it suggests first, or the fastest of its suggestions. On
 * an H200 the first suggestion for GPT-2's products is up to a third slower than the best of eight. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

extern "C" {
#include "device/cuda/choices.h"
}
#include "kernels/cuda/matmul_plan.cuh"

enum { CANDIDATES = 16, REPEATS = 4 };

/* Below, launching takes as long as the product; what is first suggested is good enough. */
#define WORTH_TIMING_FLOPS 2e9
/* A later suggestion must be faster by this factor, so that noise does not choose. */
#define CLEARLY 0.98f
/* Times a product that adds to C without changing it: what it adds vanishes beside any number that C may hold. */
#define NEXT_TO_NOTHING 1.4e-45f

static mz_status suggestions(const plan *p, mz_stream *stream, cublasLtMatmulHeuristicResult_t *out, int *n)
{
    cublasLtMatmulPreference_t wish = nullptr;
    /* Split sums are added in fp32 and a fixed order: neither in the output's type nor as they come. */
    const uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    const uint32_t align_a = (uint32_t)p->key.align_b, align_b = (uint32_t)p->key.align_a;
    const uint32_t align_c = (uint32_t)p->key.align_c;
    const size_t room = mz_cuda_blas_room(stream);
    *n = 0;
    cublasStatus_t status = cublasLtMatmulPreferenceCreate(&wish);
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
    int found = 0;
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatmulAlgoGetHeuristic(mz_cuda_of(stream)->blas, p->what, p->b, p->a, p->c, p->c, wish,
                                                CANDIDATES, out, &found);
    if (wish)
        cublasLtMatmulPreferenceDestroy(wish);
    if (status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE)
        return MZ_OK;
    for (int i = 0; i < found; i++)
        if (out[i].state == CUBLAS_STATUS_SUCCESS)
            out[(*n)++] = out[i];
    return mz_cuda_blas_check(status, "cublasLtMatmulAlgoGetHeuristic");
}

static void take(plan *p, const cublasLtMatmulAlgo_t *algorithm, size_t workspace_bytes)
{
    p->algorithm = *algorithm;
    p->workspace_bytes = workspace_bytes;
    p->found = true;
}

/* ---- measuring ---- */

/* Milliseconds of REPEATS launches behind one that warms up; negative when it does not run. */
static mz_status time_plan(const plan *p, const mz_matmul_args *a, mz_stream *stream, const cudaEvent_t events[2],
                           float *milliseconds)
{
    const float alpha = a->accumulate ? NEXT_TO_NOTHING : a->alpha;
    *milliseconds = -1.0f;
    mz_status status = MZ_OK;
    for (int i = -1; i < REPEATS && !status; i++) {
        if (i == 0)
            status = mz_cuda_check(cudaEventRecord(events[0], stream->stream), "cudaEventRecord");
        if (!status && mz_cuda_plan_launch(p, a, alpha, stream) != CUBLAS_STATUS_SUCCESS)
            return MZ_OK;
    }
    if (!status)
        status = mz_cuda_check(cudaEventRecord(events[1], stream->stream), "cudaEventRecord");
    if (!status)
        status = mz_cuda_check(cudaEventSynchronize(events[1]), "a matrix product that is being timed");
    if (!status)
        status = mz_cuda_check(cudaEventElapsedTime(milliseconds, events[0], events[1]), "cudaEventElapsedTime");
    return status;
}

static mz_status fastest(plan *p, const mz_matmul_args *a, mz_stream *stream,
                         const cublasLtMatmulHeuristicResult_t *candidates, int n)
{
    cudaEvent_t events[2] = {nullptr, nullptr};
    int best = 0;
    float best_time = -1.0f;
    mz_status status = mz_cuda_check(cudaEventCreate(&events[0]), "cudaEventCreate");
    if (!status)
        status = mz_cuda_check(cudaEventCreate(&events[1]), "cudaEventCreate");
    for (int i = 0; i < n && !status; i++) {
        float time;
        take(p, &candidates[i].algo, candidates[i].workspaceSize);
        status = time_plan(p, a, stream, events, &time);
        if (time >= 0.0f && (best_time < 0.0f || time < CLEARLY * best_time)) {
            best = i;
            best_time = time;
        }
    }
    for (int i = 0; i < 2; i++)
        if (events[i])
            cudaEventDestroy(events[i]);
    take(p, &candidates[best].algo, candidates[best].workspaceSize);
    return status;
}

/* ---- remembering ---- */

enum { TEXT_BYTES = 512, N_WORDS = (int)(sizeof(cublasLtMatmulAlgo_t) / sizeof(uint64_t)) };

/* Everything that the choice depends on beside the device and cuBLAS's version, which name the file. */
static void print_key(const plan_key *key, char *text)
{
    const int64_t sizes[] = {key->m,          key->n,       key->k,        key->batch,    key->lda,
                             key->ldb,        key->ldc,     key->stride_a, key->stride_b, key->stride_c,
                             key->trans_a,    key->trans_b, key->dtype,    key->dtype_c,  key->epilogue,
                             key->accumulate, key->align_a, key->align_b,  key->align_c};
    int used = snprintf(text, TEXT_BYTES, "matmul");
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        used += snprintf(text + used, (size_t)(TEXT_BYTES - used), ",%" PRId64, sizes[i]);
}

static void print_algorithm(const cublasLtMatmulAlgo_t *algorithm, char *text)
{
    for (int i = 0; i < N_WORDS; i++)
        snprintf(text + 16 * i, 17, "%016" PRIx64, algorithm->data[i]);
}

/* Takes the algorithm that stands in the text, unless this cuBLAS has no such for this product. */
static bool take_printed(plan *p, const char *text, mz_stream *stream)
{
    cublasLtMatmulAlgo_t algorithm;
    cublasLtMatmulHeuristicResult_t result;
    if (strlen(text) != 16 * N_WORDS)
        return false;
    for (int i = 0; i < N_WORDS; i++)
        if (sscanf(text + 16 * i, "%16" SCNx64, &algorithm.data[i]) != 1)
            return false;
    if (cublasLtMatmulAlgoCheck(mz_cuda_of(stream)->blas, p->what, p->b, p->a, p->c, p->c, &algorithm, &result) !=
            CUBLAS_STATUS_SUCCESS ||
        result.state != CUBLAS_STATUS_SUCCESS || result.workspaceSize > mz_cuda_blas_room(stream))
        return false;
    take(p, &algorithm, result.workspaceSize);
    return true;
}

mz_status mz_cuda_plan_choose(plan *p, const mz_matmul_args *a, mz_stream *stream)
{
    cublasLtMatmulHeuristicResult_t candidates[CANDIDATES];
    char key[TEXT_BYTES], file[TEXT_BYTES], value[TEXT_BYTES];
    int n;
    mz_status status = suggestions(p, stream, candidates, &n);
    if (status || n == 0)
        return status;
    const double flops = 2.0 * (double)a->m * (double)a->n * (double)a->k * (double)a->batch;
    if (a->dtype == MZ_F32 || flops < WORTH_TIMING_FLOPS) {
        take(p, &candidates[0].algo, candidates[0].workspaceSize);
        return MZ_OK;
    }
    print_key(&p->key, key);
    snprintf(file, sizeof file, "%s cublasLt-%zu", mz_cuda_of(stream)->name, cublasLtGetVersion());
    if (mz_choice_get(file, key, value, sizeof value) && take_printed(p, value, stream))
        return MZ_OK;
    status = fastest(p, a, stream, candidates, n);
    if (status)
        return status;
    print_algorithm(&p->algorithm, value);
    mz_choice_put(file, key, value, sizeof value);
    take_printed(p, value, stream);
    return MZ_OK;
}
