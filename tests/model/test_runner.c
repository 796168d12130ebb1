/* The unit runner: hooks in their order, recomputation that draws the same dropout, the key-value cache, failures.
 */
#include "tests/core/cmocka_all.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/memory.h"
#include "tests/model/model_rig.h"

static const char *const small_config = "{\"model_type\": \"gpt2\", \"vocab_size\": 37, \"n_positions\": 12, "
                                        "\"n_embd\": 12, \"n_layer\": 3, \"n_head\": 2,"
                                        " \"resid_pdrop\": 0.2, \"embd_pdrop\": 0.1, \"attn_pdrop\": 0.3}";

static const int32_t ids[] = {1, 5, 9, 30, 2, 7, 36, 0, 11, 4};
static const int32_t labels[] = {5, 9, 30, 2, -100, 36, 0, 11, 4, -100};

enum { B = 2, T = 5 };

typedef struct small {
    rig r;
    mz_model *model;
    mz_runner *runner;
} small;

static void fill_params(mz_runner *runner)
{
    for (int i = 0; i < mz_runner_n_params(runner); i++) {
        mz_param *param = mz_runner_param(runner, i);
        rig_fill(param->data, param->numel, (uint64_t)i + 1, 0.3f);
    }
}

static void small_open_with(small *s, int flags)
{
    rig_open(&s->r, "cpu", flags);
    rig_ok(mz_model_from_config("small", small_config, &s->model), "model");
    rig_ok(mz_runner_create(s->model, MZ_F32, MZ_F32, &s->runner), "runner");
    model_rig_alloc_params(&s->r, s->runner);
    fill_params(s->runner);
}

static void small_open(small *s)
{
    small_open_with(s, 0);
}

static void small_close(small *s)
{
    model_rig_free_params(&s->r, s->runner);
    mz_runner_destroy(s->runner);
    mz_model_destroy(s->model);
    rig_close(&s->r);
}

static mz_status step(small *s, float *loss)
{
    const int64_t shape[] = {B, T};
    mz_run run = {.goal = MZ_GOAL_LOSS, .training = true};
    mz_tensor *result;
    run.inputs[MZ_INPUT_IDS] = rig_ids(&s->r, 2, shape, ids);
    run.inputs[MZ_INPUT_LABELS] = rig_ids(&s->r, 2, shape, labels);
    model_rig_clear_grads(s->runner);
    mz_status status = mz_runner_forward(s->runner, s->r.tape, &run, &result);
    if (status != MZ_OK)
        return status;
    memcpy(loss, mz_tensor_data(result), sizeof *loss);
    mz_tensor_release(result);
    return mz_runner_backward(s->runner, s->r.tape);
}

/* ---- hooks ---- */

typedef struct trace {
    char text[1024];
    int fail_unit; /* whose hook fails; -1: none */
} trace;

static mz_status note(trace *t, const char *what, int unit, mz_phase phase)
{
    size_t used = strlen(t->text);
    snprintf(t->text + used, sizeof t->text - used, "%s%s%d", what, phase == MZ_PHASE_FORWARD ? "f" : "b", unit);
    return MZ_OK;
}

static mz_status fetch(void *context, int unit, mz_phase phase)
{
    trace *t = context;
    if (unit == t->fail_unit)
        return MZ_ERR_COMM;
    return note(t, " +", unit, phase);
}

static mz_status drop(void *context, int unit, mz_phase phase)
{
    return note(context, " -", unit, phase);
}

static void hooks_in_order(void **state)
{
    (void)state;
    static const char *const order = " +f0 -f0 +f1 -f1 +f2 -f2 +f3 -f3 +f4 -f4"
                                     " +b4 -b4 +b3 -b3 +b2 -b2 +b1 -b1 +b0 -b0";
    small s;
    float loss;
    small_open(&s);
    for (int every = 0; every <= 2; every++) {
        trace t = {.fail_unit = -1};
        mz_runner_set_checkpointing(s.runner, every);
        mz_runner_set_hooks(s.runner, &(mz_runner_hooks){.context = &t, .before = fetch, .after = drop});
        rig_ok(step(&s, &loss), "step");
        mz_tape_reset(s.r.tape);
        assert_string_equal(t.text, order);
    }
    small_close(&s);
}

/* As in ZeRO-3: the values a unit needs are there between its hooks only. */
typedef struct vault {
    small *s;
    float *values[64];
} vault;

