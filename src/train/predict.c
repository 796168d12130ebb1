#include "train/predict.h"

#include "comm/predicted.h"

/* Larger than any machine. */
#define PLAY_ARENA ((size_t)1 << 46)

typedef struct player {
    mz_device *device;
    mz_stream *stream;
    mz_arena *arena;
    mz_comm *comm;
    mz_runner *runner;
    mz_zero *zero;
    mz_tape *tape;
} player;

double mz_flops_per_token(const mz_model *model, int64_t block_size)
{
    const mz_model_info *info = mz_model_get_info(model);
    return 6.0 * (double)mz_model_n_params(model) +
           12.0 * (double)info->layers * (double)info->heads * (double)info->head_size * (double)block_size;
}

static void player_close(player *p)
{
    mz_tape_destroy(p->tape);
    mz_zero_destroy(p->zero);
    mz_runner_destroy(p->runner);
    mz_comm_destroy(p->comm);
    mz_arena_destroy(p->arena);
    if (p->stream)
        p->device->ops->stream_destroy(p->stream);
    mz_device_close(p->device);
}

static mz_status open_zero(player *p, const mz_config *config, int n_nodes, int per_node, const mz_links *links)
{
    static const char *const no_decay[] = {"bias"};
    mz_zero_options options = {.config = config,
                               .device = p->device,
                               .compute = p->stream,
                               .runner = p->runner,
                               .no_decay = no_decay,
                               .n_no_decay = 1};
    mz_status st = MZ_OK;
    if (n_nodes * per_node > 1)
        st = mz_comm_create_predicted(p->device, n_nodes, per_node, links, &p->comm);
    options.comm = p->comm;
    if (st == MZ_OK)
        st = mz_zero_create(&options, &p->zero);
    if (st != MZ_OK)
        return st;
    mz_runner_hooks hooks;
    mz_zero_hooks(p->zero, &hooks);
    mz_runner_set_hooks(p->runner, &hooks);
    mz_runner_set_checkpointing(p->runner, config->activation_checkpointing_every);
    return MZ_OK;
}

static mz_status player_open(player *p, const mz_model *model, const mz_config *config, int n_nodes, int per_node,
                             const mz_links *links)
{
    mz_status st = mz_device_open("meta", 0, 1, &p->device);
    if (st == MZ_OK)
        st = p->device->ops->stream_create(p->device, MZ_STREAM_COMPUTE, &p->stream);
    if (st == MZ_OK)
        st = mz_arena_create(p->device, PLAY_ARENA, &p->arena);
    if (st == MZ_OK)
        st = mz_runner_create(model, config->dtype, config->grad_accum_dtype, &p->runner);
    if (st == MZ_OK)
        st = open_zero(p, config, n_nodes, per_node, links);
    static const mz_rng_state never_read; /* its presence makes dropout take its tensors */
    const mz_tape_options options = {.device = p->device,
                                     .stream = p->stream,
                                     .arena = p->arena,
                                     .dtype = config->dtype,
                                     .rng = &never_read,
                                     .grad_request = mz_zero_grad_request,
                                     .grad_context = p->zero,
                                     .recompute = mz_plan_recompute(config)};
    return st == MZ_OK ? mz_tape_create(&options, &p->tape) : st;
}

static mz_status play_micro(player *p, const mz_batch *shapes, mz_dtype dtype, bool first, bool last)
{
    mz_tensor *loss = NULL;
    mz_run run = {.goal = MZ_GOAL_LOSS, .training = true};
    mz_tape_reset(p->tape);
    mz_status st = mz_zero_begin_micro(p->zero, true, first, last);
    if (st == MZ_OK)
        st = mz_plan_inputs(p->device, p->tape, shapes, dtype, run.inputs);
    if (st == MZ_OK)
        st = mz_runner_forward(p->runner, p->tape, &run, &loss);
    mz_tensor_release(loss);
    if (st == MZ_OK)
        st = mz_runner_backward(p->runner, p->tape);
    return st == MZ_OK ? mz_zero_end_micro(p->zero) : st;
}

static mz_status play_step(player *p, const mz_batch *shapes, const mz_config *config)
{
    double sums[3] = {0};
    mz_zero_step_info info = {.lr = 1, .beta1 = 0.9, .loss_scale = 1, .clip = config->gradient_clipping, .step = 1};
    mz_status st = MZ_OK;
    for (int64_t i = 0, n = config->gradient_accumulation_steps; i < n && st == MZ_OK; i++)
        st = play_micro(p, shapes, config->dtype, i == 0, i + 1 == n);
    if (st == MZ_OK)
        st = p->device->ops->stream_sync(p->stream);
    if (st == MZ_OK && p->comm)
        st = mz_all_reduce_host(p->comm, sums, 3, false, "loss of the step");
    return st == MZ_OK ? mz_zero_update(p->zero, &info) : st;
}

/* The pace at which a pass of one micro-batch, recomputation left out, takes the time that the rates say. What is
 * counted on the way differs a little from the formula's work, which knows no causal mask. */
static mz_status find_pace(const mz_model *model, const mz_config *config, const mz_batch *shapes,
                           const mz_rates *rates, mz_meta_pace *pace)
{
    mz_config plain = *config;
    mz_plan plan;
    double tokens = (double)shapes->inputs[0].shape[0] * (double)shapes->inputs[0].shape[1];
    plain.activation_checkpointing_every = 0;
    *pace = (mz_meta_pace){.seconds_per_update = rates->updates > 0 ? 1 / rates->updates : 0};
    if (rates->flops <= 0)
        return MZ_OK;
    mz_status st = mz_plan_step(model, &plain, shapes, true, (mz_recompute){0}, &plan);
    if (st == MZ_OK)
        pace->seconds_per_flop =
            tokens * mz_flops_per_token(model, shapes->inputs[0].shape[1]) / rates->flops / plan.played_flops;
    return st;
}

mz_status mz_predict_step(const mz_model *model, const mz_config *config, const mz_batch *shapes, int n_nodes,
                          int per_node, const mz_rates *rates, mz_prediction *prediction)
{
    player p = {0};
    mz_meta_pace pace;
    mz_comm_stats before = {0}, after = {0};
    double begin = 0, end = 0;
    mz_status st = find_pace(model, config, shapes, rates, &pace);
    if (st == MZ_OK)
        st = player_open(&p, model, config, n_nodes, per_node, &rates->links);
    if (st == MZ_OK)
        st = mz_device_meta_set_pace(p.device, &pace);
    if (st == MZ_OK)
        st = play_step(&p, shapes, config);
    if (st == MZ_OK) {
        mz_comm_get_stats(p.comm, &before);
        mz_zero_exposed_seconds(p.zero);
        st = mz_device_meta_now(p.device, p.stream, &begin);
    }
    if (st == MZ_OK)
        st = play_step(&p, shapes, config);
    if (st == MZ_OK)
        st = mz_device_meta_now(p.device, p.stream, &end);
    if (st == MZ_OK) {
        mz_comm_get_stats(p.comm, &after);
        mz_zero_get_memory(p.zero, &prediction->memory);
        double sent_out = after.bytes_between_nodes - before.bytes_between_nodes;
        prediction->exposed = mz_zero_exposed_seconds(p.zero);
        prediction->communication = after.seconds - before.seconds;
        double hidden = prediction->communication - prediction->exposed;
        prediction->step = end - begin + (hidden > 0 ? rates->overlap_cost * hidden : 0);
        prediction->sent = after.bytes_in_node - before.bytes_in_node + sent_out;
        prediction->received = sent_out * per_node;
    }
    player_close(&p);
    return st;
}
