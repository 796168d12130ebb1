/* GPT-2 against transformers and torch.optim.AdamW, from fixtures that tests/fixtures/make_gpt2.py wrote. */
#include "tests/core/cmocka_all.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/memory.h"
#include "tests/model/model_rig.h"

#define LOGITS_TOLERANCE 1e-4
#define GRAD_TOLERANCE   1e-4
#define LOSS_TOLERANCE   1e-4

/* ---- one batch ---- */

static void batch_inputs(model_rig *m, const char *prefix, int64_t first, int64_t rows, mz_run *run)
{
    static const struct {
        const char *name;
        mz_input_role role;
    } inputs[] = {{"ids", MZ_INPUT_IDS},
                  {"labels", MZ_INPUT_LABELS},
                  {"mask", MZ_INPUT_MASK},
                  {"positions", MZ_INPUT_POSITIONS}};
    for (size_t i = 0; i < sizeof inputs / sizeof inputs[0]; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s%s", prefix, inputs[i].name);
        run->inputs[inputs[i].role] = model_rig_input(m, name, first, rows);
    }
}

static int64_t count_targets(const mz_tensor *labels)
{
    const int32_t *p = mz_tensor_data(labels);
    int64_t n = 0;
    for (int64_t i = 0; i < mz_tensor_numel(labels); i++)
        n += p[i] != -100;
    return n;
}

static void check_logits(model_rig *m)
{
    const mz_weights_tensor *want = model_rig_expected(m, "logits", true);
    int64_t vocab = want->shape[2], rows = want->numel / vocab;
    mz_run run = {.goal = MZ_GOAL_LOGITS};
    mz_tensor *logits;
    batch_inputs(m, "", 0, want->shape[0], &run);
    rig_ok(mz_runner_forward(m->runner, m->base.tape, &run, &logits), "logits");
    assert_int_equal(mz_tensor_numel(logits), want->numel);
    const uint8_t *mask = mz_tensor_data(run.inputs[MZ_INPUT_MASK]);
    const float *a = mz_tensor_data(logits), *b = want->data;
    double worst = 0;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t v = 0; mask[r] && v < vocab; v++)
            worst = fmax(worst, fabs((double)a[r * vocab + v] - b[r * vocab + v]));
    print_message("  logits differ by at most %.2e\n", worst);
    assert_true(worst <= LOGITS_TOLERANCE);
    mz_tape_reset(m->base.tape);
}

static void check_gradients(model_rig *m, const char *how)
{
    const mz_weights_tensor *ids = model_rig_expected(m, "ids", true);
    mz_run run = {.goal = MZ_GOAL_LOSS, .training = true};
    mz_tensor *loss;
    model_difference worst = {0, 0};
    float got, want;
    batch_inputs(m, "", 0, ids->shape[0], &run);
    m->base.loss_weight = m->base.grad_weight = 1.0f / (float)count_targets(run.inputs[MZ_INPUT_LABELS]);
    model_rig_clear_grads(m->runner);
    rig_ok(mz_runner_forward(m->runner, m->base.tape, &run, &loss), "forward");
    memcpy(&got, mz_tensor_data(loss), sizeof got);
    memcpy(&want, model_rig_expected(m, "loss", true)->data, sizeof want);
    mz_tensor_release(loss);
    rig_ok(mz_runner_backward(m->runner, m->base.tape), "backward");
    assert_true(fabs((double)got - want) <= LOSS_TOLERANCE * fabs((double)want));
    for (int i = 0; i < mz_runner_n_params(m->runner); i++) {
        const mz_param *param = mz_runner_param(m->runner, i);
        char name[128];
        snprintf(name, sizeof name, "grad.%s", param->spec.name);
        assert_true(param->grad_written);
        model_difference d = model_compare(param->grad, model_rig_expected(m, name, true)->data, param->numel);
        if (!(d.max <= GRAD_TOLERANCE && d.norm <= GRAD_TOLERANCE))
            fail_msg("%s: differs by %.2e of its largest value, %.2e of its norm", name, d.max, d.norm);
        worst.max = fmax(worst.max, d.max);
        worst.norm = fmax(worst.norm, d.norm);
    }
    print_message("  gradients (%s) differ by at most %.2e, norms by %.2e\n", how, worst.max, worst.norm);
    mz_tape_reset(m->base.tape);
}