static void swap_unit(vault *v, int unit, bool in)
{
    int units[8], n = mz_runner_unit_needs(v->s->runner, unit, units);
    for (int j = 0; j < n; j++) {
        int first, count;
        mz_runner_unit_params(v->s->runner, units[j], &first, &count);
        for (int i = first; i < first + count; i++)
            mz_runner_param(v->s->runner, i)->data = in ? v->values[i] : NULL;
    }
}

static mz_status vault_open(void *context, int unit, mz_phase phase)
{
    (void)phase;
    swap_unit(context, unit, true);
    return MZ_OK;
}

static mz_status vault_close(void *context, int unit, mz_phase phase)
{
    (void)phase;
    swap_unit(context, unit, false);
    return MZ_OK;
}

static void params_only_between_hooks_with(int flags)
{
    small s;
    vault v = {.s = &s};
    float want, got;
    small_open_with(&s, flags);
    rig_ok(step(&s, &want), "step");
    mz_tape_reset(s.r.tape);
    for (int i = 0; i < mz_runner_n_params(s.runner); i++) {
        v.values[i] = mz_runner_param(s.runner, i)->data;
        mz_runner_param(s.runner, i)->data = NULL;
    }
    mz_runner_set_hooks(s.runner, &(mz_runner_hooks){.context = &v, .before = vault_open, .after = vault_close});
    for (int every = 0; every <= 1; every++) {
        mz_runner_set_checkpointing(s.runner, every);
        rig_ok(step(&s, &got), "step");
        mz_tape_reset(s.r.tape);
        assert_true(got == want);
    }
    for (int i = 0; i < mz_runner_n_params(s.runner); i++)
        mz_runner_param(s.runner, i)->data = v.values[i];
    small_close(&s);
}

static void params_only_between_hooks(void **state)
{
    (void)state;
    params_only_between_hooks_with(0);
    params_only_between_hooks_with(RIG_RECOMPUTE);
}

static void failing_hook(void **state)
{
    (void)state;
    small s;
    float loss;
    small_open(&s);
    for (int unit = 0; unit < mz_model_n_units(s.model); unit++) {
        trace t = {.fail_unit = unit};
        mz_runner_set_hooks(s.runner, &(mz_runner_hooks){.context = &t, .before = fetch, .after = drop});
        assert_int_equal(step(&s, &loss), MZ_ERR_COMM);
        mz_tape_reset(s.r.tape);
        assert_int_equal(mz_arena_used(s.r.arena), 0);
    }
    mz_runner_set_hooks(s.runner, NULL);
    rig_ok(step(&s, &loss), "step");
    small_close(&s);
}

/* ---- recomputation ---- */

static void recomputed_is_the_same_with(int flags)
{
    small s;
    float want, got;
    float *grads[64];
    small_open_with(&s, flags);
    rig_ok(step(&s, &want), "step");
    mz_tape_reset(s.r.tape);
    for (int i = 0; i < mz_runner_n_params(s.runner); i++) {
        const mz_param *param = mz_runner_param(s.runner, i);
        grads[i] = mz_alloc((size_t)param->numel * sizeof(float));
        memcpy(grads[i], param->grad, (size_t)param->numel * sizeof(float));
    }
    for (int every = 1; every <= 3; every++) {
        mz_runner_set_checkpointing(s.runner, every);
        rig_ok(step(&s, &got), "step");
        mz_tape_reset(s.r.tape);
        assert_true(got == want);
        for (int i = 0; i < mz_runner_n_params(s.runner); i++) {
            const mz_param *param = mz_runner_param(s.runner, i);
            assert_memory_equal(param->grad, grads[i], (size_t)param->numel * sizeof(float));
        }
    }
    for (int i = 0; i < mz_runner_n_params(s.runner); i++)
        mz_free(grads[i]);
    small_close(&s);
}

static void recomputed_is_the_same(void **state)
{
    (void)state;
    recomputed_is_the_same_with(0);
    recomputed_is_the_same_with(RIG_RECOMPUTE);
}

/* Another step of the optimiser, or another place in the batch, draws other masks. */
static void dropout_moves_on(void **state)
{
    (void)state;
    small s;
    float a, b, c, again;
    small_open(&s);
    rig_ok(step(&s, &a), "step");
    mz_tape_reset(s.r.tape);
    s.r.rng.step++;
    rig_ok(step(&s, &b), "step");
    mz_tape_reset(s.r.tape);
    s.r.rng.step--;
    s.r.rng.first_sample = 2;
    rig_ok(step(&s, &c), "step");
    mz_tape_reset(s.r.tape);
    s.r.rng.first_sample = 0;
    rig_ok(step(&s, &again), "step");
    assert_true(a != b && a != c && b != c && a == again);
    small_close(&s);
}

