/* The engine: one training step as forward, backward, step. */
#include "mpizero/engine.h"

#include <string.h>

#include "core/error.h"
#include "core/log.h"
#include "core/memory.h"
#include "core/threads.h"
#include "optim/schedule.h"
#include "train/engine_impl.h"
#include "train/sources.h"

static const char *const default_no_decay[] = {"bias", "LayerNorm.weight", "layer_norm.weight"};

mz_status mz_start(int ranks_per_node, double timeout_seconds, mz_world **world)
{
    const mz_world_options options = {.ranks_per_node = ranks_per_node, .timeout_seconds = timeout_seconds};
    return mz_world_create(&options, world);
}

void mz_stop(mz_world *world)
{
    mz_world_destroy(world);
}

int mz_world_rank(const mz_world *world)
{
    return world->rank;
}

int mz_world_size(const mz_world *world)
{
    return world->size;
}

static int threads_for(const mz_world *world, int asked)
{
    if (asked > 0)
        return asked;
    int share = mz_cores_available() / world->local_size;
    return share > 0 ? share : 1;
}

static void choose_tf32(mz_engine *engine)
{
    bool is_gpu = strcmp(engine->device->ops->name, "cuda") == 0;
    if (engine->config.tf32 && (!is_gpu || engine->config.dtype != MZ_F32))
        mz_log_root(MZ_LOG_WARN, "TF32 is asked for, but %s: it changes nothing",
                    is_gpu ? "it is for fp32 products, and training is in 16 bits" : "only GPUs have it");
    engine->device->tf32 = engine->config.tf32;
}

static mz_status open_device(mz_engine *engine, const mz_engine_options *options)
{
    int n_threads = threads_for(engine->world, options ? options->n_threads : 0);
    mz_status st =
        mz_world_open_device(engine->world, options ? options->device : NULL, n_threads, &engine->device);
    if (st != MZ_OK)
        return st;
    choose_tf32(engine);
    const mz_device_ops *ops = engine->device->ops;
    st = ops->stream_create(engine->device, MZ_STREAM_COMPUTE, &engine->compute);
    if (st == MZ_OK)
        st = ops->alloc(engine->device, sizeof(float), (void **)&engine->loss_sum);
    if (st == MZ_OK)
        st = ops->alloc_pinned(engine->device, sizeof(float), (void **)&engine->loss_host);
    if (st == MZ_OK)
        st =
            mz_runner_create(engine->model, engine->config.dtype, engine->config.grad_accum_dtype, &engine->runner);
    if (st == MZ_OK)
        mz_runner_set_checkpointing(engine->runner, engine->config.activation_checkpointing_every);
    return st;
}

static mz_status create_zero(mz_engine *engine, const mz_engine_options *options)
{
    mz_zero_options zero_options = {.config = &engine->config,
                                    .device = engine->device,
                                    .comm = engine->comm,
                                    .compute = engine->compute,
                                    .runner = engine->runner,
                                    .no_decay = default_no_decay,
                                    .n_no_decay = sizeof default_no_decay / sizeof *default_no_decay,
                                    .inference = options && options->inference};
    if (options && options->no_decay) {
        zero_options.no_decay = options->no_decay;
        zero_options.n_no_decay = options->n_no_decay;
    }
    mz_status st = mz_zero_create(&zero_options, &engine->zero);
    if (st != MZ_OK)
        return st;
    mz_runner_hooks hooks;
    mz_zero_hooks(engine->zero, &hooks);
    mz_runner_set_hooks(engine->runner, &hooks);
    return MZ_OK;
}

/* A schedule that ends has to know when. */
static mz_status check_schedule(const mz_scheduler_config *schedule)
{
    bool ends = schedule->kind == MZ_SCHED_WARMUP_DECAY || schedule->kind == MZ_SCHED_WARMUP_COSINE;
    if (!ends || schedule->total_num_steps > 0)
        return MZ_OK;
    return mz_fail(
        MZ_ERR_CONFIG,
        "scheduler.params.total_num_steps: expected the run's number of steps, found none; set it in the "
        "file, or total_steps in mz_config_defaults");
}

/* The draws of a large model take minutes of one core. */
static mz_status init_params(mz_engine *engine)
{
    mz_init_source init = {.seed = engine->config.seed};
    mz_status st = mz_threads_create(engine->device->n_threads, &init.threads);
    st = mz_agree(engine->world, st, "starting threads");
    if (st == MZ_OK)
        st = mz_zero_load_params(engine->zero, mz_init_source_read, &init);
    mz_threads_destroy(init.threads);
    return st;
}

