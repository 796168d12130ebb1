#include "kernels/check.h"
#include "kernels/cpu/family.h"
#include "kernels/cpu/storage.h"

/* ---- sums over rows and columns of a matrix ---- */

typedef struct matrix_sum {
    const void *x;
    int64_t rows, cols, ld;
    void *out;
    mz_dtype dtype, dtype_out;
    bool accumulate;
} matrix_sum;

/* Sums are taken in blocks of rows, so that rounding grows with the block and the number of blocks only. */
enum { ROW_BLOCK = 32, COLUMN_GRAIN = 32 };

MZ_INLINE void sum_down(const matrix_sum *s, mz_dtype dtype, int64_t c, int64_t left)
{
    vf total = vf_set1(0.0f);
    for (int64_t begin = 0; begin < s->rows; begin += ROW_BLOCK) {
        const int64_t end = begin + ROW_BLOCK < s->rows ? begin + ROW_BLOCK : s->rows;
        vf sum = vf_set1(0.0f);
        for (int64_t r = begin; r < end; r++)
            sum += mz_load_n(s->x, dtype, r * s->ld + c, left);
        total += sum;
    }
    if (s->accumulate)
        total += mz_load_n(s->out, s->dtype_out, c, left);
    mz_store_n(s->out, s->dtype_out, c, total, left);
}

static void sum_down_part(void *arg, int64_t begin, int64_t end, int thread)
{
    const matrix_sum *s = arg;
    (void)thread;
    for (int64_t c = begin; c < end; c += VF_N)
        MZ_FOR_DTYPE(s->dtype, sum_down(s, D, c, end - c));
}

MZ_INLINE void sum_along(const matrix_sum *s, mz_dtype dtype, int64_t r)
{
    vf sum = vf_set1(0.0f);
    for (int64_t c = 0; c < s->cols; c += VF_N)
        sum += mz_load_n(s->x, dtype, r * s->ld + c, s->cols - c);
    float total = vf_sum(sum);
    if (s->accumulate)
        total += mz_load_f32(s->out, s->dtype_out, r);
    mz_store_f32(s->out, s->dtype_out, r, total);
}

static void sum_along_part(void *arg, int64_t begin, int64_t end, int thread)
{
    const matrix_sum *s = arg;
    (void)thread;
    for (int64_t r = begin; r < end; r++)
        MZ_FOR_DTYPE(s->dtype, sum_along(s, D, r));
}

void MZ_CPU(sum_columns)(mz_threads *threads, const void *x, mz_dtype dtype, int64_t rows, int64_t cols, int64_t ld,
                         void *out, mz_dtype dtype_out, bool accumulate)
{
    matrix_sum s = {x, rows, cols, ld, out, dtype, dtype_out, accumulate};
    mz_threads_for(threads, cols, COLUMN_GRAIN, sum_down_part, &s);
}

void MZ_CPU(sum_rows)(mz_threads *threads, const void *x, mz_dtype dtype, int64_t rows, int64_t cols, int64_t ld,
                      void *out, mz_dtype dtype_out, bool accumulate)
{
    matrix_sum s = {x, rows, cols, ld, out, dtype, dtype_out, accumulate};
    mz_threads_for(threads, rows, COLUMN_GRAIN, sum_along_part, &s);
}

mz_status MZ_CPU(column_sum)(const mz_column_sum_args *a, mz_stream *stream)
{
    mz_status status = mz_check_column_sum(a);
    if (!status && a->rows > 0)
        MZ_CPU(sum_columns)
    (mz_threads_if_worth(stream, a->rows * a->cols), a->x, a->dtype, a->rows, a->cols, a->cols, a->out,
     a->dtype_out, a->accumulate);
    return status;
}

/* ---- sums to one number: of at most N_PARTS parts, cut by n alone and added in order ---- */

enum { N_PARTS = 256, PART_GRAIN = 4096 };

typedef float vf_half __attribute__((vector_size(2 * VF_N)));
typedef double vd __attribute__((vector_size(4 * VF_N)));

/* sum += v * v in fp64. */
MZ_INLINE void add_squares(vf v, vd sum[2])
{
    vf_half half[2];
    memcpy(half, &v, sizeof v);
    for (int i = 0; i < 2; i++) {
        const vd x = __builtin_convertvector(half[i], vd);
        sum[i] += x * x;
    }
}

