/* The arena: planned, checked against what there is, taken. */
#include <stdio.h>
#include <string.h>

#include "core/error.h"
#include "core/log.h"
#include "core/memory.h"
#include "train/engine_impl.h"

#define GIB (1024.0 * 1024.0 * 1024.0)
enum { MAX_PLANNED_INPUTS = MZ_N_INPUTS };

/* The largest micro-batch whose arena fits into `room` bytes, by halving the interval; 0 when not even one
 * sample does. */
static int64_t largest_batch(const mz_engine *engine, const mz_batch *shapes, bool training, size_t room)
{
    int64_t low = 0, high = shapes->n_samples; /* low fits, high does not */
    mz_host_input inputs[MAX_PLANNED_INPUTS];
    mz_batch trial = *shapes;
    trial.inputs = inputs;
    while (high - low > 1) {
        int64_t middle = (low + high) / 2;
        for (int i = 0; i < shapes->n_inputs; i++) {
            inputs[i] = shapes->inputs[i];
            inputs[i].shape[0] = middle;
        }
        trial.n_samples = middle;
        mz_plan plan;
        bool fits =
            mz_plan_step(engine->model, &engine->config, &trial, training, MZ_RECOMPUTE_ALL, &plan) == MZ_OK &&
            plan.arena_bytes <= room;
        *(fits ? &low : &high) = middle;
    }
    return low;
}

static mz_status out_of_memory(const mz_engine *engine, const mz_batch *shapes, bool training, size_t need,
                               size_t room)
{
    int64_t fits = largest_batch(engine, shapes, training, room);
    char advice[160], place[192];
    if (engine->room_rank >= 0 && engine->room_rank != engine->world->rank)
        snprintf(place, sizeof place, "rank %d, which has the least", engine->room_rank);
    else
        snprintf(place, sizeof place, "rank %d's %s", engine->world->rank, engine->device->label);
    if (fits > 0)
        snprintf(advice, sizeof advice, "A micro-batch of %lld fits (--per-device-%s-batch-size %lld)",
                 (long long)fits, training ? "train" : "eval", (long long)fits);
    else
        snprintf(advice, sizeof advice,
                 "Not even one sample fits: use more ranks, a higher ZeRO stage or a shorter "
                 "block");
    return mz_fail(
        MZ_ERR_MEMORY,
        "the activations of a micro-batch of %lld need %.2f GiB, %.2f GiB are free beside the model's "
        "state on %s. %s%s",
        (long long)shapes->n_samples, (double)need / GIB, (double)room / GIB, place, advice,
        !training || engine->config.activation_checkpointing_every ? "" : "; --gradient-checkpointing needs less");
}

/* Room for the arena: what is free now and what the present arena gives back, less a reserve; where all ranks have
 * compared, as much as the rank with the least has. */
static mz_status room_for_arena(const mz_engine *engine, size_t *room)
{
    size_t free_bytes = 0, total = 0;
    if (engine->room_rank >= 0) {
        *room = engine->room;
        return MZ_OK;
    }
    mz_status st = engine->device->ops->memory_info(engine->device, &free_bytes, &total);
    if (st != MZ_OK)
        return st;
    size_t reserve = total / 64;
    free_bytes = free_bytes / (size_t)engine->device->n_sharing + engine->arena_bytes; /* others take theirs, too */
    *room = free_bytes > reserve ? free_bytes - reserve : 0;
    return MZ_OK;
}

static mz_status replace_arena(mz_engine *engine, size_t bytes)
{
    mz_replay_forget(engine->replay);
    mz_tape_destroy(engine->tape);
    mz_arena_destroy(engine->arena);
    engine->tape = NULL;
    engine->arena = NULL;
    engine->arena_bytes = 0;
    mz_status st = mz_arena_create(engine->device, bytes, &engine->arena);
    if (st == MZ_OK)
        engine->arena_bytes = bytes;
    return st;
}