mz_status mz_engine_create(mz_world *world, const mz_config *config, const mz_model *model,
                           const mz_engine_options *options, mz_engine **out)
{
    mz_engine *engine = mz_calloc(1, sizeof *engine);
    mz_status st = engine ? MZ_OK : MZ_ERR_MEMORY;
    if (st == MZ_OK) {
        engine->world = world;
        engine->config = *config;
        engine->model = model;
        engine->inference = options && options->inference;
        engine->recompute = mz_plan_recompute(config);
        engine->room_rank = -1;
        mz_loss_scaler_init(&engine->scaler, config);
        st = engine->inference ? MZ_OK : check_schedule(&config->scheduler);
        if (st == MZ_OK)
            st = open_device(engine, options);
    }
    st = mz_agree(world, st, "opening the devices");
    if (st == MZ_OK && world->size > 1)
        st = mz_comm_create(world, engine->device, 0, 0, &engine->comm);
    if (st == MZ_OK)
        st = create_zero(engine, options);
    if (st == MZ_OK)
        st = init_params(engine);
    if (st == MZ_OK)
        st = mz_agree(world, mz_replay_create(engine, &engine->replay), "preparing to replay steps");
    if (st != MZ_OK) {
        mz_engine_destroy(engine);
        return st;
    }
    *out = engine;
    return MZ_OK;
}

void mz_engine_destroy(mz_engine *engine)
{
    if (!engine)
        return;
    char *cause = mz_strdup(mz_last_error()); /* a device that has failed fails again: what was said first stays */
    mz_writer_destroy(engine->writer);
    mz_replay_destroy(engine->replay);
    mz_tape_destroy(engine->tape);
    mz_arena_destroy(engine->arena);
    mz_staging_free(&engine->staging);
    mz_zero_destroy(engine->zero);
    mz_runner_destroy(engine->runner);
    mz_comm_destroy(engine->comm);
    if (engine->device) {
        const mz_device_ops *ops = engine->device->ops;
        if (engine->loss_sum)
            ops->free(engine->device, engine->loss_sum);
        if (engine->loss_host)
            ops->free_pinned(engine->device, engine->loss_host);
        if (engine->compute)
            ops->stream_destroy(engine->compute);
        mz_device_close(engine->device);
    }
    mz_free(engine);
    if (cause)
        mz_fail_adopt(MZ_OK, cause);
    mz_free(cause);
}

/* Which part of the mean over the global batch one target's loss is. */
static double loss_weight(const mz_engine *engine, const mz_batch *batch)
{
    if (batch->n_targets_global > 0)
        return 1.0 / (double)batch->n_targets_global;
    int64_t mine = mz_batch_targets(batch);
    double micro_batches = (double)engine->config.gradient_accumulation_steps * engine->world->size;
    return mine > 0 ? 1.0 / ((double)mine * micro_batches) : 0;
}

/* An empty tape, and the batch on its way to the device. */
static mz_status put_inputs(mz_engine *engine, const mz_batch *batch, mz_run *run, const mz_step_scalars *scalars)
{
    mz_tape_reset(engine->tape);
    memset(engine->inputs, 0, sizeof engine->inputs);
    mz_status st = mz_staging_put(&engine->staging, engine->tape, engine->compute, scalars, batch,
                                  engine->config.dtype, engine->inputs);
    if (st == MZ_OK)
        memcpy(run->inputs, engine->inputs, sizeof run->inputs);
    return st;
}

mz_status mz_engine_run_forward(mz_engine *engine, const mz_batch *batch, mz_run *run,
                                const mz_step_scalars *scalars, mz_tensor **result)
{
    mz_status st = put_inputs(engine, batch, run, scalars);
    return st == MZ_OK ? mz_runner_forward(engine->runner, engine->tape, run, result) : st;
}

/* loss_sum = first ? loss : loss_sum + loss */
static mz_status add_loss(mz_engine *engine, const mz_tensor *loss, bool first)
{
    const mz_device_ops *ops = engine->device->ops;
    if (first)
        return ops->copy(engine->compute, engine->loss_sum, mz_tensor_data(loss), sizeof(float));
    const mz_add_args add = {.n = 1,
                             .alpha = 1,
                             .beta = 1,
                             .a = engine->loss_sum,
                             .b = mz_tensor_data(loss),
                             .y = engine->loss_sum,
                             .dtype = MZ_F32};
    return ops->kernels->add(&add, engine->compute);
}