MZ_INLINE double total_of(const vd sum[2])
{
    double total = 0.0;
    const vd both = sum[0] + sum[1];
    for (int i = 0; i < VF_N / 2; i++)
        total += both[i];
    return total;
}

static int64_t part_size(int64_t n)
{
    const int64_t size = (n + N_PARTS - 1) / N_PARTS;
    return (size + PART_GRAIN - 1) / PART_GRAIN * PART_GRAIN;
}

typedef struct squares {
    const mz_sum_squares_args *args;
    int64_t size; /* of a part */
    double sum[N_PARTS];
    uint64_t nonfinite[N_PARTS];
} squares;

MZ_INLINE void sum_squares_of(squares *s, mz_dtype dtype, int64_t part)
{
    const mz_sum_squares_args *a = s->args;
    const int64_t begin = part * s->size, end = begin + s->size < a->n ? begin + s->size : a->n;
    const vf largest = vf_set1(3.40282347e+38f);
    vd sum[2] = {{0}, {0}};
    int64_t finite = 0;
    for (int64_t i = begin; i < end; i += VF_N) {
        const vf x = mz_load_n(a->x, dtype, i, end - i);
        const vf magnitude = (vf)((vu)x & 0x7fffffffu);
        finite += vm_count(vf_le(magnitude, largest));
        add_squares(x, sum);
    }
    /* Lanes beyond the end are 0, hence finite. */
    s->nonfinite[part] = (uint64_t)((end - begin + VF_N - 1) / VF_N * VF_N - finite);
    s->sum[part] = total_of(sum);
}

static void sum_squares_part(void *arg, int64_t begin, int64_t end, int thread)
{
    squares *s = arg;
    (void)thread;
    for (int64_t part = begin; part < end; part++)
        MZ_FOR_DTYPE(s->args->dtype, sum_squares_of(s, D, part));
}

mz_status MZ_CPU(sum_squares)(const mz_sum_squares_args *a, mz_stream *stream)
{
    mz_status status = mz_check_sum_squares(a);
    if (status || a->n == 0)
        return status;
    squares s = {.args = a, .size = part_size(a->n)};
    const int64_t n_parts = (a->n + s.size - 1) / s.size;
    mz_threads_for(mz_threads_if_worth(stream, a->n), n_parts, 1, sum_squares_part, &s);
    double sum = 0.0;
    for (int64_t i = 0; i < n_parts; i++) {
        sum += s.sum[i];
        *a->nonfinite += s.nonfinite[i];
    }
    *a->sum += sum * (double)a->scale * (double)a->scale;
    return MZ_OK;
}

typedef struct differences {
    const mz_mse_args *args;
    int64_t size;
    double sum[N_PARTS];
} differences;

MZ_INLINE void mse_of(differences *s, mz_dtype dtype, int64_t part)
{
    const mz_mse_args *a = s->args;
    const int64_t begin = part * s->size, end = begin + s->size < a->n ? begin + s->size : a->n;
    const float factor = a->dx ? 2.0f * *a->grad_scale : 0.0f;
    vd sum[2] = {{0}, {0}};
    for (int64_t i = begin; i < end; i += VF_N) {
        const vf d = mz_load_n(a->x, dtype, i, end - i) - mz_load_n(a->target, dtype, i, end - i);
        add_squares(d, sum);
        if (a->dx)
            mz_store_n(a->dx, dtype, i, d * factor, end - i);
    }
    s->sum[part] = total_of(sum);
}

static void mse_part(void *arg, int64_t begin, int64_t end, int thread)
{
    differences *s = arg;
    (void)thread;
    for (int64_t part = begin; part < end; part++)
        MZ_FOR_DTYPE(s->args->dtype, mse_of(s, D, part));
}

mz_status MZ_CPU(mse)(const mz_mse_args *a, mz_stream *stream)
{
    mz_status status = mz_check_mse(a);
    if (status || a->n == 0)
        return status;
    differences s = {.args = a, .size = part_size(a->n)};
    const int64_t n_parts = (a->n + s.size - 1) / s.size;
    mz_threads_for(mz_threads_if_worth(stream, a->n), n_parts, 1, mse_part, &s);
    double sum = 0.0;
    for (int64_t i = 0; i < n_parts; i++)
        sum += s.sum[i];
    *a->loss += (float)(sum * (double)*a->loss_scale);
    return MZ_OK;
}
