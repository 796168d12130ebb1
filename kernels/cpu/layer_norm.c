#include "kernels/check.h"
#include "kernels/cpu/family.h"
#include "kernels/cpu/storage.h"

/* Rows worked on together: each is a chain of dependent sums, and the chains run side by side. */
enum { ROWS = 4 };

MZ_INLINE void normalise_rows(const mz_layer_norm_args *a, mz_dtype dtype, int64_t first, int n)
{
    const int64_t cols = a->cols, row = first * cols;
    const void *x = a->residual ? a->sum : a->x;
    vf sum[ROWS], squares[ROWS];
    float mean[ROWS], rstd[ROWS];
    for (int r = 0; r < n; r++)
        sum[r] = squares[r] = vf_set1(0.0f);
    for (int64_t c = 0; c < cols; c += VF_N)
        for (int r = 0; r < n; r++) {
            const int64_t at = row + r * cols + c;
            vf v = mz_load_n(a->x, dtype, at, cols - c);
            if (a->residual) {
                v += mz_load_n(a->residual, dtype, at, cols - c);
                mz_store_n(a->sum, dtype, at, v, cols - c);
                if (dtype != MZ_F32) /* what is normalised is the stored sum */
                    v = mz_load_n(a->sum, dtype, at, cols - c);
            }
            sum[r] += v;
        }
    for (int r = 0; r < n; r++)
        mean[r] = vf_sum(sum[r]) / (float)cols;
    for (int64_t c = 0; c < cols; c += VF_N)
        for (int r = 0; r < n; r++) {
            const vf d = mz_load_n(x, dtype, row + r * cols + c, cols - c) - mean[r];
            squares[r] = vf_fma(d, vf_select(vm_first(cols - c), d, vf_set1(0.0f)), squares[r]);
        }
    for (int r = 0; r < n; r++)
        rstd[r] = 1.0f / sqrtf(vf_sum(squares[r]) / (float)cols + a->eps);
    for (int64_t c = 0; c < cols; c += VF_N) {
        const int64_t left = cols - c;
        const vf weight = mz_load_n(a->weight, dtype, c, left), bias = mz_load_n(a->bias, dtype, c, left);
        for (int r = 0; r < n; r++) {
            const vf hat = (mz_load_n(x, dtype, row + r * cols + c, left) - mean[r]) * rstd[r];
            mz_store_n(a->y, dtype, row + r * cols + c, vf_fma(hat, weight, bias), left);
        }
    }
    for (int r = 0; a->mean && r < n; r++) {
        a->mean[first + r] = mean[r];
        a->rstd[first + r] = rstd[r];
    }
}

MZ_INLINE void normalise_range(const mz_layer_norm_args *a, mz_dtype dtype, int64_t begin, int64_t end)
{
    int64_t r = begin;
    for (; r + ROWS <= end; r += ROWS)
        normalise_rows(a, dtype, r, ROWS);
    for (; r < end; r++)
        normalise_rows(a, dtype, r, 1);
}

static void normalise_part(void *arg, int64_t begin, int64_t end, int thread)
{
    const mz_layer_norm_args *a = arg;
    (void)thread;
    MZ_FOR_DTYPE(a->dtype, normalise_range(a, D, begin, end));
}

mz_status MZ_CPU(layer_norm)(const mz_layer_norm_args *args, mz_stream *stream)
{
    mz_layer_norm_args a = *args;
    mz_status status = mz_check_layer_norm(args);
    if (!status)
        mz_threads_for(mz_threads_if_worth(stream, a.rows * a.cols), a.rows, 1, normalise_part, &a);
    return status;
}

/* ---- gradient ----
 *
 * A thread goes over its own rows alone, once for all three gradients. The parameters' are summed over blocks of
 * rows, so that rounding grows with the block and the number of blocks only, and the blocks' sums are added in
 * order. */
enum { ROW_BLOCK = 64, COLUMN_GRAIN = 32 };

typedef struct norm_grad {
    const mz_layer_norm_grad_args *args;
    int64_t n_blocks, width; /* of a block's sums: [dweight, dbias][width] */
    float *sums;             /* [n_blocks][2][width] */
} norm_grad;

