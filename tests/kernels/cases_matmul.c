#include <math.h>
#include <string.h>

#include "tests/kernels/harness.h"

typedef struct shape {
    int64_t m, n, k, batch;
} shape;

typedef struct options {
    bool trans_a, trans_b, accumulate, accumulate_bias_grad, keep_aux, with_bias, padded;
    bool tf32; /* operands rounded to 11 bits */
    mz_dtype dtype, dtype_c;
    mz_epilogue epilogue;
    mz_activation activation;
    float alpha;
} options;

/* Allowed: the rounding of the store, and fp32 sums of k products of numbers within 1. An activation is allowed to
 * be that of the stored pre-activation. */
static void one_case(harness *h, shape s, options o)
{
    int64_t pad = o.padded ? 3 : 0;
    int64_t lda = (o.trans_a ? s.m : s.k) + pad, ldb = (o.trans_b ? s.k : s.n) + pad, ldc = s.n + pad;
    int64_t size_a = (o.trans_a ? s.k : s.m) * lda + pad, size_b = (o.trans_b ? s.n : s.k) * ldb + pad;
    int64_t size_c = s.m * ldc + pad;
    bool of_a = o.epilogue == MZ_EPI_BGRAD_A, bias_grad = of_a || o.epilogue == MZ_EPI_BGRAD_B;
    bool aux = o.epilogue == MZ_EPI_DACT || (o.epilogue == MZ_EPI_ACT && o.keep_aux);
    int64_t n_bias_grad = of_a ? s.m : s.n;

    begin_case(h,
               "m=%ld n=%ld k=%ld batch=%ld trans=%d%d %s->%s epilogue=%d activation=%d accumulate=%d%d padded=%d",
               (long)s.m, (long)s.n, (long)s.k, (long)s.batch, o.trans_a, o.trans_b, mz_dtype_name(o.dtype),
               mz_dtype_name(o.dtype_c), o.epilogue, o.activation, o.accumulate, o.accumulate_bias_grad, o.padded);
    buffer *a = random_buffer(h, o.dtype, size_a * s.batch, -1, 1);
    buffer *b = random_buffer(h, o.dtype, size_b * s.batch, -1, 1);
    /* Between the rows of a padded C stand numbers that must stay. */
    buffer *c = o.accumulate || o.padded ? random_buffer(h, o.dtype_c, size_c * s.batch, -1, 1)
                                         : output_buffer(h, o.dtype_c, size_c * s.batch);
    buffer *bias = o.with_bias ? random_buffer(h, o.dtype, s.n, -1, 1) : NULL;
    buffer *x = !aux                        ? NULL
                : o.epilogue == MZ_EPI_DACT ? random_buffer(h, o.dtype, s.m * s.n, -4, 4)
                                            : output_buffer(h, o.dtype, s.m * s.n);
    buffer *db = !bias_grad               ? NULL
                 : o.accumulate_bias_grad ? random_buffer(h, o.dtype_c, n_bias_grad, -1, 1)
                                          : output_buffer(h, o.dtype_c, n_bias_grad);
    for (int side = 0; side < N_SIDES; side++) {
        mz_matmul_args args = {
            .m = s.m,
            .n = s.n,
            .k = s.k,
            .batch = s.batch,
            .trans_a = o.trans_a,
            .trans_b = o.trans_b,
            .a = at(a, side),
            .b = at(b, side),
            .c = at(c, side),
            .lda = lda,
            .ldb = ldb,
            .ldc = ldc,
            .stride_a = size_a,
            .stride_b = size_b,
            .stride_c = size_c,
            .dtype = o.dtype,
            .dtype_c = o.dtype_c,
            .alpha = o.alpha,
            .accumulate = o.accumulate,
            .epilogue = o.epilogue,
            .activation = o.activation,
            .bias = at(bias, side),
            .aux = at(x, side),
            .bias_grad = at(db, side),
            .accumulate_bias_grad = o.accumulate_bias_grad,
        };
        launched(h, h->kernels[side]->matmul(&args, h->streams[side]));
    }
    double sums = unit(MZ_F32) * (double)(s.k + 8), absolute = sums;
    if (o.accumulate && o.dtype_c != MZ_F32 && strcmp(h->device->ops->name, "cpu") != 0)
        absolute += 2.0 * unit(o.dtype_c) * sqrt((double)s.k); /* GPUs round the product first */
    if (o.tf32)
        absolute += 0x1p-10 * sqrt((double)s.k);
    if (o.epilogue == MZ_EPI_ACT || o.epilogue == MZ_EPI_DACT)
        absolute += 2.0 * unit(o.dtype) + 4e-6 * sqrt((double)s.k + 1.0);
    compare(h, c, "C", 2.1 * unit(o.dtype_c), absolute);
    if (o.epilogue == MZ_EPI_ACT && x)
        compare(h, x, "aux", 2.1 * unit(o.dtype), sums);
    if (db)
        compare(h, db, "bias_grad", 2.1 * unit(o.dtype_c), sums);
    end_case(h);
}

static void each_epilogue(harness *h, shape s, options o)
{
    for (int activation = 0; activation < MZ_N_ACTIVATIONS; activation++) {
        o.activation = (mz_activation)activation;
        o.epilogue = MZ_EPI_ACT;
        o.keep_aux = activation % 2;
        o.with_bias = activation % 3 != 0;
        one_case(h, s, o);
        o.with_bias = false;
        o.epilogue = MZ_EPI_DACT;
        one_case(h, s, o);
    }
    o.activation = MZ_ACT_NONE;
    o.epilogue = MZ_EPI_BGRAD_A;
    one_case(h, s, o);
    o.epilogue = MZ_EPI_BGRAD_B;
    one_case(h, s, o);
    o.accumulate_bias_grad = true;
    one_case(h, s, o);
    o.epilogue = MZ_EPI_BGRAD_A;
    one_case(h, s, o);
    o.epilogue = MZ_EPI_BIAS;
    o.with_bias = true;
    one_case(h, s, o);
}