/* A unit's dropout over [B * T, D]: rows, whose samples the tensor's shape does not show. */
static mz_status rows_forward(const mz_unit_call *call)
{
    mz_tensor *rows, *y = NULL;
    mz_status status = mz_reshape(call->tape, call->inputs[MZ_INPUT_FEATURES], 2, (const int64_t[]){-1, 3}, &rows);
    if (status != MZ_OK)
        return status;
    status = mz_dropout_op(call->tape, rows, 0.5f, NULL, &y);
    mz_tensor_release(rows);
    call->state[0] = y;
    return status;
}

/* Samples draw by their place in the global batch: two halves on two ranks are what the whole is on one. */
static void halves_make_the_whole(void **state)
{
    (void)state;
    enum { SAMPLES = 4, ELEMENTS = 15 };
    rig r;
    mz_model *model;
    mz_runner *runner;
    float x[SAMPLES][ELEMENTS], whole[SAMPLES][ELEMENTS];
    rig_open(&r, "cpu", 0);
    rig_ok(mz_model_create("rows", &model), "model");
    rig_ok(mz_model_add_unit(model, &(mz_unit_spec){.name = "rows", .forward = rows_forward}), "unit");
    rig_ok(mz_runner_create(model, MZ_F32, MZ_F32, &runner), "runner");
    rig_fill(x[0], SAMPLES * ELEMENTS, 5, 1.0f);
    for (int part = 0; part < 3; part++) { /* the whole, the first half, the second */
        int first = part == 2 ? SAMPLES / 2 : 0, n = part == 0 ? SAMPLES : SAMPLES / 2;
        mz_run run = {.goal = MZ_GOAL_LOGITS, .training = true};
        mz_tensor *y;
        r.rng.first_sample = first;
        rig_ok(mz_tensor_borrow(r.tape, MZ_F32, 3, (const int64_t[]){n, 5, 3}, x[first],
                                &run.inputs[MZ_INPUT_FEATURES]),
               "input");
        rig_ok(mz_runner_forward(runner, r.tape, &run, &y), "forward");
        size_t bytes = (size_t)n * ELEMENTS * sizeof(float);
        if (part == 0)
            memcpy(whole, mz_tensor_data(y), bytes);
        else
            assert_memory_equal(mz_tensor_data(y), whole[first], bytes);
        mz_tape_reset(r.tape);
    }
    mz_runner_destroy(runner);
    mz_model_destroy(model);
    rig_close(&r);
}

/* Once a step has run, another one asks neither the host nor the device for memory. */
static void steady_state(void **state)
{
    (void)state;
    for (int every = 0; every <= 1; every++) {
        small s;
        float loss;
        small_open(&s);
        mz_runner_set_checkpointing(s.runner, every);
        rig_ok(step(&s, &loss), "step");
        mz_tape_reset(s.r.tape);
        assert_true(mz_memory_fail_at(0) > 0);
        rig_ok(step(&s, &loss), "step");
        mz_tape_reset(s.r.tape);
        assert_int_equal(mz_memory_fail_at(0), 0);
        small_close(&s);
    }
}

/* ---- generation ---- */

static mz_tensor *logits_of(small *s, const int32_t *tokens, int64_t n, int64_t row, mz_kv_cache *cache, bool last)
{
    int32_t batch[B * T];
    mz_run run = {.goal = MZ_GOAL_LOGITS, .last_position_only = last, .cache = cache};
    mz_tensor *result;
    for (int64_t b = 0; b < B; b++)
        memcpy(batch + b * n, tokens + b * row, (size_t)n * sizeof *batch);
    run.position_offset = cache ? mz_kv_cache_length(cache) : 0;
    run.inputs[MZ_INPUT_IDS] = rig_ids(&s->r, 2, (const int64_t[]){B, n}, batch);
    rig_ok(mz_runner_forward(s->runner, s->r.tape, &run, &result), "logits");
    mz_tensor_release(run.inputs[MZ_INPUT_IDS]);
    return result;
}

static void check_close(const float *a, const float *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        assert_true(fabsf(a[i] - b[i]) <= 1e-5f);
}