/* dx = rstd * (g - mean(g) - hat * mean(g * hat)) with g = dy * weight; sums += dy * hat and dy. */
MZ_INLINE void grad_rows(const norm_grad *s, mz_dtype dtype, int64_t first, int n, float *sums)
{
    const mz_layer_norm_grad_args *a = s->args;
    const int64_t cols = a->cols, row = first * cols;
    const float *mean = a->mean + first, *rstd = a->rstd + first;
    vf sum_g[ROWS], sum_g_hat[ROWS];
    float mean_g[ROWS], mean_g_hat[ROWS];
    for (int r = 0; r < n; r++)
        sum_g[r] = sum_g_hat[r] = vf_set1(0.0f);
    for (int64_t c = 0; c < cols; c += VF_N) {
        const int64_t left = cols - c; /* dy is 0 in lanes beyond the row */
        const vf weight = mz_load_n(a->weight, dtype, c, left);
        vf dweight = vf_load(sums + c), dbias = vf_load(sums + s->width + c);
        for (int r = 0; r < n; r++) {
            const vf dy = mz_load_n(a->dy, dtype, row + r * cols + c, left), g = dy * weight;
            const vf hat = (mz_load_n(a->x, dtype, row + r * cols + c, left) - mean[r]) * rstd[r];
            sum_g[r] += g;
            sum_g_hat[r] = vf_fma(g, hat, sum_g_hat[r]);
            dweight = vf_fma(dy, hat, dweight);
            dbias += dy;
        }
        vf_store(sums + c, dweight);
        vf_store(sums + s->width + c, dbias);
    }
    for (int r = 0; r < n; r++) {
        mean_g[r] = vf_sum(sum_g[r]) / (float)cols;
        mean_g_hat[r] = vf_sum(sum_g_hat[r]) / (float)cols;
    }
    for (int64_t c = 0; c < cols; c += VF_N) {
        const int64_t left = cols - c;
        const vf weight = mz_load_n(a->weight, dtype, c, left);
        for (int r = 0; r < n; r++) {
            const int64_t at = row + r * cols + c;
            const vf g = mz_load_n(a->dy, dtype, at, left) * weight;
            const vf hat = (mz_load_n(a->x, dtype, at, left) - mean[r]) * rstd[r];
            vf dx = (g - mean_g[r] - hat * mean_g_hat[r]) * rstd[r];
            if (a->dresidual)
                dx += mz_load_n(a->dresidual, dtype, at, left);
            mz_store_n(a->dx, dtype, at, dx, left);
        }
    }
}

MZ_INLINE void grad_blocks(const norm_grad *s, mz_dtype dtype, int64_t begin, int64_t end)
{
    for (int64_t block = begin; block < end; block++) {
        const int64_t stop = (block + 1) * ROW_BLOCK < s->args->rows ? (block + 1) * ROW_BLOCK : s->args->rows;
        float *sums = s->sums + block * 2 * s->width;
        int64_t r = block * ROW_BLOCK;
        memset(sums, 0, (size_t)(2 * s->width) * sizeof *sums);
        for (; r + ROWS <= stop; r += ROWS)
            grad_rows(s, dtype, r, ROWS, sums);
        for (; r < stop; r++)
            grad_rows(s, dtype, r, 1, sums);
    }
}

static void grad_part(void *arg, int64_t begin, int64_t end, int thread)
{
    const norm_grad *s = arg;
    (void)thread;
    MZ_FOR_DTYPE(s->args->dtype, grad_blocks(s, D, begin, end));
}

/* out[c] (+)= the blocks' sums at `from`, which are written over, as matmul.c's add_partials says. */
static void add_blocks(const norm_grad *s, float *from, int64_t c, int64_t left, void *out, bool accumulate)
{
    const mz_dtype dtype = s->args->dtype_grad;
    vf total = vf_set1(0.0f);
    for (int64_t block = 0; block < s->n_blocks; block++) {
        float *sum = from + block * 2 * s->width + c;
        total += vf_load(sum);
        vf_store(sum, total);
    }
    if (accumulate)
        total += mz_load_n(out, dtype, c, left);
    mz_store_n(out, dtype, c, total, left);
}

static void parameter_grad_part(void *arg, int64_t begin, int64_t end, int thread)
{
    const norm_grad *s = arg;
    (void)thread;
    for (int64_t c = begin; c < end; c += VF_N) {
        add_blocks(s, s->sums, c, end - c, s->args->dweight, s->args->accumulate_dweight);
        add_blocks(s, s->sums + s->width, c, end - c, s->args->dbias, s->args->accumulate_dbias);
    }
}

mz_status MZ_CPU(layer_norm_grad)(const mz_layer_norm_grad_args *args, mz_stream *stream)
{
    mz_status status = mz_check_layer_norm_grad(args);
    if (status || args->rows == 0)
        return status;
    norm_grad s = {.args = args,
                   .n_blocks = (args->rows + ROW_BLOCK - 1) / ROW_BLOCK,
                   .width = (args->cols + COLUMN_GRAIN - 1) / COLUMN_GRAIN * COLUMN_GRAIN};
    void *scratch;
    status = mz_cpu_scratch_take(stream, (size_t)(s.n_blocks * 2 * s.width) * sizeof(float), &scratch);
    if (status)
        return status;
    s.sums = scratch;
    mz_threads_for(mz_threads_if_worth(stream, args->rows * args->cols), s.n_blocks, 1, grad_part, &s);
    mz_threads_for(mz_threads_if_worth(stream, s.n_blocks * 2 * s.width), args->cols, COLUMN_GRAIN,
                   parameter_grad_part, &s);
    mz_cpu_scratch_give(stream, scratch);
    return MZ_OK;
}
