/* Layer norm and embedding. */
#include <math.h>

#include "tests/kernels/harness.h"

typedef struct extent {
    int64_t rows, cols;
} extent;

static const extent extents[] = {{1, 1}, {3, 7}, {1, 768}, {33, 64}, {70, 100}, {5, 1025}, {0, 16}};
enum { N_EXTENTS = sizeof extents / sizeof *extents };

/* Rows of whole vectors, and more rows than a GPU works on at once. */
static const extent vector_extents[] = {{37, 768}, {5, 1600}, {9, 1280},  {3, 2048},
                                        {2, 4096}, {7, 8},    {3300, 64}, {1100, 1600}};
enum { N_VECTOR_EXTENTS = sizeof vector_extents / sizeof *vector_extents };

static bool is_large(extent e)
{
    return e.rows * e.cols > 100000;
}

static void layer_norm_case(harness *h, extent e, mz_dtype dtype, bool residual, bool keep)
{
    int64_t n = e.rows * e.cols;
    begin_case(h, "rows=%ld cols=%ld %s residual=%d keep=%d", (long)e.rows, (long)e.cols, mz_dtype_name(dtype),
               residual, keep);
    buffer *x = random_buffer(h, dtype, n, -2, 3), *weight = random_buffer(h, dtype, e.cols, 0.5, 1.5);
    buffer *bias = random_buffer(h, dtype, e.cols, -1, 1), *y = output_buffer(h, dtype, n);
    buffer *r = residual ? random_buffer(h, dtype, n, -1, 1) : NULL,
           *sum = residual ? output_buffer(h, dtype, n) : NULL;
    buffer *mean = keep ? output_buffer(h, MZ_F32, e.rows) : NULL,
           *rstd = keep ? output_buffer(h, MZ_F32, e.rows) : NULL;
    for (int side = 0; side < N_SIDES; side++) {
        mz_layer_norm_args args = {
            .rows = e.rows,
            .cols = e.cols,
            .eps = 1e-5f,
            .x = at(x, side),
            .residual = at(r, side),
            .weight = at(weight, side),
            .bias = at(bias, side),
            .sum = at(sum, side),
            .y = at(y, side),
            .mean = at(mean, side),
            .rstd = at(rstd, side),
            .dtype = dtype,
        };
        launched(h, h->kernels[side]->layer_norm(&args, h->streams[side]));
    }
    /* A row of one element is all rounding: rstd is 1/sqrt(eps). */
    double absolute = 4e-6 + (residual ? 4.0 * unit(dtype) : 0.0) + (e.cols == 1 ? 2e-4 : 0.0);
    compare(h, y, "y", 4.0 * unit(dtype), absolute);
    if (sum)
        compare(h, sum, "sum", 2.1 * unit(dtype), 0);
    if (mean)
        compare(h, mean, "mean", 2e-6, residual ? unit(dtype) : 1e-6);
    if (rstd)
        compare(h, rstd, "rstd", residual ? 2.0 * unit(dtype) + 2e-6 : 2e-6, 0);
    end_case(h);
}

