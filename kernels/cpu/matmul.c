#include "kernels/check.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/storage.h"

typedef struct work_space {
    mz_cpu_rooms rooms;
    void *shared;
} work_space;

/* Sizes in floats. */
static mz_status take_space(mz_stream *stream, int64_t room, int64_t shared, work_space *space)
{
    space->shared = NULL;
    mz_status status = mz_cpu_rooms_take(stream, (size_t)room * sizeof(float), &space->rooms);
    if (status || shared == 0)
        return status;
    status = mz_cpu_scratch_take(stream, (size_t)shared * sizeof(float), &space->shared);
    if (status)
        mz_cpu_rooms_give(stream, &space->rooms);
    return status;
}

static void give_space(mz_stream *stream, work_space *space)
{
    mz_cpu_scratch_give(stream, space->shared);
    mz_cpu_rooms_give(stream, &space->rooms);
}

/* C, and the bias gradient when that comes with packing (*has_bias_grad). */
static mz_status whole_product(const mz_matmul_args *args, mz_threads *threads, mz_stream *stream,
                               bool *has_bias_grad)
{
    mz_gemm g;
    work_space space;
    const mz_gemm_space size = MZ_CPU(gemm_plan)(args, mz_threads_count(threads), &g);
    const mz_status status = take_space(stream, size.room, size.shared, &space);
    if (status)
        return status;
    *has_bias_grad |= MZ_CPU(gemm_run)(&g, threads, space.rooms, space.shared);
    give_space(stream, &space);
    return MZ_OK;
}

/* ---- small C, large k: the gradient of a small weight ----
 *
 * k counts tokens there, and each thread made the activations and gradients of its own share of them. So each
 * sums over its share alone, what its cache holds, and the partial sums are added in the order of threads. They
 * lie, [m][ld] and then the bias gradient's [ld], in front of each thread's room. */

/* Largest C for which adding partial sums costs less than moving A and B between cores. */
enum { SMALL_C = 128 * 1024 };

typedef struct shares {
    const mz_matmul_args *args;
    int64_t size; /* of k, but for the last share */
    int64_t ld;   /* of partial sums */
    int n;
    mz_cpu_rooms rooms;
} shares;

static int64_t partials_size(const shares *s)
{
    return (s->args->m + 1) * s->ld;
}

static float *partials_of(const shares *s, int share)
{
    return (float *)(s->rooms.first + (size_t)share * s->rooms.distance);
}

static bool is_shared_by_k(const mz_matmul_args *a, int n_threads)
{
    return n_threads > 1 && a->batch == 1 && a->trans_a && !a->trans_b && a->epilogue != MZ_EPI_BIAS &&
           a->epilogue != MZ_EPI_ACT && a->epilogue != MZ_EPI_DACT && a->m * a->n <= SMALL_C &&
           a->k * (a->m + a->n) > 2 * a->m * a->n * n_threads;
}

static mz_matmul_args share_args(const shares *s, int64_t begin, int64_t end, int share)
{
    mz_matmul_args a = *s->args;
    a.a = mz_at_const(a.a, a.dtype, begin * a.lda);
    a.b = mz_at_const(a.b, a.dtype, begin * a.ldb);
    a.k = end - begin;
    a.c = partials_of(s, share);
    a.ldc = s->ld;
    a.dtype_c = MZ_F32;
    a.bias_grad = (float *)a.c + a.m * s->ld;
    a.accumulate = a.accumulate_bias_grad = false;
    return a;
}

void MZ_CPU(matmul_bias_grad)(const mz_matmul_args *a, mz_threads *threads)
{
    const bool of_a = a->epilogue == MZ_EPI_BGRAD_A;
    const void *x = of_a ? a->a : a->b;
    const int64_t n = of_a ? a->m : a->n, ld = of_a ? a->lda : a->ldb;
    const bool by_k = of_a ? a->trans_a : !a->trans_b; /* stored with k rows */
    if (by_k)
        MZ_CPU(sum_columns)(threads, x, a->dtype, a->k, n, ld, a->bias_grad, a->dtype_c, a->accumulate_bias_grad);
    else
        MZ_CPU(sum_rows)(threads, x, a->dtype, n, a->k, ld, a->bias_grad, a->dtype_c, a->accumulate_bias_grad);
}

