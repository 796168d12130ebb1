/* Matrix products by OpenBLAS, the other kernels being the generic set's: for processors that mpizero has no
 * vectorised set for. Each thread calls a single-threaded product on its pieces of C, in fp32 and beside C; the
 * epilogue then goes over the piece as it does in gemm.c. */
#include <cblas.h>
#include <pthread.h>

#include "kernels/check.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/storage.h"

/* Largest piece of C, and the most of k that 16-bit operands are widened for at a time. */
enum { ROWS = 256, COLS = 1024, DEPTH = 2048 };

typedef struct work {
    mz_gemm g; /* for the epilogue: args, c and sink */
    const void *a, *b;
    bool widens;
    int64_t rows, cols, depth; /* of a piece */
    int64_t n_across;          /* pieces along n */
    float *scratch;            /* room floats per thread */
    int64_t room;
} work;

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Rows i..i+m and columns j..j+n of a stored matrix as fp32: where it lies, or widened in `room`. */
static const float *operand(const work *w, const void *x, int64_t i, int64_t m, int64_t j, int64_t n, int64_t *ld,
                            float *room)
{
    const mz_dtype dtype = w->g.args->dtype;
    if (!w->widens)
        return (const float *)x + i * *ld + j;
    for (int64_t r = 0; r < m; r++)
        for (int64_t c = 0; c < n; c += VF_N)
            vf_store_n(room + r * n + c, mz_load_n(x, dtype, (i + r) * *ld + j + c, n - c), n - c);
    *ld = n;
    return room;
}

/* What the sums start from. */
static void start(const mz_matmul_args *a, int64_t m, int64_t j, int64_t n, float *sums)
{
    const bool biased = a->bias && (a->epilogue == MZ_EPI_BIAS || a->epilogue == MZ_EPI_ACT);
    for (int64_t r = 0; r < m; r++)
        for (int64_t c = 0; c < n; c += VF_N)
            vf_store_n(sums + r * n + c, biased ? mz_load_n(a->bias, a->dtype, j + c, n - c) : vf_set1(0.0f),
                       n - c);
}

static void compute_piece(const work *w, int64_t i, int64_t j, float *room)
{
    const mz_matmul_args *args = w->g.args;
    const int64_t m = least(args->m - i, w->rows), n = least(args->n - j, w->cols);
    float *sums = room, *room_a = sums + w->rows * w->cols, *room_b = room_a + w->rows * w->depth;
    start(args, m, j, n, sums);
    for (int64_t p = 0; p < args->k; p += w->depth) {
        const int64_t k = least(args->k - p, w->depth);
        int64_t lda = args->lda, ldb = args->ldb;
        const float *a =
            args->trans_a ? operand(w, w->a, p, k, i, m, &lda, room_a) : operand(w, w->a, i, m, p, k, &lda, room_a);
        const float *b =
            args->trans_b ? operand(w, w->b, j, n, p, k, &ldb, room_b) : operand(w, w->b, p, k, j, n, &ldb, room_b);
        cblas_sgemm(CblasRowMajor, args->trans_a ? CblasTrans : CblasNoTrans,
                    args->trans_b ? CblasTrans : CblasNoTrans, (blasint)m, (blasint)n, (blasint)k, args->alpha, a,
                    (blasint)lda, b, (blasint)ldb, 1.0f, sums, (blasint)n);
    }
    MZ_CPU(finish_tile)(&w->g, i, j, (int)m, n, sums, n);
}

static void compute_pieces(void *arg, int64_t begin, int64_t end, int thread)
{
    const work *w = arg;
    for (int64_t piece = begin; piece < end; piece++)
        compute_piece(w, piece / w->n_across * w->rows, piece % w->n_across * w->cols,
                      w->scratch + thread * w->room);
}

/* Pieces of C, at least one per thread where C has that many rows or columns. */
static void cut(work *w, int n_threads)
{
    const mz_matmul_args *a = w->g.args;
    w->rows = least(a->m, ROWS);
    w->cols = least(a->n, COLS);
    if (a->m >= a->n)
        w->rows = least(w->rows, (a->m + n_threads - 1) / n_threads);
    else
        w->cols = least(w->cols, (a->n + n_threads - 1) / n_threads);
    w->depth = w->widens ? least(a->k > 0 ? a->k : 1, DEPTH) : (a->k > 0 ? a->k : 1);
    w->n_across = (a->n + w->cols - 1) / w->cols;
    w->room = w->rows * w->cols + (w->widens ? (w->rows + w->cols) * w->depth : 0);
}

static void keep_to_one_thread(void)
{
    openblas_set_num_threads(1);
}

static bool is_within_blasint(const mz_matmul_args *a)
{
    const int64_t most = INT32_MAX;
    return a->lda <= most && a->ldb <= most && a->k <= most;
}

static mz_status blas_matmul(const mz_matmul_args *args, mz_stream *stream)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    mz_status status = mz_check_matmul(args);
    if (status || args->batch == 0)
        return status;
    if (!is_within_blasint(args))
        return MZ_CPU(matmul)(args, stream);
    pthread_once(&once, keep_to_one_thread);
    mz_threads *threads = mz_cpu_stream_threads(stream);
    if ((double)args->m * (double)args->n * (double)args->k < 2e5)
        threads = NULL;
    if (args->m && args->n) {
        work w = {.g = {.args = args, .sink = MZ_SINK_TILE}, .widens = args->dtype != MZ_F32};
        cut(&w, mz_threads_count(threads));
        void *scratch;
        status =
            mz_cpu_scratch_take(stream, (size_t)(w.room * mz_threads_count(threads)) * sizeof(float), &scratch);
        if (status)
            return status;
        w.scratch = scratch;
        for (int64_t i = 0; i < args->batch; i++) {
            w.a = mz_at_const(args->a, args->dtype, i * args->stride_a);
            w.b = mz_at_const(args->b, args->dtype, i * args->stride_b);
            w.g.c = mz_at(args->c, args->dtype_c, i * args->stride_c);
            mz_threads_for(threads, (args->m + w.rows - 1) / w.rows * w.n_across, 1, compute_pieces, &w);
        }
        mz_cpu_scratch_give(stream, scratch);
    }
    if (args->epilogue == MZ_EPI_BGRAD_A || args->epilogue == MZ_EPI_BGRAD_B)
        MZ_CPU(matmul_bias_grad)(args, threads);
    return MZ_OK;
}

const mz_kernels mz_cpu_kernels_openblas = {
    .matmul = blas_matmul,
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
};
