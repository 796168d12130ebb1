/* Arguments that do not fit, memory that runs out: one message, nothing left behind. */
#include "tests/core/cmocka_all.h"

#include <stdio.h>
#include <string.h>

#include "core/memory.h"
#include "tests/tensor/rig.h"

typedef struct things {
    rig r;
    mz_tensor *x23, *x32, *x25, *x2, *x236, *scalar, *half, *loss, *ids, *mask;
    mz_param w45, w35, b5, c5, b4, half_param, absent;
} things;

static mz_tensor *y, *z;

#define SHAPE(...) ((const int64_t[]){__VA_ARGS__})

/* ---- each of these must be refused ---- */

static mz_status linear_no_input(things *t)
{
    return mz_linear(t->r.tape, NULL, &t->w35, NULL, MZ_WEIGHT_IN_OUT, MZ_ACT_NONE, &y);
}

static mz_status linear_width(things *t)
{
    return mz_linear(t->r.tape, t->x23, &t->w45, NULL, MZ_WEIGHT_IN_OUT, MZ_ACT_NONE, &y);
}

static mz_status linear_layout(things *t)
{
    return mz_linear(t->r.tape, t->x23, &t->w35, NULL, MZ_WEIGHT_OUT_IN, MZ_ACT_NONE, &y);
}

static mz_status linear_bias(things *t)
{
    return mz_linear(t->r.tape, t->x23, &t->w35, &t->b4, MZ_WEIGHT_IN_OUT, MZ_ACT_NONE, &y);
}

static mz_status linear_dtype(things *t)
{
    return mz_linear(t->r.tape, t->half, &t->w35, NULL, MZ_WEIGHT_IN_OUT, MZ_ACT_NONE, &y);
}

static mz_status linear_param_dtype(things *t)
{
    return mz_linear(t->r.tape, t->x23, &t->half_param, NULL, MZ_WEIGHT_IN_OUT, MZ_ACT_NONE, &y);
}

static mz_status linear_param_absent(things *t)
{
    return mz_linear(t->r.tape, t->x23, &t->absent, NULL, MZ_WEIGHT_IN_OUT, MZ_ACT_NONE, &y);
}

static mz_status linear_activation(things *t)
{
    return mz_linear(t->r.tape, t->x23, &t->w35, NULL, MZ_WEIGHT_IN_OUT, MZ_N_ACTIVATIONS, &y);
}

static mz_status norm_width(things *t)
{
    return mz_layer_norm(t->r.tape, t->x23, NULL, &t->b5, &t->b5, 1e-5f, NULL, &y);
}

static mz_status norm_residual(things *t)
{
    return mz_layer_norm(t->r.tape, t->x23, t->x32, &t->b5, &t->b5, 1e-5f, &z, &y);
}

static mz_status norm_sum(things *t)
{
    return mz_layer_norm(t->r.tape, t->x23, NULL, &t->b5, &t->b5, 1e-5f, &z, &y);
}

static mz_status norm_weight_twice(things *t)
{
    return mz_layer_norm(t->r.tape, t->x25, NULL, &t->b5, &t->b5, 1e-5f, NULL, &y);
}

static mz_status embedding_table_twice(things *t)
{
    return mz_embedding(t->r.tape, t->ids, &t->w45, &t->w45, NULL, 0, &y);
}

static mz_status embedding_dtype(things *t)
{
    return mz_embedding(t->r.tape, t->x23, &t->w45, NULL, NULL, 0, &y);
}

static mz_status embedding_positions(things *t)
{
    return mz_embedding(t->r.tape, t->ids, &t->w45, &t->w35, NULL, 1, &y);
}

static mz_status embedding_width(things *t)
{
    return mz_embedding(t->r.tape, t->ids, &t->w45, &t->b5, NULL, 0, &y);
}

static mz_status attention_heads(things *t)
{
    const mz_attention_options options = {.heads = 3};
    return mz_attention_fused(t->r.tape, t->x236, &options, &y);
}

static mz_status attention_thirds(things *t)
{
    const mz_attention_options options = {.heads = 1};
    return mz_attention_fused(t->r.tape, t->x23, &options, &y);
}

static mz_status attention_mask(things *t)
{
    const mz_attention_options options = {.heads = 1, .key_mask = t->mask};
    return mz_attention_fused(t->r.tape, t->x236, &options, &y);
}

static mz_status attention_dropout(things *t)
{
    const mz_attention_options options = {.heads = 1, .dropout = 1.0f};
    return mz_attention_fused(t->r.tape, t->x236, &options, &y);
}