/* The tape knows where the scalars lie, so it is made anew when the staging moves. */
static mz_status replace_tape(mz_engine *engine)
{
    const mz_step_scalars *scalars = mz_staging_scalars(&engine->staging);
    const mz_tape_options options = {.device = engine->device,
                                     .stream = engine->compute,
                                     .arena = engine->arena,
                                     .dtype = engine->config.dtype,
                                     .grad_request = mz_zero_grad_request,
                                     .grad_context = engine->zero,
                                     .rng = &scalars->rng,
                                     .loss_weight = &scalars->loss_weight,
                                     .grad_weight = &scalars->grad_weight,
                                     .recompute = engine->recompute};
    mz_replay_forget(engine->replay);
    mz_tape_destroy(engine->tape);
    engine->tape = NULL;
    return mz_tape_create(&options, &engine->tape);
}

/* Of many shapes the last slot is used again and again: planning twice is harmless. */
static void remember(mz_engine *engine, mz_shape_key key)
{
    if (engine->n_planned < MZ_MAX_PLANNED)
        engine->n_planned++;
    engine->planned[engine->n_planned - 1] = key;
}

static bool is_planned(const mz_engine *engine, mz_shape_key key)
{
    for (int i = 0; i < engine->n_planned; i++) {
        const mz_shape_key *known = &engine->planned[i];
        if (known->hash == key.hash && known->training == key.training && known->logits == key.logits &&
            known->last_position_only == key.last_position_only)
            return true;
    }
    return false;
}

/* The same step with less kept and a little more computed, so that it takes no more than `room` if that can be. */
static mz_status plan_thriftily(mz_engine *engine, const mz_batch *shapes, size_t room, mz_plan *plan)
{
    double before = (double)plan->arena_bytes, flops = plan->flops;
    mz_recompute recompute;
    mz_status st =
        mz_plan_within(engine->model, &engine->config, shapes, engine->recompute, room, &recompute, plan);
    plan->flops = flops;
    if (st != MZ_OK || plan->arena_bytes > room)
        return st;
    engine->recompute = recompute;
    mz_log_root(
        MZ_LOG_INFO,
        "activations would need %.2f GiB: outputs of activation functions in %d units and of layer norms in %d "
        "are computed again in the backward pass, which leaves %.2f GiB",
        before / GIB, recompute.activations, recompute.norms, (double)plan->arena_bytes / GIB);
    return MZ_OK;
}

/* mpizero.activation_memory */
static mz_status keep_within_limit(mz_engine *engine, const mz_batch *shapes, mz_plan *plan)
{
    double limit = engine->config.activation_memory * GIB;
    if (limit == 0 || (double)plan->arena_bytes <= limit)
        return MZ_OK;
    mz_status st = plan_thriftily(engine, shapes, (size_t)limit, plan);
    if (st != MZ_OK || (double)plan->arena_bytes <= limit)
        return st;
    return mz_fail(
        MZ_ERR_MEMORY,
        "activations of a micro-batch of %lld need %.2f GiB at least, --activation-memory allows %.2f: give "
        "more, a smaller --per-device-train-batch-size, or --gradient-checkpointing",
        (long long)shapes->n_samples, (double)plan->arena_bytes / GIB, engine->config.activation_memory);
}

static bool recomputes_all(const mz_engine *engine)
{
    return engine->recompute.norms >= mz_model_n_units(engine->model);
}

mz_status mz_engine_reserve(mz_engine *engine, const mz_batch *shapes, bool training)
{
    mz_shape_key key = mz_shape_key_of(shapes, training);
    if (is_planned(engine, key))
        return MZ_OK;

    mz_plan plan;
    size_t staging = mz_staging_bytes(shapes, engine->config.dtype);
    mz_status st = mz_plan_step(engine->model, &engine->config, shapes, training, engine->recompute, &plan);
    mz_recompute before = engine->recompute;
    if (st == MZ_OK && training)
        st = keep_within_limit(engine, shapes, &plan);
    if (st != MZ_OK)
        return st;
    if (training)
        engine->flops_per_micro = plan.flops;
    bool grew = false;
    if (plan.arena_bytes > engine->arena_bytes) {
        size_t room = 0;
        st = room_for_arena(engine, &room);
        if (st == MZ_OK && plan.arena_bytes > room && training && !recomputes_all(engine))
            st = plan_thriftily(engine, shapes, room, &plan);
        if (st == MZ_OK && plan.arena_bytes > room)
            st = out_of_memory(engine, shapes, training, plan.arena_bytes, room);
        if (st == MZ_OK)
            st = replace_arena(engine, plan.arena_bytes);
        grew = true;
    }
    if (st == MZ_OK && staging > engine->staging.bytes) {
        st = mz_staging_reserve(&engine->staging, engine->device, staging);
        grew = true;
    }
    grew = grew || before.activations != engine->recompute.activations || before.norms != engine->recompute.norms;
    if (st == MZ_OK && (grew || !engine->tape))
        st = replace_tape(engine);
    if (st == MZ_OK)
        remember(engine, key);
    return st;
}