mz_status mz_engine_forward_pass(mz_engine *engine, mz_run *run)
{
    mz_tensor *loss = NULL;
    mz_status st = mz_runner_forward(engine->runner, engine->tape, run, &loss);
    if (st == MZ_OK)
        st = add_loss(engine, loss, engine->micro == 0);
    mz_tensor_release(loss);
    return st;
}

mz_status mz_engine_backward_pass(mz_engine *engine)
{
    mz_status st = mz_runner_backward(engine->runner, engine->tape);
    return st == MZ_OK ? mz_zero_end_micro(engine->zero) : st;
}

static mz_status begin_micro(mz_engine *engine, const mz_batch *batch, mz_run *run, const mz_step_scalars *scalars)
{
    bool last = engine->micro + 1 == engine->config.gradient_accumulation_steps;
    mz_status st = mz_zero_begin_micro(engine->zero, true, engine->micro == 0, last);
    return st == MZ_OK ? put_inputs(engine, batch, run, scalars) : st;
}

mz_status mz_engine_forward(mz_engine *engine, const mz_batch *batch)
{
    if (engine->inference)
        return mz_fail(MZ_ERR_ARGUMENT, "mz_engine_forward: this engine was created for inference");
    if (engine->needs_backward)
        return mz_fail(MZ_ERR_ARGUMENT, "mz_engine_forward: the last forward has had no mz_engine_backward");
    mz_status st = mz_engine_reserve(engine, batch, true);
    if (st != MZ_OK)
        return st;
    int64_t n_micro = engine->config.gradient_accumulation_steps;
    if (engine->micro >= n_micro)
        return mz_fail(MZ_ERR_ARGUMENT, "mz_engine_forward: mz_engine_step is due after %lld micro-batches",
                       (long long)n_micro);

    double weight = loss_weight(engine, batch);
    double grad_factor = engine->scaler.scale * mz_zero_grad_weight_factor(engine->zero);
    const mz_step_scalars scalars = {
        .rng = {.seed = engine->config.seed,
                .step = (uint64_t)engine->steps,
                .first_sample = (engine->micro * engine->world->size + engine->world->rank) * batch->n_samples},
        .loss_weight = (float)weight,
        .grad_weight = (float)(weight * grad_factor),
    };
    mz_run run = {.goal = MZ_GOAL_LOSS, .training = true};
    st = begin_micro(engine, batch, &run, &scalars);
    mz_replay_verdict verdict = st == MZ_OK ? mz_replay_prepare(engine->replay, batch, &run) : MZ_REPLAY_LAUNCH;
    if (verdict == MZ_REPLAY_SPOILED)
        st = begin_micro(engine, batch, &run, &scalars);
    engine->replays = verdict == MZ_REPLAY_READY;
    if (st == MZ_OK)
        st = engine->replays ? mz_replay_forward(engine->replay) : mz_engine_forward_pass(engine, &run);
    if (st == MZ_OK) {
        engine->needs_backward = true;
        engine->tokens += mz_batch_targets(batch);
    }
    return st;
}

mz_status mz_engine_backward(mz_engine *engine)
{
    if (!engine->needs_backward)
        return mz_fail(MZ_ERR_ARGUMENT, "mz_engine_backward: no mz_engine_forward came before");
    mz_status st = engine->replays ? mz_replay_backward(engine->replay) : mz_engine_backward_pass(engine);
    engine->needs_backward = false;
    engine->micro++;
    return st;
}

/* The host's view of the step: the global loss, how many tokens went into it, and whether a rank wants to stop. It
 * comes before the update, so that the gathers which the update leaves running hide behind the next forward.
 * Without other ranks to ask, the loss is left under way, and the update waits for it. */
static mz_status gather_loss(mz_engine *engine, mz_step_info *info)
{
    const mz_device_ops *ops = engine->device->ops;
    double sums[3] = {0, (double)engine->tokens, engine->stop_vote};
    mz_status st = ops->copy(engine->compute, engine->loss_host, engine->loss_sum, sizeof(float));
    if (st == MZ_OK && engine->comm)
        st = ops->stream_sync(engine->compute);
    if (st != MZ_OK)
        return st;
    if (engine->comm) {
        sums[0] = *engine->loss_host;
        st = mz_all_reduce_host(engine->comm, sums, 3, false, "loss of the step");
    }
    info->loss = sums[0];
    info->tokens = (int64_t)sums[1];
    engine->stop_agreed = sums[2] > 0;
    return st;
}

