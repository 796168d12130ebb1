/* Column sums, sums of squares, and the sum of several sources. */
#include <math.h>

#include "tests/kernels/harness.h"

static const int64_t sizes[] = {0, 1, 3, 17, 64, 255, 1000, 4099, 40000};
enum { N_SIZES = sizeof sizes / sizeof *sizes, N_SOURCES_MAX = 5 };

static void column_sum_case(harness *h, int64_t rows, int64_t cols, mz_dtype dtype, mz_dtype dtype_out,
                            bool accumulate)
{
    begin_case(h, "rows=%ld cols=%ld %s->%s accumulate=%d", (long)rows, (long)cols, mz_dtype_name(dtype),
               mz_dtype_name(dtype_out), accumulate);
    buffer *x = random_buffer(h, dtype, rows * cols, -1, 1);
    buffer *out = accumulate ? random_buffer(h, dtype_out, cols, -1, 1) : output_buffer(h, dtype_out, cols);
    for (int side = 0; side < N_SIDES; side++) {
        mz_column_sum_args args = {.rows = rows,
                                   .cols = cols,
                                   .x = at(x, side),
                                   .dtype = dtype,
                                   .out = at(out, side),
                                   .dtype_out = dtype_out,
                                   .accumulate = accumulate};
        launched(h, h->kernels[side]->column_sum(&args, h->streams[side]));
    }
    compare(h, out, "out", 2.1 * unit(dtype_out), unit(MZ_F32) * (double)(rows + 8));
    end_case(h);
}

static void sum_squares_case(harness *h, int64_t n, mz_dtype dtype, bool nonfinite)
{
    double before = 0.5;
    uint64_t count = 3;
    begin_case(h, "n=%ld %s nonfinite=%d", (long)n, mz_dtype_name(dtype), nonfinite);
    buffer *x = random_buffer(h, dtype, n, -3, 3);
    if (nonfinite && n > 8) {
        set_element(h, x, 1, INFINITY);
        set_element(h, x, n - 1, -INFINITY);
        set_element(h, x, n / 2, INFINITY);
    }
    buffer *sum = data_buffer(h, &before, sizeof before), *bad = data_buffer(h, &count, sizeof count);
    for (int side = 0; side < N_SIDES; side++) {
        mz_sum_squares_args args = {.n = n,
                                    .x = at(x, side),
                                    .dtype = dtype,
                                    .scale = 0.7f,
                                    .sum = at(sum, side),
                                    .nonfinite = at(bad, side)};
        launched(h, h->kernels[side]->sum_squares(&args, h->streams[side]));
    }
    compare_f64(h, sum, "sum", 2e-7);
    compare_bytes(h, bad, "nonfinite");
    end_case(h);
}

static void clip_case(harness *h, double sum_squares, double unscale, double clip)
{
    begin_case(h, "sum_squares=%g unscale=%g clip=%g", sum_squares, unscale, clip);
    buffer *sum = data_buffer(h, &sum_squares, sizeof sum_squares), *scale = output_buffer(h, MZ_F32, 1);
    for (int side = 0; side < N_SIDES; side++) {
        mz_clip_args args = {
            .unscale = unscale, .clip = clip, .sum_squares = at(sum, side), .scale = at(scale, side)};
        launched(h, h->kernels[side]->clip(&args, h->streams[side]));
    }
    compare(h, scale, "scale", 0, 0);
    end_case(h);
}

/* in_place: the destination is the last source. The sum's bits are part of the definition. */
static void sum_case(harness *h, int64_t n, int n_sources, mz_dtype dtype, mz_dtype dst_dtype, bool in_place)
{
    begin_case(h, "n=%ld sources=%d %s->%s in_place=%d", (long)n, n_sources, mz_dtype_name(dtype),
               mz_dtype_name(dst_dtype), in_place);
    buffer *sources[N_SOURCES_MAX];
    for (int s = 0; s < n_sources; s++)
        sources[s] = random_buffer(h, dtype, n, -3, 3);
    buffer *dst = in_place ? sources[n_sources - 1] : output_buffer(h, dst_dtype, n);
    for (int side = 0; side < N_SIDES; side++) {
        const void *pointers[N_SOURCES_MAX];
        for (int s = 0; s < n_sources; s++)
            pointers[s] = at(sources[s], side);
        mz_sum_args args = {.n = n,
                            .n_sources = n_sources,
                            .sources = pointers,
                            .dtype = dtype,
                            .dst = at(dst, side),
                            .dst_dtype = dst_dtype,
                            .scale = 1.0f / (float)n_sources};
        launched(h, h->kernels[side]->sum(&args, h->streams[side]));
    }
    compare(h, dst, "dst", 0, 0);
    end_case(h);
}

void test_reduce(harness *h)
{
    static const int64_t extents[][2] = {{1, 1}, {3, 7}, {100, 65}, {257, 33}, {1000, 3}, {0, 5}};
    begin_slot(h, "column_sum");
    for (int d = 0; d < N_STORAGE_DTYPES; d++)
        for (int i = 0; i < 6; i++)
            for (int flags = 0; flags < 4; flags++)
                column_sum_case(h, extents[i][0], extents[i][1], storage_dtypes[d],
                                flags & 1 ? MZ_F32 : storage_dtypes[d], flags & 2);
    static const int64_t vector_extents[][2] = {{1000, 768}, {5, 8}, {130, 2312}, {8000, 16}, {64, 264}};
    h->aligned = true;
    for (int d = 0; d < N_STORAGE_DTYPES; d++)
        for (int i = 0; i < 5; i++)
            for (int flags = 0; flags < 4; flags++)
                column_sum_case(h, vector_extents[i][0], vector_extents[i][1], storage_dtypes[d],
                                flags & 1 ? MZ_F32 : storage_dtypes[d], flags & 2);
    h->aligned = false;
    end_slot(h);
    begin_slot(h, "sum_squares");
    for (int d = 0; d < N_STORAGE_DTYPES; d++)
        for (int i = 0; i < N_SIZES; i++)
            for (int nonfinite = 0; nonfinite < 2; nonfinite++)
                sum_squares_case(h, sizes[i], storage_dtypes[d], nonfinite);
    end_slot(h);
    static const double sums[] = {0, 1e-30, 0.25, 3, 4, 1e7 / 3, 1e300, INFINITY, NAN};
    static const double unscales[] = {1, 1.0 / 65536, 3, 1.0 / 3};
    static const double clips[] = {0, 1, 0.1, 1e9};
    begin_slot(h, "clip");
    for (size_t s = 0; s < sizeof sums / sizeof *sums; s++)
        for (int u = 0; u < 4; u++)
            for (int c = 0; c < 4; c++)
                clip_case(h, sums[s], unscales[u], clips[c]);
    end_slot(h);
    begin_slot(h, "sum");
    for (int d = 0; d < N_STORAGE_DTYPES; d++)
        for (int to = 0; to < N_STORAGE_DTYPES; to++)
            for (int i = 0; i < N_SIZES; i++)
                for (int n_sources = 1; n_sources <= N_SOURCES_MAX; n_sources += 2)
                    for (int in_place = 0; in_place <= (d == to); in_place++)
                        sum_case(h, sizes[i], n_sources, storage_dtypes[d], storage_dtypes[to], in_place);
    end_slot(h);
}