/* A planned arena may be too small for logits; a growing one never is. */
static mz_status plan_logits(mz_engine *engine, const mz_batch *shapes, bool last_position_only, bool *moved)
{
    mz_shape_key key = mz_shape_key_of(shapes, false);
    key.logits = true;
    key.last_position_only = last_position_only;
    if (is_planned(engine, key))
        return MZ_OK;
    size_t bytes = 0;
    mz_status st = mz_plan_logits(engine->model, &engine->config, shapes, last_position_only, &bytes);
    if (st == MZ_OK && bytes > engine->arena_bytes) {
        st = replace_arena(engine, bytes);
        *moved = true;
    }
    if (st == MZ_OK)
        remember(engine, key);
    return st;
}

mz_status mz_engine_reserve_logits(mz_engine *engine, const mz_batch *shapes, bool last_position_only)
{
    size_t staging = mz_staging_bytes(shapes, engine->config.dtype);
    bool moved = staging > engine->staging.bytes;
    mz_status st = mz_staging_reserve(&engine->staging, engine->device, staging);
    if (st == MZ_OK && engine->arena_bytes > 0)
        st = plan_logits(engine, shapes, last_position_only, &moved);
    if (st == MZ_OK && !engine->arena) {
        st = mz_arena_create(engine->device, 0, &engine->arena);
        moved = true;
    }
    if (st == MZ_OK && (moved || !engine->tape))
        st = replace_tape(engine);
    return st;
}

mz_shape_key mz_shape_key_of(const mz_batch *shapes, bool training)
{
    uint64_t hash = 1469598103934665603u;
    for (int i = 0; i < shapes->n_inputs; i++) {
        const mz_host_input *input = &shapes->inputs[i];
        hash = (hash ^ (uint64_t)input->role) * 1099511628211u;
        for (int d = 0; d < input->n_dims; d++)
            hash = (hash ^ (uint64_t)input->shape[d]) * 1099511628211u;
    }
    return (mz_shape_key){.hash = hash, .training = training};
}

/* Collective. The least room that a rank has, so that all come to the same decision and message. */
static mz_status agree_on_room(mz_engine *engine)
{
    struct {
        double room;
        int rank;
    } mine = {0, engine->world->rank}, least;
    size_t room = 0;
    mz_status st = room_for_arena(engine, &room);
    st = mz_agree(engine->world, st, "asking for free memory");
    if (st != MZ_OK)
        return st;
    mine.room = (double)room;
    if (MPI_Allreduce(&mine, &least, 1, MPI_DOUBLE_INT, MPI_MINLOC, engine->world->comm) != MPI_SUCCESS)
        return mz_fail(MZ_ERR_COMM, "comparing free memory: MPI_Allreduce failed");
    engine->room = (size_t)least.room;
    engine->room_rank = least.rank;
    return MZ_OK;
}

mz_status mz_engine_plan_for(mz_engine *engine, const mz_batch *shapes, bool training)
{
    mz_status st = agree_on_room(engine);
    if (st == MZ_OK)
        st = mz_agree(engine->world, mz_engine_reserve(engine, shapes, training), "planning a step");
    engine->room_rank = -1;
    return st;
}

mz_status mz_engine_plan(mz_engine *engine, const mz_batch *shapes)
{
    return mz_engine_plan_for(engine, shapes, true);
}

int64_t mz_engine_memory_bytes(const mz_engine *engine)
{
    const mz_device_ops *ops = engine->device->ops;
    size_t free_bytes = 0, total = 0;
    if (strcmp(ops->name, "cpu") == 0 || ops->memory_info(engine->device, &free_bytes, &total) != MZ_OK)
        return (int64_t)mz_memory_resident();
    return (int64_t)(total - free_bytes);
}
