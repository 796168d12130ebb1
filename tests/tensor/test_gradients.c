/* Every operation's gradients by central differences, fp32 over the reference kernels, odd sizes; and that a
 * backward pass gives back all memory but the gradients. */
#include "tests/core/cmocka_all.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tests/tensor/gradient_cases.h"

#define STEP      2e-3
#define TOLERANCE 3e-3 /* of the largest gradient, at least 1 */

enum { MAX_ELEMENTS = 512 };

static bool saving; /* recompute what is cheap, and put products off */

static float weight_of(int64_t i)
{
    return sinf(1.0f + 2.3f * (float)i);
}

static void build(bench *b, const grad_case *c, bool recording, mz_tensor **y)
{
    mz_tape_set_mode(b->r.tape, recording, true);
    mz_tape_set_deferring(b->r.tape, saving && recording);
    mz_tape_begin_unit(b->r.tape, 0, "unit");
    rig_ok(c->build(b, y), c->name);
}

/* A weighted sum of the output in fp64; of a loss, the value itself. */
static double value(bench *b, const grad_case *c)
{
    mz_tensor *y;
    double sum = 0;
    build(b, c, false, &y);
    const float *data = mz_tensor_data(y);
    for (int64_t i = 0; i < mz_tensor_numel(y); i++)
        sum += c->loss ? data[i] : (double)data[i] * weight_of(i);
    mz_tensor_release(y);
    return sum;
}

static void backward(bench *b, const grad_case *c)
{
    mz_tensor *y, *seed;
    build(b, c, true, &y);
    if (!c->loss) {
        rig_ok(mz_tensor_create(b->r.tape, MZ_F32, mz_tensor_n_dims(y), y->shape, &seed), "seed");
        for (int64_t i = 0; i < mz_tensor_numel(y); i++)
            ((float *)mz_tensor_data(seed))[i] = weight_of(i);
        seed->grad = seed; /* moved at once, so that the reference ends up on y */
        mz_tensor_move_grad(seed, y);
    }
    mz_tensor_release(y);
    rig_ok(mz_tape_backward(b->r.tape, 0), c->name);
    assert_int_equal(mz_tape_mark(b->r.tape), 0);
}

static void check_one(bench *b, const grad_case *c, const char *what, int index, float *x, const float *grad,
                      int64_t n)
{
    double want[MAX_ELEMENTS], largest = 1.0;
    assert_true(n <= MAX_ELEMENTS);
    for (int64_t i = 0; i < n; i++) {
        float old = x[i];
        x[i] = old + (float)STEP;
        double up = value(b, c), high = x[i];
        x[i] = old - (float)STEP;
        double down = value(b, c), low = x[i];
        x[i] = old;
        want[i] = (up - down) / (high - low);
        largest = fmax(largest, fabs(want[i]));
    }
    for (int64_t i = 0; i < n; i++)
        if (!(fabs(want[i] - (double)grad[i]) <= TOLERANCE * largest))
            fail_msg("%s (activation %d): %s %d, element %lld: expected %g, found %g", c->name, (int)b->act, what,
                     index, (long long)i, want[i], (double)grad[i]);
}

/* A second pass without clearing must double parameters' gradients. */
static void check_accumulation(bench *b, const grad_case *c)
{
    static float once[MAX_P][MAX_ELEMENTS];
    for (int i = 0; i < MAX_P; i++)
        if (b->p[i].data)
            memcpy(once[i], b->p[i].grad, (size_t)b->p[i].numel * sizeof(float));
    backward(b, c);
    for (int i = 0; i < MAX_P; i++)
        for (int64_t j = 0; b->p[i].data && b->p[i].grad_written && j < b->p[i].numel; j++)
            assert_true(fabsf(((float *)b->p[i].grad)[j] - 2 * once[i][j]) <= 1e-4f * (1.0f + fabsf(once[i][j])));
}

static void drop_input_grads(bench *b)
{
    for (int i = 0; i < MAX_X; i++) {
        if (b->x[i]) {
            mz_tensor_release(b->x[i]->grad);
            b->x[i]->grad = NULL;
        }
    }
}

static void check_case(const grad_case *c, mz_activation act)
{
    bench b = {.act = act};
    rig_open(&b.r, "cpu", RIG_REFERENCE | (saving ? RIG_RECOMPUTE : 0));
    b.r.loss_weight = b.r.grad_weight = 0.25f;
    for (int i = 0; i < MAX_X && c->x[i][0]; i++) {
        int n_dims = 0;
        while (n_dims < MZ_MAX_DIMS && c->x[i][n_dims])
            n_dims++;
        b.x[i] = rig_tensor(&b.r, n_dims, c->x[i], (uint64_t)i + 10);
        mz_tensor_keep_grad(b.x[i]);
    }
    for (int i = 0; i < MAX_P && c->p[i][0]; i++)
        rig_param(&b.p[i], "p", c->p[i][1] ? 2 : 1, c->p[i][0], c->p[i][1], (uint64_t)i + 20);
    size_t used = mz_arena_used(b.r.arena);

    backward(&b, c);
    for (int i = 0; i < MAX_X && b.x[i]; i++) {
        assert_non_null(mz_tensor_grad(b.x[i]));
        check_one(&b, c, "input", i, mz_tensor_data(b.x[i]), mz_tensor_data(mz_tensor_grad(b.x[i])),
                  mz_tensor_numel(b.x[i]));
    }
    for (int i = 0; i < MAX_P && b.p[i].data; i++)
        if (b.p[i].grad_written)
            check_one(&b, c, "parameter", i, b.p[i].data, b.p[i].grad, b.p[i].numel);
    drop_input_grads(&b);
    check_accumulation(&b, c);
    drop_input_grads(&b);
    assert_int_equal(mz_arena_used(b.r.arena), used);
    for (int i = 0; i < MAX_P; i++)
        rig_param_free(&b.p[i]);
    rig_close(&b.r);
}

/* First as in a plain step, then with everything saved that can be. */
static void plain(void **state)
{
    (void)state;
    for (int round = 0; round < 2; round++) {
        saving = round == 1;
        for (const grad_case *c = gradient_cases; c->name; c++)
            check_case(c, MZ_ACT_NONE);
    }
}

static void activations(void **state)
{
    (void)state;
    for (int round = 0; round < 2; round++) {
        saving = round == 1;
        for (mz_activation act = MZ_ACT_NONE; act < MZ_N_ACTIVATIONS; act++)
            for (const grad_case *c = gradient_cases_activated; c->name; c++)
                check_case(c, act);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(plain), cmocka_unit_test(activations)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
