/* Planning: a step played on the meta device tells its memory and its work before anything is allocated. */
#include "core/error.h"
#include "core/memory.h"
#include "train/engine_impl.h"

/* Larger than any machine: the plan only wants the high-water mark. */
#define PLAN_ARENA ((size_t)1 << 46)

typedef struct planner {
    mz_device *device;
    mz_stream *stream;
    mz_arena *arena;
    mz_tape *tape;
    mz_runner *runner;
} planner;

static void planner_close(planner *p)
{
    mz_tape_destroy(p->tape);
    mz_arena_destroy(p->arena);
    mz_runner_destroy(p->runner);
    if (p->stream)
        p->device->ops->stream_destroy(p->stream);
    mz_device_close(p->device);
}

/* Parameters get an address each; no memory stands behind it. */
static mz_status planner_params(planner *p)
{
    mz_status st = MZ_OK;
    for (int i = 0; i < mz_runner_n_params(p->runner) && st == MZ_OK; i++) {
        mz_param *param = mz_runner_param(p->runner, i);
        size_t n = (size_t)param->numel;
        st = p->device->ops->alloc(p->device, n * mz_dtype_size(param->dtype), &param->data);
        if (st == MZ_OK)
            st = p->device->ops->alloc(p->device, n * mz_dtype_size(param->grad_dtype), &param->grad);
    }
    return st;
}

static mz_status planner_open(planner *p, const mz_model *model, const mz_config *config, bool training,
                              mz_recompute recompute)
{
    mz_status st = mz_device_open("meta", 0, 1, &p->device);
    if (st == MZ_OK)
        st = p->device->ops->stream_create(p->device, MZ_STREAM_COMPUTE, &p->stream);
    if (st == MZ_OK)
        st = mz_arena_create(p->device, PLAN_ARENA, &p->arena);
    if (st == MZ_OK)
        st = mz_runner_create(model, config->dtype, config->grad_accum_dtype, &p->runner);
    if (st != MZ_OK)
        return st;
    static const mz_rng_state never_read; /* its presence makes dropout take its tensors */
    const mz_tape_options options = {.device = p->device,
                                     .stream = p->stream,
                                     .arena = p->arena,
                                     .dtype = config->dtype,
                                     .rng = &never_read,
                                     .recompute = recompute};
    st = mz_tape_create(&options, &p->tape);
    if (st == MZ_OK)
        st = planner_params(p);
    if (st == MZ_OK && training)
        mz_runner_set_checkpointing(p->runner, config->activation_checkpointing_every);
    return st;
}

mz_status mz_plan_inputs(mz_device *meta, mz_tape *tape, const mz_batch *shapes, mz_dtype dtype, mz_tensor **inputs)
{
    mz_status st = MZ_OK;
    for (int i = 0; i < shapes->n_inputs && st == MZ_OK; i++) {
        const mz_host_input *input = &shapes->inputs[i];
        int64_t n = 1;
        for (int d = 0; d < input->n_dims; d++)
            n *= input->shape[d];
        mz_dtype to = input->dtype == MZ_F32 ? dtype : input->dtype;
        void *data = NULL;
        st = meta->ops->alloc(meta, (size_t)n * mz_dtype_size(to), &data);
        if (st == MZ_OK)
            st = mz_tensor_borrow(tape, to, input->n_dims, input->shape, data, &inputs[input->role]);
    }
    return st;
}

static double planner_flops(const planner *p)
{
    mz_meta_counts counts = {0};
    mz_device_meta_counts(p->device, &counts);
    return counts.matmul_flops + counts.attention_flops;
}

mz_status mz_plan_logits(const mz_model *model, const mz_config *config, const mz_batch *shapes,
                         bool last_position_only, size_t *arena_bytes)
{
    planner p = {0};
    mz_tensor *result = NULL;
    mz_run run = {.goal = MZ_GOAL_LOGITS, .last_position_only = last_position_only};
    mz_status st = planner_open(&p, model, config, false, (mz_recompute){0});
    if (st == MZ_OK)
        st = mz_plan_inputs(p.device, p.tape, shapes, config->dtype, run.inputs);
    if (st == MZ_OK)
        st = mz_runner_forward(p.runner, p.tape, &run, &result);
    if (st == MZ_OK)
        *arena_bytes = mz_arena_peak(p.arena);
    planner_close(&p);
    return st;
}

mz_status mz_plan_step(const mz_model *model, const mz_config *config, const mz_batch *shapes, bool training,
                       mz_recompute recompute, mz_plan *plan)
{
    planner p = {0};
    mz_tensor *result = NULL;
    mz_run run = {.goal = MZ_GOAL_LOSS, .training = training};
    double forward_flops = 0;

    mz_status st = planner_open(&p, model, config, training, recompute);
    if (st == MZ_OK)
        st = mz_plan_inputs(p.device, p.tape, shapes, config->dtype, run.inputs);
    if (st == MZ_OK)
        st = mz_runner_forward(p.runner, p.tape, &run, &result);
    if (st == MZ_OK) {
        forward_flops = planner_flops(&p);
        mz_tensor_release(result);
        if (training)
            st = mz_runner_backward(p.runner, p.tape);
    }
    if (st == MZ_OK) {
        plan->arena_bytes = mz_arena_peak(p.arena);
        plan->flops = training ? 0 : forward_flops;
        plan->played_flops = planner_flops(&p);
        /* A recording forward forms the fused loss's gradients too, so count an evaluation's forward
         * instead: forward once, backward twice the work. */
        if (training) {
            mz_plan evaluation;
            st = mz_plan_step(model, config, shapes, false, (mz_recompute){0}, &evaluation);
            plan->flops = 3 * evaluation.flops;
        }
    }
    planner_close(&p);
    return st;
}

/* Degrees of recomputation: first the activation functions' outputs of one more unit each, then the norms'. */
static mz_recompute recompute_at(int degree, int n_units)
{
    return (mz_recompute){degree < n_units ? degree : n_units, degree < n_units ? 0 : degree - n_units};
}

static int degree_of(mz_recompute r, int n_units)
{
    int activations = r.activations < n_units ? r.activations : n_units;
    int norms = r.norms < n_units ? r.norms : n_units;
    return norms > 0 ? n_units + norms : activations;
}

mz_status mz_plan_within(const mz_model *model, const mz_config *config, const mz_batch *shapes, mz_recompute least,
                         size_t room, mz_recompute *recompute, mz_plan *plan)
{
    int n_units = mz_model_n_units(model);
    int low = degree_of(least, n_units) - 1, high = 2 * n_units; /* low is too little, high has to do */
    *recompute = recompute_at(high, n_units);
    mz_status st = mz_plan_step(model, config, shapes, true, *recompute, plan);
    while (st == MZ_OK && plan->arena_bytes <= room && high - low > 1) {
        int middle = low + (high - low) / 2;
        mz_plan trial;
        st = mz_plan_step(model, config, shapes, true, recompute_at(middle, n_units), &trial);
        if (st == MZ_OK && trial.arena_bytes <= room) {
            high = middle;
            *plan = trial;
        } else {
            low = middle;
        }
    }
    *recompute = recompute_at(high, n_units);
    return st;
}

mz_recompute mz_plan_recompute(const mz_config *config)
{
    return config->recompute_cheap ? MZ_RECOMPUTE_ALL : (mz_recompute){0};
}