static mz_status attention_apart(things *t)
{
    const mz_attention_options options = {.heads = 1};
    return mz_attention(t->r.tape, t->x236, t->x23, t->x23, &options, &y);
}

static mz_status dropout_p(things *t)
{
    return mz_dropout_op(t->r.tape, t->x23, -0.1f, NULL, &y);
}

static mz_status add_shapes(things *t)
{
    return mz_add(t->r.tape, t->x23, t->x32, &y);
}

static mz_status add_none(things *t)
{
    return mz_add(t->r.tape, t->x23, NULL, &y);
}

static mz_status mul_dtypes(things *t)
{
    return mz_mul(t->r.tape, t->x23, t->half, &y);
}

static mz_status scale_of_loss(things *t)
{
    return mz_scale(t->r.tape, t->loss, 2.0f, &y);
}

static mz_status add_loss_to_other(things *t)
{
    return mz_add(t->r.tape, t->loss, t->scalar, &y);
}

static mz_status reshape_count(things *t)
{
    return mz_reshape(t->r.tape, t->x23, 2, SHAPE(4, -1), &y);
}

static mz_status reshape_twice_open(things *t)
{
    return mz_reshape(t->r.tape, t->x23, 2, SHAPE(-1, -1), &y);
}

static mz_status reshape_dims(things *t)
{
    return mz_reshape(t->r.tape, t->x23, 5, SHAPE(1, 1, 1, 2, 3), &y);
}

static mz_status cross_entropy_labels(things *t)
{
    return mz_cross_entropy(t->r.tape, t->x23, t->ids, -100, &y);
}

static mz_status fused_loss_labels(things *t)
{
    return mz_linear_cross_entropy(t->r.tape, t->x236, &t->w45, t->ids, -100, 1000, &y);
}

static mz_status mse_shapes(things *t)
{
    return mz_mse_loss(t->r.tape, t->x23, t->x2, &y);
}

static mz_status tensor_negative(things *t)
{
    return mz_tensor_create(t->r.tape, MZ_F32, 2, SHAPE(2, -1), &y);
}

static mz_status tensor_overflow(things *t)
{
    return mz_tensor_create(t->r.tape, MZ_F32, 3, SHAPE(INT64_C(1) << 40, INT64_C(1) << 40, 8), &y);
}

static const struct {
    mz_status (*call)(things *t);
    const char *words; /* in the message */
    mz_status code;
} refusals[] = {
    {linear_no_input, "linear", MZ_ERR_ARGUMENT},
    {linear_width, "linear: weight \"w45\": expected shape [3, -1] (-1: any), found [4, 5]", MZ_ERR_ARGUMENT},
    {linear_layout, "[-1, 3]", MZ_ERR_ARGUMENT},
    {linear_bias, "linear: bias \"b4\"", MZ_ERR_ARGUMENT},
    {linear_dtype, "f32, found bf16", MZ_ERR_ARGUMENT},
    {linear_param_dtype, "f32, found bf16", MZ_ERR_ARGUMENT},
    {linear_param_absent, "not in memory", MZ_ERR_INTERNAL},
    {linear_activation, "activation", MZ_ERR_ARGUMENT},
    {norm_width, "layer_norm: weight", MZ_ERR_ARGUMENT},
    {norm_residual, "found [2, 3] and [3, 2]", MZ_ERR_ARGUMENT},
    {norm_sum, "together", MZ_ERR_ARGUMENT},
    {norm_weight_twice, "\"b5\" is both weight and bias", MZ_ERR_ARGUMENT},
    {embedding_table_twice, "\"w45\" is both table and positions", MZ_ERR_ARGUMENT},
    {embedding_dtype, "embedding: ids", MZ_ERR_ARGUMENT},
    {embedding_positions, "positions 1 to 3 are wanted, but \"w35\" has 3", MZ_ERR_ARGUMENT},
    {embedding_width, "embedding: positions", MZ_ERR_ARGUMENT},
    {attention_heads, "cannot be split over 3 heads", MZ_ERR_ARGUMENT},
    {attention_thirds, "[B, T, 3 * D], found [2, 3]", MZ_ERR_ARGUMENT},
    {attention_mask, "key mask of [2, 3]", MZ_ERR_ARGUMENT},
    {attention_dropout, "dropout in [0, 1)", MZ_ERR_ARGUMENT},
    {attention_apart, "T_q", MZ_ERR_ARGUMENT},
    {dropout_p, "[0, 1)", MZ_ERR_ARGUMENT},
    {add_shapes, "add: expected equal shapes, found [2, 3] and [3, 2]", MZ_ERR_ARGUMENT},
    {add_none, "add", MZ_ERR_ARGUMENT},
    {mul_dtypes, "mul", MZ_ERR_ARGUMENT},
    {scale_of_loss, "loss", MZ_ERR_ARGUMENT},
    {add_loss_to_other, "loss", MZ_ERR_ARGUMENT},
    {reshape_count, "[2, 3] does not fit into [4, -1]", MZ_ERR_ARGUMENT},
    {reshape_twice_open, "reshape", MZ_ERR_ARGUMENT},
    {reshape_dims, "reshape", MZ_ERR_ARGUMENT},
    {cross_entropy_labels, "one label per row", MZ_ERR_ARGUMENT},
    {fused_loss_labels, "linear_cross_entropy", MZ_ERR_ARGUMENT},
    {mse_shapes, "mse_loss", MZ_ERR_ARGUMENT},
    {tensor_negative, "dimension 1 is -1", MZ_ERR_ARGUMENT},
    {tensor_overflow, "dimension 1", MZ_ERR_ARGUMENT},
};

