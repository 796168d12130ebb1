/* Activations, add, mul, dropout, cast. */
#include <math.h>

#include "tests/kernels/harness.h"

static const int64_t sizes[] = {0, 1, 3, 16, 17, 64, 255, 1000, 4099};
enum { N_SIZES = sizeof sizes / sizeof *sizes };

/* in_place: the output is the first input. */
static void activation_case(harness *h, int64_t n, mz_dtype dtype, mz_activation activation, bool in_place)
{
    begin_case(h, "n=%ld %s activation=%d in_place=%d", (long)n, mz_dtype_name(dtype), activation, in_place);
    buffer *x = random_buffer(h, dtype, n, -6, 6);
    if (n > 16) { /* where formulas overflow if they are careless */
        set_element(h, x, 3, 60000.0f);
        set_element(h, x, 5, -60000.0f);
        set_element(h, x, 6, 0.0f);
        set_element(h, x, 11, -30.0f);
    }
    buffer *y = in_place ? x : output_buffer(h, dtype, n);
    for (int side = 0; side < N_SIDES; side++) {
        mz_activation_args args = {
            .n = n, .activation = activation, .x = at(x, side), .y = at(y, side), .dtype = dtype};
        launched(h, h->kernels[side]->activation(&args, h->streams[side]));
    }
    compare(h, y, "y", 2.1 * unit(dtype) + 1e-6, 4e-6);
    end_case(h);
}

static void activation_grad_case(harness *h, int64_t n, mz_dtype dtype, mz_activation activation, bool in_place)
{
    begin_case(h, "n=%ld %s activation=%d in_place=%d", (long)n, mz_dtype_name(dtype), activation, in_place);
    buffer *x = random_buffer(h, dtype, n, -6, 6), *dy = random_buffer(h, dtype, n, -2, 2);
    if (n > 16) {
        set_element(h, x, 3, 60000.0f);
        set_element(h, x, 5, -60000.0f);
        set_element(h, x, 6, 0.0f);
        set_element(h, x, 11, -30.0f);
    }
    buffer *dx = in_place ? dy : output_buffer(h, dtype, n);
    for (int side = 0; side < N_SIDES; side++) {
        mz_activation_grad_args args = {.n = n,
                                        .activation = activation,
                                        .dy = at(dy, side),
                                        .x = at(x, side),
                                        .dx = at(dx, side),
                                        .dtype = dtype};
        launched(h, h->kernels[side]->activation_grad(&args, h->streams[side]));
    }
    compare(h, dx, "dx", 2.1 * unit(dtype) + 1e-6, 8e-6);
    end_case(h);
}

void test_activation(harness *h)
{
    for (int backward = 0; backward < 2; backward++) {
        begin_slot(h, backward ? "activation_grad" : "activation");
        for (int d = 0; d < N_STORAGE_DTYPES; d++)
            for (int i = 0; i < N_SIZES; i++)
                for (int a = 0; a < 2 * MZ_N_ACTIVATIONS; a++) {
                    mz_activation activation = (mz_activation)(a / 2);
                    if (backward)
                        activation_grad_case(h, sizes[i], storage_dtypes[d], activation, a % 2);
                    else
                        activation_case(h, sizes[i], storage_dtypes[d], activation, a % 2);
                }
        end_slot(h);
    }
}

/* output: 0 apart, 1 is a, 2 is b. */
static void add_case(harness *h, int64_t n, mz_dtype dtype, bool two, int output)
{
    begin_case(h, "n=%ld %s two=%d output=%d", (long)n, mz_dtype_name(dtype), two, output);
    buffer *a = random_buffer(h, dtype, n, -2, 2), *b = two ? random_buffer(h, dtype, n, -2, 2) : NULL;
    buffer *y = output == 0 ? output_buffer(h, dtype, n) : output == 1 || !two ? a : b;
    for (int side = 0; side < N_SIDES; side++) {
        mz_add_args args = {.n = n,
                            .alpha = 0.7f,
                            .beta = -1.3f,
                            .a = at(a, side),
                            .b = at(b, side),
                            .y = at(y, side),
                            .dtype = dtype};
        launched(h, h->kernels[side]->add(&args, h->streams[side]));
    }
    compare(h, y, "y", 2.1 * unit(dtype), 4.0 * unit(MZ_F32));
    end_case(h);
}

static void mul_case(harness *h, int64_t n, mz_dtype dtype, bool accumulate, int output)
{
    begin_case(h, "n=%ld %s accumulate=%d output=%d", (long)n, mz_dtype_name(dtype), accumulate, output);
    buffer *a = random_buffer(h, dtype, n, -2, 2), *b = random_buffer(h, dtype, n, -2, 2), *y = output == 1 ? a : b;
    if (output == 0)
        y = accumulate ? random_buffer(h, dtype, n, -2, 2) : output_buffer(h, dtype, n);
    for (int side = 0; side < N_SIDES; side++) {
        mz_mul_args args = {
            .n = n, .a = at(a, side), .b = at(b, side), .y = at(y, side), .accumulate = accumulate, .dtype = dtype};
        launched(h, h->kernels[side]->mul(&args, h->streams[side]));
    }
    compare(h, y, "y", 2.1 * unit(dtype), 4.0 * unit(MZ_F32));
    end_case(h);
}