static void one_batch_with(const char *name, int flags)
{
    model_rig m;
    model_rig_open(&m, name, flags);
    print_message("%s%s\n", name, flags & RIG_RECOMPUTE ? ", recomputing what is cheap" : "");
    check_logits(&m);
    check_gradients(&m, "all kept");
    mz_runner_set_checkpointing(m.runner, 1);
    check_gradients(&m, "recomputed");
    mz_runner_set_checkpointing(m.runner, 2);
    check_gradients(&m, "every other unit recomputed");
    model_rig_close(&m);
}

static void one_batch(const char *name)
{
    one_batch_with(name, 0);
    one_batch_with(name, RIG_RECOMPUTE);
}

/* ---- a training run ---- */

typedef struct settings {
    json_t *json;
    int64_t steps, batch, accumulation;
    double learning_rate, weight_decay, beta1, beta2, epsilon, clip;
} settings;

static double number(const settings *s, const char *key)
{
    return json_number_value(json_object_get(s->json, key));
}

static void read_settings(const model_rig *m, settings *s)
{
    char path[600];
    snprintf(path, sizeof path, "%s/train.json", m->folder);
    s->json = json_load_file(path, 0, NULL);
    assert_non_null(s->json);
    s->steps = (int64_t)number(s, "steps");
    s->batch = (int64_t)number(s, "batch");
    s->accumulation = (int64_t)number(s, "accumulation");
    s->learning_rate = number(s, "learning_rate");
    s->weight_decay = number(s, "weight_decay");
    s->beta1 = number(s, "beta1");
    s->beta2 = number(s, "beta2");
    s->epsilon = number(s, "epsilon");
    s->clip = number(s, "clip");
}

static bool decays(const settings *s, const char *name)
{
    size_t i;
    json_t *word;
    json_array_foreach(json_object_get(s->json, "no_decay"), i, word)
    {
        if (strstr(name, json_string_value(word)))
            return false;
    }
    return true;
}

typedef struct adam {
    mz_optim_chunk *chunks;
    int64_t n_elements;
} adam;

static void adam_open(const model_rig *m, const settings *s, adam *a)
{
    int n = mz_runner_n_params(m->runner);
    a->n_elements = 0;
    a->chunks = mz_calloc((size_t)n, sizeof *a->chunks);
    assert_non_null(a->chunks);
    for (int i = 0; i < n; i++) {
        const mz_param *param = mz_runner_param(m->runner, i);
        a->chunks[i] = (mz_optim_chunk){.master = param->data,
                                        .state1 = mz_calloc((size_t)param->numel, sizeof(float)),
                                        .state2 = mz_calloc((size_t)param->numel, sizeof(float)),
                                        .grad = param->grad,
                                        .n = param->numel,
                                        .weight_decay = decays(s, param->spec.name) ? (float)s->weight_decay : 0.0f,
                                        .lr_scale = 1.0f};
        assert_non_null(a->chunks[i].state1);
        assert_non_null(a->chunks[i].state2);
        a->n_elements += param->numel;
    }
}

static void adam_close(const model_rig *m, adam *a)
{
    for (int i = 0; i < mz_runner_n_params(m->runner); i++) {
        mz_free(a->chunks[i].state1);
        mz_free(a->chunks[i].state2);
    }
    mz_free(a->chunks);
}

/* Clips as torch.nn.utils.clip_grad_norm_ and updates; gives the norm before clipping. */
static double adam_step(const model_rig *m, const settings *s, const adam *a, int64_t step)
{
    const mz_kernels *kernels = m->base.device->ops->kernels;
    double sum = 0;
    uint64_t nonfinite = 0;
    int n = mz_runner_n_params(m->runner);
    for (int i = 0; i < n; i++) {
        const mz_sum_squares_args args = {.n = a->chunks[i].n,
                                          .x = a->chunks[i].grad,
                                          .dtype = MZ_F32,
                                          .scale = 1.0f,
                                          .sum = &sum,
                                          .nonfinite = &nonfinite};
        rig_ok(kernels->sum_squares(&args, m->base.stream), "norm");
    }
    double norm = sqrt(sum);
    float scale = s->clip > 0 && norm > s->clip ? (float)(s->clip / (norm + 1e-6)) : 1.0f;
    const mz_optim_hyper hyper = {.lr = (float)s->learning_rate,
                                  .beta1 = (float)s->beta1,
                                  .beta2 = (float)s->beta2,
                                  .eps = (float)s->epsilon,
                                  .bias_correction1 = (float)(1.0 - pow(s->beta1, (double)step)),
                                  .bias_correction2 = (float)(1.0 - pow(s->beta2, (double)step))};
    const mz_optim_args args = {.kind = MZ_OPTIM_ADAMW,
                                .chunks = a->chunks,
                                .n_chunks = n,
                                .n_elements = a->n_elements,
                                .hyper = &hyper,
                                .grad_scale = &scale,
                                .nonfinite = &nonfinite,
                                .grad_dtype = MZ_F32,
                                .param_dtype = MZ_F32};
    rig_ok(kernels->optim(&args, m->base.stream), "AdamW");
    return norm;
}