static void layer_norm_grad_case(harness *h, extent e, mz_dtype dtype, mz_dtype dtype_grad, int flags)
{
    int64_t n = e.rows * e.cols;
    bool accumulate_weight = flags & 1, accumulate_bias = flags & 2, residual = flags & 4, in_place = flags & 8;
    begin_case(h, "rows=%ld cols=%ld %s grad %s flags=%d", (long)e.rows, (long)e.cols, mz_dtype_name(dtype),
               mz_dtype_name(dtype_grad), flags);
    buffer *dy = random_buffer(h, dtype, n, -1, 1), *x = random_buffer(h, dtype, n, -2, 3);
    buffer *weight = random_buffer(h, dtype, e.cols, 0.5, 1.5);
    buffer *mean = random_buffer(h, MZ_F32, e.rows, 0.2, 0.6), *rstd = random_buffer(h, MZ_F32, e.rows, 0.5, 0.9);
    buffer *dresidual = residual || in_place ? random_buffer(h, dtype, n, -1, 1) : NULL;
    buffer *dx = in_place ? dresidual : output_buffer(h, dtype, n);
    buffer *dweight =
        accumulate_weight ? random_buffer(h, dtype_grad, e.cols, -1, 1) : output_buffer(h, dtype_grad, e.cols);
    buffer *dbias =
        accumulate_bias ? random_buffer(h, dtype_grad, e.cols, -1, 1) : output_buffer(h, dtype_grad, e.cols);
    for (int side = 0; side < N_SIDES; side++) {
        mz_layer_norm_grad_args args = {
            .rows = e.rows,
            .cols = e.cols,
            .dy = at(dy, side),
            .x = at(x, side),
            .weight = at(weight, side),
            .dresidual = at(dresidual, side),
            .mean = at(mean, side),
            .rstd = at(rstd, side),
            .dx = at(dx, side),
            .dweight = at(dweight, side),
            .dbias = at(dbias, side),
            .accumulate_dweight = accumulate_weight,
            .accumulate_dbias = accumulate_bias,
            .dtype = dtype,
            .dtype_grad = dtype_grad,
        };
        launched(h, h->kernels[side]->layer_norm_grad(&args, h->streams[side]));
    }
    double sums = unit(MZ_F32) * 3.0 * (double)(e.rows + 8);
    compare(h, dx, "dx", 2.1 * unit(dtype), 4e-6);
    compare(h, dweight, "dweight", 2.1 * unit(dtype_grad), sums);
    compare(h, dbias, "dbias", 2.1 * unit(dtype_grad), sums);
    end_case(h);
}

void test_layer_norm(harness *h)
{
    begin_slot(h, "layer_norm");
    for (int d = 0; d < N_STORAGE_DTYPES; d++)
        for (int i = 0; i < N_EXTENTS; i++)
            for (int flags = 0; flags < 4; flags++)
                layer_norm_case(h, extents[i], storage_dtypes[d], flags & 1, flags & 2);
    h->aligned = true;
    for (int d = 0; d < N_STORAGE_DTYPES; d++)
        for (int i = 0; i < N_VECTOR_EXTENTS; i++)
            for (int flags = is_large(vector_extents[i]) ? 3 : 0; flags < 4; flags++)
                layer_norm_case(h, vector_extents[i], storage_dtypes[d], flags & 1, flags & 2);
    h->aligned = false;
    end_slot(h);
    begin_slot(h, "layer_norm_grad");
    for (int d = 0; d < N_STORAGE_DTYPES; d++)
        for (int i = 0; i < N_EXTENTS; i++)
            for (int flags = 0; flags < 16; flags++)
                layer_norm_grad_case(h, extents[i], storage_dtypes[d], flags % 3 ? storage_dtypes[d] : MZ_F32,
                                     flags);
    h->aligned = true;
    for (int d = 0; d < N_STORAGE_DTYPES; d++)
        for (int i = 0; i < N_VECTOR_EXTENTS; i++)
            for (int flags = is_large(vector_extents[i]) ? 15 : 0; flags < 16; flags++)
                layer_norm_grad_case(h, vector_extents[i], storage_dtypes[d],
                                     flags % 3 ? storage_dtypes[d] : MZ_F32, flags);
    h->aligned = false;
    end_slot(h);
}

enum { VOCAB = 300, PERIOD = 5, OFFSET = 2, N_POSITIONS = 9, N_IDS_MAX = 3000 };

static buffer *random_ids(harness *h, int64_t n, int64_t below)
{
    int32_t ids[N_IDS_MAX];
    for (int64_t i = 0; i < n; i++)
        ids[i] = (int32_t)(i % 3 ? random_below(h, below) : random_below(h, 5)); /* some are frequent */
    return data_buffer(h, ids, (size_t)n * sizeof *ids);
}