static void cache_agrees(void **state)
{
    (void)state;
    enum { V = 37 };
    static const int pieces[][4] = {{1, 1, 1, 2}, {3, 1, 1, 0}, {5, 0, 0, 0}, {2, 3, 0, 0}};
    small s;
    mz_kv_cache *cache;
    small_open(&s);
    mz_tensor *whole = logits_of(&s, ids, T, T, NULL, false);
    const float *want = mz_tensor_data(whole);
    rig_ok(mz_kv_cache_create(s.r.device, 3, B, 8, 12, MZ_F32, &cache), "cache");
    for (size_t p = 0; p < sizeof pieces / sizeof pieces[0]; p++) {
        int64_t done = 0;
        mz_kv_cache_rewind(cache, 0);
        for (int i = 0; i < 4 && pieces[p][i] > 0; i++) {
            int64_t n = pieces[p][i];
            mz_tensor *got = logits_of(&s, ids + done, n, T, cache, true);
            done += n;
            assert_int_equal(mz_kv_cache_length(cache), done);
            assert_int_equal(mz_tensor_dim(got, 1), 1);
            for (int64_t b = 0; b < B; b++)
                check_close((const float *)mz_tensor_data(got) + b * V, want + (b * T + done - 1) * V, V);
            mz_tensor_release(got);
        }
    }
    /* Forget the last two and go on otherwise; then run out of room. */
    mz_kv_cache_rewind(cache, 3);
    mz_tensor *again = logits_of(&s, ids + 3, 2, T, cache, false);
    for (int64_t b = 0; b < B; b++)
        check_close((const float *)mz_tensor_data(again) + b * 2 * V, want + (b * T + 3) * V, 2 * V);
    mz_tensor_release(again);
    mz_tensor_release(whole);

    mz_run run = {.goal = MZ_GOAL_LOGITS, .cache = cache, .position_offset = 5};
    run.inputs[MZ_INPUT_IDS] = rig_ids(&s.r, 2, (const int64_t[]){B, 5}, ids);
    assert_int_equal(mz_runner_forward(s.runner, s.r.tape, &run, &again), MZ_ERR_ARGUMENT);
    assert_non_null(strstr(mz_last_error(), "do not fit"));
    assert_int_equal(mz_kv_cache_length(cache), 5);
    mz_kv_cache_destroy(cache);
    small_close(&s);
}

/* ---- failures ---- */

static void missing_inputs(void **state)
{
    (void)state;
    small s;
    mz_tensor *result = NULL;
    mz_run run = {.goal = MZ_GOAL_LOSS, .training = true};
    small_open(&s);
    assert_int_equal(mz_runner_backward(s.runner, s.r.tape), MZ_ERR_ARGUMENT);
    assert_int_equal(mz_runner_forward(s.runner, s.r.tape, &run, &result), MZ_ERR_ARGUMENT);
    assert_non_null(strstr(mz_last_error(), "token ids"));
    run.inputs[MZ_INPUT_IDS] = rig_ids(&s.r, 2, (const int64_t[]){B, T}, ids);
    assert_int_equal(mz_runner_forward(s.runner, s.r.tape, &run, &result), MZ_ERR_ARGUMENT);
    assert_non_null(strstr(mz_last_error(), "labels"));
    assert_null(result);
    small_close(&s);
}

static void memory_fails(void **state)
{
    (void)state;
    int failures = 0;
    for (long n = 1;; n++, failures++) {
        mz_model *model = NULL;
        mz_runner *runner = NULL;
        mz_memory_fail_at(n);
        mz_status status = mz_model_from_config("small", small_config, &model);
        if (status == MZ_OK)
            status = mz_runner_create(model, MZ_F32, MZ_F32, &runner);
        mz_memory_fail_at(0);
        mz_runner_destroy(runner);
        mz_model_destroy(model);
        if (status == MZ_OK)
            break;
        assert_int_equal(status, MZ_ERR_MEMORY);
        assert_true(n < 1000);
    }
    assert_true(failures > 40);
    print_message("  %d allocations failed in turn\n", failures);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hooks_in_order),   cmocka_unit_test(params_only_between_hooks),
        cmocka_unit_test(failing_hook),     cmocka_unit_test(recomputed_is_the_same),
        cmocka_unit_test(dropout_moves_on), cmocka_unit_test(halves_make_the_whole),
        cmocka_unit_test(steady_state),     cmocka_unit_test(cache_agrees),
        cmocka_unit_test(missing_inputs),   cmocka_unit_test(memory_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