/* One micro-batch; its part of the step's loss. */
static double micro_batch(model_rig *m, const settings *s, int64_t first)
{
    mz_run run = {.goal = MZ_GOAL_LOSS, .training = true};
    mz_tensor *loss;
    float value;
    batch_inputs(m, "train_", first, s->batch, &run);
    if (model_rig_expected(m, "positions", false)) {
        /* The fixture counts positions from the first real token. */
        int64_t shape[2] = {s->batch, mz_tensor_dim(run.inputs[MZ_INPUT_IDS], 1)};
        const uint8_t *mask = mz_tensor_data(run.inputs[MZ_INPUT_MASK]);
        rig_ok(mz_tensor_create(m->base.tape, MZ_I32, 2, shape, &run.inputs[MZ_INPUT_POSITIONS]), "positions");
        int32_t *positions = mz_tensor_data(run.inputs[MZ_INPUT_POSITIONS]);
        for (int64_t b = 0; b < shape[0]; b++) {
            int32_t seen = 0;
            for (int64_t t = 0; t < shape[1]; t++) {
                seen += mask[b * shape[1] + t];
                positions[b * shape[1] + t] = seen > 0 ? seen - 1 : 0;
            }
        }
    }
    int64_t targets = count_targets(run.inputs[MZ_INPUT_LABELS]);
    m->base.loss_weight = m->base.grad_weight = 1.0f / (float)(targets * s->accumulation);
    rig_ok(mz_runner_forward(m->runner, m->base.tape, &run, &loss), "forward");
    memcpy(&value, mz_tensor_data(loss), sizeof value);
    mz_tensor_release(loss);
    rig_ok(mz_runner_backward(m->runner, m->base.tape), "backward");
    mz_tape_reset(m->base.tape);
    return value;
}

static void training_run(const char *name)
{
    model_rig m;
    settings s;
    adam a;
    model_rig_open(&m, name, 0);
    read_settings(&m, &s);
    adam_open(&m, &s, &a);
    const float *losses = model_rig_expected(&m, "losses", true)->data;
    const float *norms = model_rig_expected(&m, "grad_norms", true)->data;
    int64_t n_samples = model_rig_expected(&m, "train_ids", true)->shape[0], first = 0;
    double worst_loss = 0, worst_norm = 0;
    for (int64_t step = 0; step < s.steps; step++) {
        double loss = 0;
        model_rig_clear_grads(m.runner);
        for (int64_t micro = 0; micro < s.accumulation; micro++, first += s.batch)
            loss += micro_batch(&m, &s, first % n_samples);
        double norm = adam_step(&m, &s, &a, step + 1);
        worst_loss = fmax(worst_loss, fabs(loss - losses[step]) / fabs((double)losses[step]));
        worst_norm = fmax(worst_norm, fabs(norm - norms[step]) / fabs((double)norms[step]));
    }
    print_message("%s: %lld steps: losses differ by at most %.2e, norms by %.2e\n", name, (long long)s.steps,
                  worst_loss, worst_norm);
    assert_true(worst_loss <= LOSS_TOLERANCE);
    json_decref(s.json);
    adam_close(&m, &a);
    model_rig_close(&m);
}

static void batch_odd(void **state)
{
    (void)state;
    one_batch("gpt2_odd");
}

static void batch_untied(void **state)
{
    (void)state;
    one_batch("gpt2_untied");
}

static void batch_left(void **state)
{
    (void)state;
    one_batch("gpt2_left");
}

static void run_odd(void **state)
{
    (void)state;
    training_run("gpt2_odd");
}

static void run_untied(void **state)
{
    (void)state;
    training_run("gpt2_untied");
}

static void run_left(void **state)
{
    (void)state;
    training_run("gpt2_left");
}

static void run_bytes(void **state)
{
    (void)state;
    training_run("gpt2_bytes");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batch_odd), cmocka_unit_test(batch_untied), cmocka_unit_test(batch_left),
        cmocka_unit_test(run_odd),   cmocka_unit_test(run_untied),   cmocka_unit_test(run_left),
        cmocka_unit_test(run_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