mz_status mz_engine_step(mz_engine *engine, mz_step_info *out)
{
    mz_step_info info = {.boundary = engine->micro == engine->config.gradient_accumulation_steps};
    mz_status st = MZ_OK;
    if (!info.boundary)
        goto out;

    mz_zero_step_info step = {.loss_scale = engine->scaler.scale,
                              .clip = engine->config.gradient_clipping,
                              .step = engine->steps - engine->skipped + 1,
                              .beta1 = engine->config.optimizer.beta1};
    mz_schedule_at(&engine->config.scheduler, engine->config.optimizer.lr, step.step - 1, &step.lr, &step.beta1);
    st = gather_loss(engine, &info);
    if (st == MZ_OK && engine->writer)
        st = mz_writer_settle(engine->writer); /* a checkpoint under way is of the state before this update */
    step.checksums = engine->save_due || engine->stop_agreed;
    if (st == MZ_OK && step.checksums)
        st = mz_engine_open_writer(engine);
    if (st == MZ_OK)
        st = mz_zero_update(engine->zero, &step);
    if (st != MZ_OK)
        goto out;
    if (!engine->comm)
        info.loss = *engine->loss_host;

    info.loss_scale = engine->scaler.scale;
    info.learning_rate = step.lr;
    info.grad_norm = step.grad_norm;
    info.skipped = step.overflow;
    engine->steps++;
    engine->skipped += step.overflow;
    engine->micro = 0;
    engine->tokens = 0;
    info.step = engine->steps;
    if (step.overflow && !engine->scaler.dynamic)
        st = mz_fail(MZ_ERR_NONFINITE,
                     "step %lld: the gradient of %s is not finite (loss %g). Nothing was updated; the last "
                     "checkpoint is good. Lower the learning rate%s",
                     (long long)engine->steps, step.nonfinite_name, info.loss,
                     engine->config.dtype == MZ_F16 ? ", or train in bf16" : "");
    else
        st = mz_loss_scaler_update(&engine->scaler, step.overflow);
out:
    if (out)
        *out = info;
    return st;
}

mz_status mz_engine_check_idle(const mz_engine *engine, const char *function)
{
    return engine->needs_backward
               ? mz_fail(MZ_ERR_ARGUMENT,
                         "%s: the last forward has had no mz_engine_backward, which needs what it left", function)
               : MZ_OK;
}

mz_status mz_engine_eval(mz_engine *engine, const mz_batch *batch, double *loss_sum, double *n_targets)
{
    mz_status st = mz_engine_check_idle(engine, "mz_engine_eval");
    if (st != MZ_OK)
        return st;
    st = mz_engine_reserve(engine, batch, false);
    if (st != MZ_OK)
        return st;
    const mz_step_scalars scalars = {.loss_weight = 1, .grad_weight = 1};
    mz_run run = {.goal = MZ_GOAL_LOSS};
    mz_tensor *loss = NULL;
    st = mz_zero_begin_micro(engine->zero, false, false, false);
    if (st == MZ_OK)
        st = mz_engine_run_forward(engine, batch, &run, &scalars, &loss);
    if (st == MZ_OK)
        st = engine->device->ops->copy(engine->compute, engine->loss_host, mz_tensor_data(loss), sizeof(float));
    if (st == MZ_OK)
        st = engine->device->ops->stream_sync(engine->compute);
    mz_tensor_release(loss);
    double sums[2] = {st == MZ_OK ? *engine->loss_host : 0, (double)mz_batch_targets(batch)};
    if (st == MZ_OK)
        st = mz_zero_end_micro(engine->zero);
    if (st == MZ_OK && engine->comm)
        st = mz_all_reduce_host(engine->comm, sums, 2, false, "loss of an evaluation");
    *loss_sum = sums[0];
    *n_targets = sums[1];
    return st;
}

int64_t mz_engine_steps(const mz_engine *engine)
{
    return engine->steps;
}

const mz_config *mz_engine_config(const mz_engine *engine)
{
    return &engine->config;
}