/* positions: 0 none, 1 by period, 2 by ids. */
static void embedding_case(harness *h, int64_t n, int64_t cols, mz_dtype dtype, int positions)
{
    begin_case(h, "n=%ld cols=%ld %s positions=%d", (long)n, (long)cols, mz_dtype_name(dtype), positions);
    buffer *ids = random_ids(h, n, VOCAB), *position_ids = positions == 2 ? random_ids(h, n, N_POSITIONS) : NULL;
    buffer *table = random_buffer(h, dtype, VOCAB * cols, -1, 1), *y = output_buffer(h, dtype, n * cols);
    buffer *places = positions ? random_buffer(h, dtype, N_POSITIONS * cols, -1, 1) : NULL;
    for (int side = 0; side < N_SIDES; side++) {
        mz_embedding_args args = {
            .n = n,
            .cols = cols,
            .vocab = VOCAB,
            .ids = at(ids, side),
            .table = at(table, side),
            .position_ids = at(position_ids, side),
            .period = PERIOD,
            .position_offset = OFFSET,
            .positions = at(places, side),
            .y = at(y, side),
            .dtype = dtype,
        };
        launched(h, h->kernels[side]->embedding(&args, h->streams[side]));
    }
    compare(h, y, "y", positions ? 2.1 * unit(dtype) : 0.0, 0);
    end_case(h);
}

static void embedding_grad_case(harness *h, int64_t n, int64_t cols, mz_dtype dtype, int flags)
{
    bool with_table = flags != 0, with_positions = flags & 1, accumulate_table = flags & 2;
    bool accumulate_positions = flags & 4, by_ids = flags & 8;
    mz_dtype dtype_grad = flags & 2 ? dtype : MZ_F32;
    begin_case(h, "n=%ld cols=%ld %s grad %s flags=%d", (long)n, (long)cols, mz_dtype_name(dtype),
               mz_dtype_name(dtype_grad), flags);
    buffer *ids = random_ids(h, n, VOCAB), *position_ids = by_ids ? random_ids(h, n, N_POSITIONS) : NULL;
    buffer *dy = random_buffer(h, dtype, n * cols, -1, 1), *dtable = NULL, *dpositions = NULL;
    if (with_table)
        dtable = accumulate_table ? random_buffer(h, dtype_grad, VOCAB * cols, -1, 1)
                                  : output_buffer(h, dtype_grad, VOCAB * cols);
    if (with_positions)
        dpositions = accumulate_positions ? random_buffer(h, dtype_grad, N_POSITIONS * cols, -1, 1)
                                          : output_buffer(h, dtype_grad, N_POSITIONS * cols);
    for (int side = 0; side < N_SIDES; side++) {
        mz_embedding_grad_args args = {
            .n = n,
            .cols = cols,
            .vocab = VOCAB,
            .n_positions = N_POSITIONS,
            .ids = at(ids, side),
            .position_ids = at(position_ids, side),
            .period = PERIOD,
            .position_offset = OFFSET,
            .dy = at(dy, side),
            .dtable = at(dtable, side),
            .dpositions = at(dpositions, side),
            .accumulate_dtable = accumulate_table,
            .accumulate_dpositions = accumulate_positions,
            .dtype = dtype,
            .dtype_grad = dtype_grad,
        };
        launched(h, h->kernels[side]->embedding_grad(&args, h->streams[side]));
    }
    double sums = unit(MZ_F32) * (double)(n + 8);
    if (dtable)
        compare(h, dtable, "dtable", 2.1 * unit(dtype_grad), sums);
    if (dpositions)
        compare(h, dpositions, "dpositions", 2.1 * unit(dtype_grad), sums);
    end_case(h);
}

void test_embedding(harness *h)
{
    static const extent sizes[] = {{1, 1}, {7, 3}, {100, 33}, {40, 64}, {0, 8}, {40, 64}, {2500, 768}, {3000, 24}};
    enum { N_SIZES = sizeof sizes / sizeof *sizes, FIRST_ALIGNED = 5 };
    begin_slot(h, "embedding");
    for (int d = 0; d < N_STORAGE_DTYPES; d++)
        for (int i = 0; i < N_SIZES; i++)
            for (int positions = 0; positions < 3; positions++) {
                h->aligned = i >= FIRST_ALIGNED;
                embedding_case(h, sizes[i].rows, sizes[i].cols, storage_dtypes[d], positions);
            }
    end_slot(h);
    begin_slot(h, "embedding_grad");
    for (int d = 0; d < N_STORAGE_DTYPES; d++)
        for (int i = 0; i < N_SIZES; i++)
            for (int flags = is_large(sizes[i]) ? 12 : 0; flags < 16; flags++) {
                h->aligned = i >= FIRST_ALIGNED;
                embedding_grad_case(h, sizes[i].rows, sizes[i].cols, storage_dtypes[d], flags);
            }
    h->aligned = false;
    end_slot(h);
}