static void open_things(things *t)
{
    static const int32_t ids[] = {0, 1, 3};
    static const uint8_t mask[] = {1, 1, 0};
    memset(t, 0, sizeof *t);
    rig_open(&t->r, "cpu", RIG_REFERENCE);
    t->x23 = rig_tensor(&t->r, 2, SHAPE(2, 3), 1);
    t->x32 = rig_tensor(&t->r, 2, SHAPE(3, 2), 2);
    t->x25 = rig_tensor(&t->r, 2, SHAPE(2, 5), 10);
    t->x2 = rig_tensor(&t->r, 1, SHAPE(2), 3);
    t->x236 = rig_tensor(&t->r, 3, SHAPE(2, 3, 6), 4);
    t->scalar = rig_tensor(&t->r, 0, NULL, 5);
    t->ids = rig_ids(&t->r, 2, SHAPE(1, 3), ids);
    rig_ok(mz_tensor_create(t->r.tape, MZ_BF16, 2, SHAPE(2, 3), &t->half), "half");
    rig_ok(mz_tensor_borrow(t->r.tape, MZ_U8, 2, SHAPE(1, 3), (void *)mask, &t->mask), "mask");
    rig_ok(mz_mse_loss(t->r.tape, t->x2, t->x2, &t->loss), "loss");
    rig_param(&t->w45, "w45", 2, 4, 5, 6);
    rig_param(&t->w35, "w35", 2, 3, 5, 7);
    rig_param(&t->b5, "b5", 1, 5, 0, 8);
    rig_param(&t->c5, "c5", 1, 5, 0, 11);
    rig_param(&t->b4, "b4", 1, 4, 0, 9);
    t->half_param = t->absent = t->w35;
    t->half_param.dtype = MZ_BF16;
    t->absent.data = NULL;
}

static void close_things(things *t)
{
    rig_param_free(&t->w45);
    rig_param_free(&t->w35);
    rig_param_free(&t->b5);
    rig_param_free(&t->c5);
    rig_param_free(&t->b4);
    rig_close(&t->r);
}

static void refused(void **state)
{
    things t;
    (void)state;
    open_things(&t);
    mz_tape_set_mode(t.r.tape, true, true);
    size_t used = mz_arena_used(t.r.arena);
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
        y = z = NULL;
        mz_status status = refusals[i].call(&t);
        if (status != refusals[i].code || !strstr(mz_last_error(), refusals[i].words))
            fail_msg("refusal %d: expected \"%s\", found %s: %s", (int)i, refusals[i].words, mz_status_text(status),
                     mz_last_error());
        assert_null(y);
        assert_null(z);
        assert_int_equal(mz_arena_used(t.r.arena), used);
        assert_int_equal(mz_tape_mark(t.r.tape), 0);
    }
    close_things(&t);
}

/* ---- memory ---- */