/* Sizes at which the CPU kernels cut k, rows and columns into blocks; the reference is slow, so a few. */
static void beyond_one_block(harness *h)
{
    static const shape shapes[] = {
        {50, 70, 2100, 1}, {300, 40, 600, 1}, {3, 200, 1100, 1}, {30, 1400, 40, 1}, {13, 37, 3301, 1}};
    for (int d = 0; d < N_STORAGE_DTYPES; d++)
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
            for (int trans = 0; trans < 4; trans++)
                one_case(h, shapes[i],
                         (options){.trans_a = trans & 1,
                                   .trans_b = trans & 2,
                                   .accumulate = (trans + i) % 2,
                                   .dtype = storage_dtypes[d],
                                   .dtype_c = i % 2 ? MZ_F32 : storage_dtypes[d],
                                   .alpha = 1.0f});
    for (int d = 0; d < N_STORAGE_DTYPES; d++)
        for (int accumulate = 0; accumulate < 2; accumulate++)
            each_epilogue(h, (shape){20, 39, 3300, 1},
                          (options){.trans_a = accumulate,
                                    .trans_b = d == 1,
                                    .accumulate = accumulate,
                                    .dtype = storage_dtypes[d],
                                    .dtype_c = accumulate ? storage_dtypes[d] : MZ_F32,
                                    .alpha = 1.0f});
    one_case(h, (shape){50, 2100, 3100, 1},
             (options){.trans_b = true, .dtype = MZ_BF16, .dtype_c = MZ_BF16, .alpha = 1.0f});
}

/* A GPU's library chooses among its algorithms by time where that pays, also where what is timed adds to C. */
static void worth_timing(harness *h)
{
    if (strcmp(h->device->ops->name, "cuda") != 0)
        return;
    for (int wide = 0; wide < 2; wide++)
        one_case(h, (shape){512, 1024, 2048, 1},
                 (options){.trans_b = true,
                           .accumulate = true,
                           .dtype = MZ_BF16,
                           .dtype_c = wide ? MZ_F32 : MZ_BF16,
                           .alpha = 1.0f});
}

/* fp32 with TF32 asked for: the same products, less exact; and exact again where it is not. */
static void less_exact(harness *h)
{
    static const shape shapes[] = {{64, 96, 512, 1}, {33, 65, 130, 1}, {128, 128, 1024, 2}};
    if (strcmp(h->device->ops->name, "cuda") != 0)
        return;
    for (int tf32 = 1; tf32 >= 0; tf32--)
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
            for (int trans = 0; trans < 4; trans++) {
                h->device->tf32 = tf32;
                one_case(h, shapes[i],
                         (options){.trans_a = trans & 1,
                                   .trans_b = trans & 2,
                                   .dtype = MZ_F32,
                                   .dtype_c = MZ_F32,
                                   .alpha = 1.0f,
                                   .tf32 = tf32});
            }
    h->device->tf32 = false;
}

/* What is computed beside the library's kernels: products of no columns, epilogues, gradients of biases. */
static void each_own_kernel(harness *h)
{
    for (int d = 0; d < N_STORAGE_DTYPES; d++)
        for (int wide = 0; wide < 2; wide++) {
            options o = {.trans_a = wide,
                         .trans_b = d == 1,
                         .accumulate = wide,
                         .padded = true,
                         .dtype = storage_dtypes[d],
                         .dtype_c = wide ? MZ_F32 : storage_dtypes[d],
                         .alpha = 1.0f};
            one_case(h, (shape){17, 33, 0, 2}, o);
            one_case(h, (shape){65, 31, 130, 1}, o);
            each_epilogue(h, (shape){65, 31, 130, 1}, o);
        }
}

void test_matmul(harness *h)
{
    static const shape shapes[] = {{1, 1, 1, 1},   {3, 5, 7, 1},    {17, 33, 1, 1},   {1, 64, 50, 1},
                                   {40, 1, 19, 1}, {64, 48, 32, 1}, {65, 31, 130, 1}, {5, 9, 11, 3},
                                   {16, 8, 24, 4}, {4, 6, 0, 1},    {0, 5, 5, 1},     {5, 0, 5, 1},
                                   {5, 5, 5, 0}};
    begin_slot(h, "matmul");
    if (h->quick) {
        each_own_kernel(h);
        end_slot(h);
        return;
    }
    for (int d = 0; d < N_STORAGE_DTYPES; d++)
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
            for (int flags = 0; flags < 32; flags++) {
                options o = {.trans_a = flags & 1,
                             .trans_b = flags & 2,
                             .accumulate = flags & 4,
                             .padded = flags & 16,
                             .dtype = storage_dtypes[d],
                             .alpha = flags & 4 ? 1.0f : 0.5f,
                             .dtype_c = flags & 8 ? MZ_F32 : storage_dtypes[d]};
                one_case(h, shapes[i], o);
                if (flags < 8 && (i == 1 || i == 5 || i == 6))
                    each_epilogue(h, shapes[i], o);
            }
    beyond_one_block(h);
    worth_timing(h);
    less_exact(h);
    end_slot(h);
}
