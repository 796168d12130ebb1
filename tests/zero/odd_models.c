/* Models that do not treat all ranks or all units alike. */
#include "rig.h"

enum { WIDTH = 12, STEPS = 4 };

static mz_world *world;
static mz_device *device;
static mz_comm *comm;

/* ---- a parameter that only rank 0 uses ---- */

static mz_status uneven_forward(const mz_unit_call *call)
{
    mz_tensor *x = call->state[0] ? call->state[0] : call->inputs[MZ_INPUT_FEATURES], *y = NULL;
    mz_param *bias = world->rank == 0 ? call->params[1] : NULL;
    mz_status status = mz_linear(call->tape, x, call->params[0], bias, MZ_WEIGHT_OUT_IN, MZ_ACT_TANH, &y);
    mz_tensor_release(call->state[0]);
    call->state[0] = y;
    return status;
}

static mz_status error_forward(const mz_unit_call *call)
{
    mz_tensor *y = NULL, *loss = NULL;
    mz_status status =
        mz_linear(call->tape, call->state[0], call->params[0], NULL, MZ_WEIGHT_OUT_IN, MZ_ACT_NONE, &y);
    if (!status)
        status = mz_mse_loss(call->tape, y, call->inputs[MZ_INPUT_TARGETS], &loss);
    mz_tensor_release(call->state[0]);
    mz_tensor_release(y);
    call->state[0] = loss;
    return status;
}

static void make_uneven(mz_model **model)
{
    const mz_param_spec first[] = {{"first.weight", 2, {WIDTH, RIG_FEATURES}, MZ_INIT_NORMAL, 0.3f},
                                   {"first.bias", 1, {WIDTH}, MZ_INIT_ZEROS, 0}};
    const mz_param_spec second[] = {{"second.weight", 2, {WIDTH, WIDTH}, MZ_INIT_NORMAL, 0.3f},
                                    {"second.bias", 1, {WIDTH}, MZ_INIT_ZEROS, 0}};
    const mz_param_spec last[] = {{"last.weight", 2, {RIG_TARGETS, WIDTH}, MZ_INIT_NORMAL, 0.3f}};
    REQUIRE(mz_model_create("uneven", model));
    REQUIRE(mz_model_add_unit(
        *model, &(mz_unit_spec){.name = "first", .params = first, .n_params = 2, .forward = uneven_forward}));
    REQUIRE(mz_model_add_unit(
        *model, &(mz_unit_spec){.name = "second", .params = second, .n_params = 2, .forward = uneven_forward}));
    REQUIRE(mz_model_add_unit(
        *model, &(mz_unit_spec){.name = "last", .params = last, .n_params = 1, .forward = error_forward}));
}

static void train(const mz_model *model, int stage, double losses[STEPS])
{
    mz_config c;
    rig *r = NULL;
    rig_config(&c);
    c.zero.stage = stage;
    c.zero.overlap_comm = stage % 2;
    c.zero.stage3_param_persistence_threshold = 0;
    REQUIRE(rig_create(device, comm, &c, model, &r));
    for (int step = 0; step < STEPS; step++) {
        mz_zero_step_info info = {0};
        rig_step(r, step, &losses[step], &info);
    }
    rig_destroy(r);
}

static void check_stages_agree(const mz_model *model, const char *what)
{
    double first[STEPS], other[STEPS];
    train(model, 0, first);
    for (int stage = 1; stage <= 3; stage++) {
        train(model, stage, other);
        for (int step = 0; step < STEPS; step++)
            CHECK(fabs(other[step] - first[step]) < 1e-5 * first[step], "%s, stage %d: %.9g, not %.9g", what, stage,
                  other[step], first[step]);
    }
}

/* ---- a unit in the middle that forms its gradient in the forward pass ---- */

static mz_status embed_forward(const mz_unit_call *call)
{
    return mz_embedding(call->tape, call->inputs[MZ_INPUT_IDS], call->params[0], NULL, NULL, 0, &call->state[0]);
}