static void compute_share(void *arg, int64_t begin, int64_t end, int thread)
{
    const shares *s = arg;
    (void)thread;
    for (int64_t share = begin; share < end; share++) {
        const int64_t first = share * s->size, last = first + s->size;
        const mz_matmul_args a = share_args(s, first, last < s->args->k ? last : s->args->k, (int)share);
        mz_gemm g;
        const mz_gemm_space space = MZ_CPU(gemm_plan)(&a, 1, &g);
        float *room = partials_of(s, (int)share) + partials_size(s);
        const mz_cpu_rooms rooms = {.first = (char *)room};
        if (!MZ_CPU(gemm_run)(&g, NULL, rooms, room + space.room) && a.epilogue == MZ_EPI_BGRAD_B)
            MZ_CPU(matmul_bias_grad)(&a, NULL);
    }
}

/* out[j] (+)= sum over shares of row `row` of their partial sums, which are written over: a cache line comes back
 * faster to the core that it was read from when it was written to meanwhile. */
static void add_partials(const shares *s, int64_t row, int64_t n, void *out, int64_t at, bool accumulate)
{
    for (int64_t j = 0; j < n; j += VF_N) {
        vf sum = accumulate ? mz_load_n(out, s->args->dtype_c, at + j, n - j) : vf_set1(0.0f);
        for (int share = 0; share < s->n; share++) {
            float *partial = partials_of(s, share) + row * s->ld + j;
            sum += vf_load(partial);
            vf_store(partial, sum);
        }
        mz_store_n(out, s->args->dtype_c, at + j, sum, n - j);
    }
}

static void add_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    const shares *s = arg;
    const mz_matmul_args *a = s->args;
    (void)thread;
    for (int64_t i = begin; i < end; i++)
        add_partials(s, i, a->n, a->c, i * a->ldc, a->accumulate);
    if (begin == 0 && a->epilogue == MZ_EPI_BGRAD_B)
        add_partials(s, a->m, a->n, a->bias_grad, 0, a->accumulate_bias_grad);
}

static mz_status product_by_shares(const mz_matmul_args *args, mz_threads *threads, mz_stream *stream,
                                   bool *has_bias_grad)
{
    const int n_threads = mz_threads_count(threads);
    shares s = {.args = args, .ld = (args->n + MZ_NR - 1) / MZ_NR * MZ_NR};
    s.size = (args->k + n_threads - 1) / n_threads;
    s.n = (int)((args->k + s.size - 1) / s.size);
    const mz_matmul_args first = share_args(&s, 0, s.size, 0);
    mz_gemm g;
    const mz_gemm_space space = MZ_CPU(gemm_plan)(&first, 1, &g);
    const int64_t room = partials_size(&s) + space.room + space.shared;
    const mz_status status = mz_cpu_rooms_take(stream, (size_t)room * sizeof(float), &s.rooms);
    if (status)
        return status;
    mz_threads_for(threads, s.n, 1, compute_share, &s);
    mz_threads_for(threads, args->m, 1, add_rows, &s);
    mz_cpu_rooms_give(stream, &s.rooms);
    *has_bias_grad |= args->epilogue == MZ_EPI_BGRAD_B;
    return MZ_OK;
}

mz_status MZ_CPU(matmul)(const mz_matmul_args *args, mz_stream *stream)
{
    mz_status status = mz_check_matmul(args);
    if (status || args->batch == 0)
        return status;
    mz_threads *threads = mz_cpu_stream_threads(stream);
    if ((double)args->m * (double)args->n * (double)args->k < 2e5)
        threads = NULL;
    bool has_bias_grad = args->epilogue != MZ_EPI_BGRAD_A && args->epilogue != MZ_EPI_BGRAD_B;
    if (args->m && args->n && is_shared_by_k(args, mz_threads_count(threads)))
        status = product_by_shares(args, threads, stream, &has_bias_grad);
    else if (args->m && args->n)
        status = whole_product(args, threads, stream, &has_bias_grad);
    if (!status && !has_bias_grad)
        MZ_CPU(matmul_bias_grad)(args, threads);
    return status;
}
