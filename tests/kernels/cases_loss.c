#include <math.h>

#include "tests/kernels/harness.h"

enum { IGNORED = -100, N_ROWS_MAX = 600 };

typedef struct extent {
    int64_t rows, vocab, ld;
} extent;

static void cross_entropy_case(harness *h, extent e, mz_dtype dtype, int flags)
{
    bool gradient = flags & 1, in_place = flags & 2, keep_rows = flags & 4, all_ignored = flags == 15;
    float loss_scale = 0.37f, grad_scale = dtype == MZ_F16 ? 128.0f : 2.5f, before = 1.25f;
    int32_t labels[N_ROWS_MAX];
    for (int64_t r = 0; r < e.rows; r++)
        labels[r] = all_ignored || random_below(h, 4) == 0 ? IGNORED : (int32_t)random_below(h, e.vocab);
    begin_case(h, "rows=%ld vocab=%ld ld=%ld %s flags=%d", (long)e.rows, (long)e.vocab, (long)e.ld,
               mz_dtype_name(dtype), flags);
    buffer *logits = random_buffer(h, dtype, e.rows * e.ld, -8, 8);
    buffer *label = data_buffer(h, labels, (size_t)e.rows * sizeof *labels);
    buffer *scale = data_buffer(h, &loss_scale, sizeof loss_scale),
           *weight = data_buffer(h, &grad_scale, sizeof grad_scale);
    buffer *loss = random_buffer(h, MZ_F32, 1, 0, 1),
           *row_loss = keep_rows ? output_buffer(h, MZ_F32, e.rows) : NULL;
    set_element(h, loss, 0, before);
    buffer *dlogits = !gradient ? NULL : in_place ? logits : output_buffer(h, dtype, e.rows * e.ld);
    for (int side = 0; side < N_SIDES; side++) {
        mz_cross_entropy_args args = {
            .rows = e.rows,
            .vocab = e.vocab,
            .ld = e.ld,
            .logits = at(logits, side),
            .labels = at(label, side),
            .ignore_index = IGNORED,
            .loss_scale = at(scale, side),
            .grad_scale = at(weight, side),
            .dlogits = at(dlogits, side),
            .loss = at(loss, side),
            .row_loss = at(row_loss, side),
            .dtype = dtype,
        };
        launched(h, h->kernels[side]->cross_entropy(&args, h->streams[side]));
    }
    compare(h, loss, "loss", 1e-6 * sqrt((double)e.rows + 1.0) + 4e-6, 0);
    if (row_loss)
        compare(h, row_loss, "row_loss", 2e-6, 4e-6);
    if (dlogits)
        compare(h, dlogits, "dlogits", 2.1 * unit(dtype) + 4e-6, 4e-7 * (double)grad_scale);
    end_case(h);
}

static void mse_case(harness *h, int64_t n, mz_dtype dtype, bool gradient)
{
    float loss_scale = 0.37f, grad_scale = 2.5f;
    begin_case(h, "n=%ld %s gradient=%d", (long)n, mz_dtype_name(dtype), gradient);
    buffer *x = random_buffer(h, dtype, n, -2, 2), *target = random_buffer(h, dtype, n, -2, 2);
    buffer *scale = data_buffer(h, &loss_scale, sizeof loss_scale),
           *weight = data_buffer(h, &grad_scale, sizeof grad_scale);
    buffer *loss = random_buffer(h, MZ_F32, 1, 0, 1), *dx = gradient ? output_buffer(h, dtype, n) : NULL;
    for (int side = 0; side < N_SIDES; side++) {
        mz_mse_args args = {.n = n,
                            .x = at(x, side),
                            .target = at(target, side),
                            .loss_scale = at(scale, side),
                            .grad_scale = at(weight, side),
                            .dx = at(dx, side),
                            .loss = at(loss, side),
                            .dtype = dtype};
        launched(h, h->kernels[side]->mse(&args, h->streams[side]));
    }
    compare(h, loss, "loss", 4e-6, 0);
    if (dx)
        compare(h, dx, "dx", 2.1 * unit(dtype), 8.0 * unit(MZ_F32));
    end_case(h);
}

void test_loss(harness *h)
{
    static const extent extents[] = {{1, 1, 1},      {3, 7, 7},       {33, 50, 64},
                                     {64, 257, 257}, {5, 1000, 1003}, {0, 8, 8}};
    begin_slot(h, "cross_entropy");
    for (int d = 0; d < N_STORAGE_DTYPES; d++)
        for (size_t i = 0; i < sizeof extents / sizeof *extents; i++)
            for (int flags = 0; flags < 16; flags++)
                cross_entropy_case(h, extents[i], storage_dtypes[d], flags);
    /* Rows of whole vectors: more than a GPU takes at once; GPT-2's; and such as no shared memory holds. */
    static const extent vector_extents[] = {
        {7, 257, 264}, {600, 520, 528}, {3, 8, 8}, {3, 50257, 50304}, {2, 130001, 130008}};
    h->aligned = true;
    for (int d = 0; d < N_STORAGE_DTYPES; d++)
        for (size_t i = 0; i < sizeof vector_extents / sizeof *vector_extents; i++)
            for (int flags = vector_extents[i].vocab < 10000 ? 0 : 5; flags < 16; flags += i < 3 ? 1 : 2)
                cross_entropy_case(h, vector_extents[i], storage_dtypes[d], flags);
    h->aligned = false;
    end_slot(h);
    static const int64_t sizes[] = {0, 1, 3, 17, 255, 4099};
    begin_slot(h, "mse");
    for (int d = 0; d < N_STORAGE_DTYPES; d++)
        for (int i = 0; i < 6; i++)
            for (int gradient = 0; gradient < 2; gradient++)
                mse_case(h, sizes[i], storage_dtypes[d], gradient);
    end_slot(h);
}