/* A little of everything, forward and backward. */
static mz_status some_work(things *t)
{
    mz_tape *tape = t->r.tape;
    const mz_attention_options options = {.heads = 2, .dropout = 0.1f};
    mz_tensor *h = NULL, *sum = NULL, *n = NULL, *o = NULL, *d = NULL, *v = NULL, *loss = NULL;
    mz_tensor_keep_grad(t->x236);
    mz_tape_set_mode(tape, true, true);
    mz_status status = mz_attention_fused(tape, t->x236, &options, &o);
    if (status == MZ_OK)
        status = mz_dropout_op(tape, o, 0.2f, NULL, &d);
    if (status == MZ_OK)
        status = mz_reshape(tape, d, 2, SHAPE(-1, 3), &v);
    if (status == MZ_OK)
        status = mz_linear(tape, v, &t->w35, &t->b5, MZ_WEIGHT_IN_OUT, MZ_ACT_GELU_ERF, &h);
    if (status == MZ_OK)
        status = mz_layer_norm(tape, h, h, &t->b5, &t->c5, 1e-5f, &sum, &n);
    if (status == MZ_OK)
        status = mz_mse_loss(tape, n, sum, &loss);
    mz_tensor_release(h);
    mz_tensor_release(sum);
    mz_tensor_release(n);
    mz_tensor_release(o);
    mz_tensor_release(d);
    mz_tensor_release(v);
    mz_tensor_release(loss);
    if (status == MZ_OK)
        status = mz_tape_backward(tape, 0);
    return status;
}

static void host_memory_fails(void **state)
{
    (void)state;
    int failures = 0;
    for (long n = 1;; n++) {
        mz_status status = MZ_OK;
        things t;
        open_things(&t);
        const mz_tape_options options = {
            .device = t.r.device, .stream = t.r.stream, .arena = t.r.arena, .dtype = MZ_F32, .rng = &t.r.rng};
        mz_tape *own = t.r.tape;
        mz_tensor *x = t.x236;
        mz_memory_fail_at(n);
        t.r.tape = NULL;
        status = mz_tape_create(&options, &t.r.tape);
        if (status == MZ_OK)
            status = mz_tensor_borrow(t.r.tape, MZ_F32, 3, SHAPE(2, 3, 6), mz_tensor_data(x), &t.x236);
        if (status == MZ_OK)
            status = some_work(&t);
        mz_memory_fail_at(0);
        mz_tape_destroy(t.r.tape);
        t.r.tape = own;
        close_things(&t);
        if (status == MZ_OK)
            break;
        assert_int_equal(status, MZ_ERR_MEMORY);
        failures++;
        assert_true(n < 1000);
    }
    assert_true(failures >= 3);
    print_message("  %d allocations failed in turn\n", failures);
}

/* An arena that is too small at every possible point: an error and no leak, until it fits. */
static void arena_too_small(void **state)
{
    (void)state;
    things t;
    int failures = 0;
    open_things(&t);
    mz_tape *own = t.r.tape;
    float *x = mz_tensor_data(t.x236);
    for (size_t bytes = 256;; bytes += 256) {
        mz_arena *arena;
        mz_status status;
        rig_ok(mz_arena_create(t.r.device, bytes, &arena), "arena");
        mz_tape_options options = {
            .device = t.r.device, .stream = t.r.stream, .arena = arena, .dtype = MZ_F32, .rng = &t.r.rng};
        rig_ok(mz_tape_create(&options, &t.r.tape), "tape");
        rig_ok(mz_tensor_borrow(t.r.tape, MZ_F32, 3, SHAPE(2, 3, 6), x, &t.x236), "x");
        status = some_work(&t);
        mz_tape_reset(t.r.tape);
        assert_int_equal(mz_arena_used(arena), 0);
        mz_tape_destroy(t.r.tape);
        mz_arena_destroy(arena);
        if (status == MZ_OK)
            break;
        assert_int_equal(status, MZ_ERR_MEMORY);
        failures++;
        assert_true(bytes < 100000);
    }
    assert_true(failures >= 4);
    print_message("  %d sizes were too small\n", failures);
    t.r.tape = own;
    close_things(&t);
}

/* After the first pass nothing is asked of the host's or the device's memory any more. */
static void steady_state(void **state)
{
    (void)state;
    things t;
    open_things(&t);
    rig_ok(some_work(&t), "work");
    mz_tensor_release(t.x236->grad);
    t.x236->grad = NULL;
    assert_true(mz_memory_fail_at(0) > 0); /* the first pass did allocate */
    for (int i = 0; i < 3; i++) {
        rig_ok(some_work(&t), "work");
        mz_tensor_release(t.x236->grad);
        t.x236->grad = NULL;
    }
    assert_int_equal(mz_memory_fail_at(0), 0);
    close_things(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(refused), cmocka_unit_test(host_memory_fails),
                                       cmocka_unit_test(arena_too_small), cmocka_unit_test(steady_state)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