static mz_status probe_forward(const mz_unit_call *call)
{
    return mz_linear_cross_entropy(call->tape, call->state[0], call->params[0], call->inputs[MZ_INPUT_LABELS], -100,
                                   1 << 16, &call->state[1]);
}

static mz_status sum_forward(const mz_unit_call *call)
{
    mz_tensor *own = NULL, *sum = NULL;
    mz_status status = mz_linear_cross_entropy(call->tape, call->state[0], call->params[0],
                                               call->inputs[MZ_INPUT_LABELS], -100, 1 << 16, &own);
    if (!status)
        status = mz_add(call->tape, own, call->state[1], &sum);
    mz_tensor_release(own);
    mz_tensor_release(call->state[0]);
    mz_tensor_release(call->state[1]);
    call->state[0] = sum;
    call->state[1] = NULL;
    return status;
}

static void make_probed(mz_model **model)
{
    static const char *const names[] = {"embedding", "probe", "head"};
    static const char *const weights[] = {"embedding.weight", "probe.weight", "head.weight"};
    static const mz_unit_forward forwards[] = {embed_forward, probe_forward, sum_forward};
    REQUIRE(mz_model_create("probed", model));
    for (int u = 0; u < 3; u++) {
        const mz_param_spec spec = {weights[u], 2, {RIG_VOCAB, WIDTH}, MZ_INIT_NORMAL, 0.3f};
        REQUIRE(mz_model_add_unit(
            *model, &(mz_unit_spec){.name = names[u], .params = &spec, .n_params = 1, .forward = forwards[u]}));
    }
}

/* Only units that share a bucket are refused: the probe's gradient would have to outlive the head's reduction. */
static void check_probe(const mz_model *model, int stage, mz_status expected)
{
    mz_config c;
    rig *r = NULL;
    int32_t ids[RIG_TOKENS] = {0};
    const int64_t shape[2] = {1, RIG_TOKENS};
    mz_run run = {.goal = MZ_GOAL_LOSS, .training = true};
    mz_tensor *loss = NULL;
    rig_config(&c);
    c.zero.stage = stage;
    c.zero.reduce_bucket_size = 64;
    REQUIRE(rig_create(device, comm, &c, model, &r));
    REQUIRE(r->device->ops->fill(r->stream, r->weights, 0, 2 * sizeof(float)));
    REQUIRE(mz_tensor_borrow(r->tape, MZ_I32, 2, shape, ids, &run.inputs[MZ_INPUT_IDS]));
    run.inputs[MZ_INPUT_LABELS] = run.inputs[MZ_INPUT_IDS];
    REQUIRE(mz_zero_begin_micro(r->zero, true, true, true));
    mz_status status = mz_runner_forward(r->runner, r->tape, &run, &loss);
    CHECK(status == expected, "stage %d: %s", stage, mz_status_text(status));
    CHECK(!expected || strstr(mz_last_error(), "unit probe forms gradients in the forward pass"), "%s",
          mz_last_error());
    mz_tensor_release(loss);
    mz_tape_reset(r->tape);
    rig_destroy(r);
}

int main(void)
{
    mz_model *model = NULL;
    const mz_world_options options = {.timeout_seconds = 60};
    REQUIRE(mz_world_create(&options, &world));
    REQUIRE(mz_device_open("cpu", 0, 1, &device));
    REQUIRE(mz_comm_create(world, device, 0, 0, &comm));
    make_uneven(&model);
    check_stages_agree(model, "a parameter that one rank uses");
    mz_model_destroy(model);
    rig_model("untied gpt2", 1, &model);
    check_stages_agree(model, "a head of its own");
    mz_model_destroy(model);
    make_probed(&model);
    for (int stage = 0; stage <= 3; stage++)
        check_probe(model, stage, stage < 2 ? MZ_OK : MZ_ERR_UNSUPPORTED);
    mz_model_destroy(model);
    mz_comm_destroy(comm);
    mz_device_close(device);
    mz_world_destroy(world);
    return rig_n_failures != 0;
}