static void dropout_case(harness *h, int64_t n, mz_dtype dtype, float p, bool residual, bool in_place)
{
    int64_t sample_elements = h->aligned ? 16 : 13; /* whole blocks of draws, or not */
    mz_rng_state rng = {.seed = 0xfeedfacecafeull, .step = ((uint64_t)1 << 33) + 5, .first_sample = 9};
    begin_case(h, "n=%ld %s p=%g residual=%d in_place=%d", (long)n, mz_dtype_name(dtype), (double)p, residual,
               in_place);
    buffer *x = random_buffer(h, dtype, n, -2, 2), *r = residual ? random_buffer(h, dtype, n, -2, 2) : NULL;
    buffer *y = in_place ? x : output_buffer(h, dtype, n), *state = data_buffer(h, &rng, sizeof rng);
    for (int side = 0; side < N_SIDES; side++) {
        mz_dropout_args args = {
            .n = n,
            .dropout = {.p = p,
                        .site = 4,
                        .sample_elements = sample_elements,
                        .state = p > 0.0f ? at(state, side) : NULL},
            .x = at(x, side),
            .residual = at(r, side),
            .y = at(y, side),
            .dtype = dtype,
        };
        launched(h, h->kernels[side]->dropout(&args, h->streams[side]));
    }
    compare(h, y, "y", 2.1 * unit(dtype), 8.0 * unit(MZ_F32));
    end_case(h);
}

static void cast_case(harness *h, int64_t n, mz_dtype from, mz_dtype to, int flags)
{
    bool accumulate = flags & 1, by_device = flags & 2, scaled = flags & 4;
    bool in_place = (flags & 8) && mz_dtype_size(from) == mz_dtype_size(to) && (from == to || !accumulate);
    float factor = 0.75f;
    begin_case(h, "n=%ld %s->%s flags=%d", (long)n, mz_dtype_name(from), mz_dtype_name(to), flags);
    buffer *src = random_buffer(h, from, n, -3, 3), *scale = data_buffer(h, &factor, sizeof factor);
    if (n > 16) {
        set_element(h, src, 2, INFINITY);
        set_element(h, src, 3, -INFINITY);
        set_element(h, src, 4, NAN);
        set_element(h, src, 5, -0.0f);
        set_element(h, src, 6, 1e30f);
        set_element(h, src, 7, 3e-6f); /* subnormal in f16 */
        set_element(h, src, 8, 65519.0f);
        set_element(h, src, 9, 65520.0f); /* rounds to infinity in f16 */
        set_element(h, src, 10, 3.4e38f);
    }
    buffer *dst = in_place ? src : accumulate ? random_buffer(h, to, n, -3, 3) : output_buffer(h, to, n);
    for (int side = 0; side < N_SIDES; side++) {
        mz_cast_args args = {.n = n,
                             .src = at(src, side),
                             .src_dtype = from,
                             .dst = at(dst, side),
                             .dst_dtype = to,
                             .scale = scaled ? 1.5f : 1.0f,
                             .scale_device = by_device ? at(scale, side) : NULL,
                             .accumulate = accumulate};
        launched(h, h->kernels[side]->cast(&args, h->streams[side]));
    }
    /* Only the sum may be rounded once (a fused multiply-add) or twice. */
    set_dtype(dst, to);
    compare(h, dst, "dst", accumulate ? 2.1 * unit(to) : 0.0, accumulate ? 4.0 * unit(MZ_F32) : 0.0);
    end_case(h);
}

void test_elementwise(harness *h)
{
    begin_slot(h, "add");
    for (int d = 0; d < N_STORAGE_DTYPES; d++)
        for (int i = 0; i < N_SIZES; i++)
            for (int output = 0; output < 6; output++)
                add_case(h, sizes[i], storage_dtypes[d], output % 2, output / 2);
    end_slot(h);
    begin_slot(h, "mul");
    for (int d = 0; d < N_STORAGE_DTYPES; d++)
        for (int i = 0; i < N_SIZES; i++)
            for (int output = 0; output < 6; output++)
                mul_case(h, sizes[i], storage_dtypes[d], output % 2, output / 2);
    end_slot(h);
    begin_slot(h, "dropout");
    static const float rates[] = {0.0f, 0.1f, 0.5f, 1.0f};
    for (int d = 0; d < N_STORAGE_DTYPES; d++)
        for (int i = 0; i < N_SIZES; i++)
            for (int flags = 0; flags < 16; flags++)
                for (int aligned = 0; aligned < 2; aligned++) {
                    h->aligned = aligned;
                    dropout_case(h, sizes[i], storage_dtypes[d], rates[flags / 4], flags & 1, flags & 2);
                }
    h->aligned = false;
    end_slot(h);
    begin_slot(h, "cast");
    for (int from = 0; from < N_STORAGE_DTYPES; from++)
        for (int to = 0; to < N_STORAGE_DTYPES; to++)
            for (int i = 0; i < N_SIZES; i++)
                for (int flags = 0; flags < 16; flags++)
                    cast_case(h, sizes[i], storage_dtypes[from], storage_dtypes[to], flags);
    end_slot(h);
}
