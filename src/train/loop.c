/* The training run. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "comm/conclude.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/file.h"
#include "core/log.h"
#include "core/memory.h"
#include "train/engine_impl.h"
#include "train/eval_loop.h"
#include "train/peak.h"
#include "train/progress.h"
#include "train/report.h"
#include "train/resume_check.h"
#include "train/setup.h"
#include "train/signals.h"
#include "train/trackers.h"
#include "train/train.h"

typedef struct run {
    mz_world *world;
    const mz_train_options *options;
    const char *output;
    mz_setup setup;
    mz_engine *engine;
    mz_token_batch tokens;
    mz_trackers *trackers; /* rank 0 */
    mz_progress progress;
    int64_t save_steps, eval_steps, last_saved;
    bool save_failed;
    mz_step_times times;
} run;

/* ---- one step ---- */

/* This rank's micro-batch `micro` of optimiser step `step`. */
static void fill_batch(run *r, int64_t step, int64_t micro)
{
    int64_t b = r->tokens.batch.n_samples, block = r->setup.block_size;
    for (int64_t i = 0; i < b; i++) {
        int64_t position = (micro * r->world->size + r->world->rank) * b + i;
        int64_t sample = mz_sampler_at(&r->setup.sampler, step, position);
        mz_dataset_block(r->setup.train, sample, r->tokens.ids + i * block, r->tokens.labels + i * block);
    }
    r->tokens.batch.n_targets = b * (block - 1);
    r->tokens.batch.n_targets_global = r->setup.sampler.global_batch * (block - 1);
}

/* Are checkpoints due at this step, whatever signals say? */
static bool save_due(const run *r, int64_t step)
{
    return step == r->setup.max_steps || (r->save_steps > 0 && step % r->save_steps == 0);
}

/* Says where a device failed, to the other ranks too. Its work runs behind the host's, so `part` is where that was
 * noticed. */
static mz_status blame(const run *r, int64_t step, const char *part, mz_status st)
{
    char reason[900];
    if (st != MZ_ERR_DEVICE)
        return st;
    snprintf(reason, sizeof reason, "%s", mz_last_error());
    mz_fail(st, "rank %d on %s, step %lld, %s: %s", r->world->rank, r->engine->device->label, (long long)step + 1,
            part, reason);
    if (r->engine->comm)
        mz_comm_fail(r->engine->comm, st, mz_last_error());
    return st;
}

static mz_status train_step(run *r, mz_metrics *metrics)
{
    double begin = mz_clock_seconds();
    int64_t step = mz_engine_steps(r->engine);
    r->engine->save_due = save_due(r, step + 1);
    mz_step_info info = {0};
    mz_status st = MZ_OK;
    for (int64_t micro = 0; micro < r->setup.config.gradient_accumulation_steps && st == MZ_OK; micro++) {
        double times[4] = {mz_clock_seconds()};
        fill_batch(r, step, micro);
        st = blame(r, step, "forward pass", mz_engine_forward(r->engine, &r->tokens.batch));
        times[1] = mz_clock_seconds();
        if (st == MZ_OK)
            st = blame(r, step, "backward pass", mz_engine_backward(r->engine));
        times[2] = mz_clock_seconds();
        r->engine->stop_vote = mz_signals_pending() != 0;
        if (st == MZ_OK)
            st = blame(r, step, "update", mz_engine_step(r->engine, &info));
        times[3] = mz_clock_seconds();
        mz_step_times_add(&r->times, times);
    }
    int64_t tokens = r->setup.sampler.global_batch * r->setup.block_size;
    *metrics = (mz_metrics){.step = step + 1,
                            .epoch = mz_sampler_epoch(&r->setup.sampler, step + 1),
                            .tokens_seen = (step + 1) * tokens,
                            .memory_bytes = mz_engine_memory_bytes(r->engine),
                            .loss = info.loss,
                            .learning_rate = info.learning_rate,
                            .grad_norm = info.grad_norm,
                            .loss_scale = info.loss_scale,
                            .skipped = info.skipped,
                            .exposed_seconds = st == MZ_OK ? mz_zero_exposed_seconds(r->engine->zero) : 0,
                            .step_seconds = mz_clock_seconds() - begin};
    metrics->tokens_per_second = (double)tokens / metrics->step_seconds;
    return st;
}

/* ---- between steps ---- */

static mz_status evaluate(run *r, const mz_metrics *at)
{
    mz_metrics metrics = {
        .step = at->step, .epoch = at->epoch, .tokens_seen = at->tokens_seen, .memory_bytes = at->memory_bytes};
    mz_status st = mz_eval_loop(r->world, r->engine, &r->setup, &metrics);
    if (st == MZ_OK) {
        mz_trackers_put(r->trackers, &metrics);
        mz_progress_eval(&r->progress, &metrics);
    }
    return st;
}

/* A save that fails for want of space must not end the run: the older checkpoint is still good. */
static mz_status tolerate(run *r, mz_status st)
{
    if (st == MZ_OK) {
        r->save_failed = false;
        return MZ_OK;
    }
    if (st != MZ_ERR_IO && st != MZ_ERR_PEER)
        return st;
    r->save_failed = true;
    mz_log_root(MZ_LOG_WARN,
                "the checkpoint could not be written: %s. Training goes on; older checkpoints are kept",
                mz_last_error());
    return MZ_OK;
}

static mz_status save(run *r, bool asynchronous)
{
    int64_t step = mz_engine_steps(r->engine);
    char *extra =
        mz_strprintf("{\"global_batch\":%lld,\"block_size\":%lld,\"data\":\"%016llx\",\"shuffle\":%s,"
                     "\"seed\":%llu}",
                     (long long)r->setup.sampler.global_batch, (long long)r->setup.block_size,
                     (unsigned long long)mz_dataset_fingerprint(r->setup.train),
                     r->setup.sampler.shuffle ? "true" : "false", (unsigned long long)r->setup.sampler.seed);
    if (!extra)
        return MZ_ERR_MEMORY;
    int keep = r->options->save_total_limit > 0 ? r->options->save_total_limit : 0;
    mz_status st = tolerate(r, mz_engine_save(r->engine, r->output, asynchronous, keep, extra));
    mz_free(extra);
    r->last_saved = step;
    if (!r->save_failed)
        mz_progress_say(&r->progress, "saving %s/checkpoints/step-%06lld", r->output, (long long)step);
    return st;
}

static mz_status after_step(run *r, const mz_metrics *metrics, bool *stop)
{
    *stop = r->engine->stop_agreed; /* all ranks hear of a signal at the same step */
    mz_trackers_put(r->trackers, metrics);
    mz_progress_step(&r->progress, metrics);
    mz_report_step(&r->setup.config, r->engine, &r->progress, metrics, &r->times);
    bool last = metrics->step == r->setup.max_steps;
    mz_status st = MZ_OK;
    if (!*stop && r->setup.validation && (last || (r->eval_steps > 0 && metrics->step % r->eval_steps == 0)))
        st = evaluate(r, metrics);
    if (st == MZ_OK && (*stop || save_due(r, metrics->step)))
        st = save(r, r->options->save_async && !*stop && !last);
    return st;
}

/* ---- start and end ---- */

static mz_status check_extra(const run *r, const char *extra)
{
    char data[32];
    snprintf(data, sizeof data, "%016llx", (unsigned long long)mz_dataset_fingerprint(r->setup.train));
    return mz_resume_check(extra, r->setup.sampler.global_batch, r->setup.block_size, data, r->setup.sampler.seed,
                           r->setup.sampler.shuffle);
}

static mz_status resume(run *r)
{
    const char *from = r->options->resume;
    char *folder = NULL, *extra = NULL;
    mz_status st = strcmp(from, "latest") == 0 ? mz_checkpoint_find_latest(r->output, &folder)
                                               : ((folder = mz_strdup(from)) ? MZ_OK : MZ_ERR_MEMORY);
    st = mz_agree(r->world, st, "finding the checkpoint");
    if (st == MZ_OK)
        st = mz_engine_load(r->engine, folder, &extra);
    if (st == MZ_OK)
        st = mz_agree(r->world, check_extra(r, extra), "comparing with the checkpoint");
    if (st == MZ_OK)
        mz_progress_say(&r->progress, "resumed from %s at step %lld (saved loss scale %g)", folder,
                        (long long)mz_engine_steps(r->engine), r->engine->scaler.scale);
    r->last_saved = st == MZ_OK ? mz_engine_steps(r->engine) : -1;
    free(extra);
    mz_free(folder);
    return st;
}

static mz_status load_start(run *r)
{
    if (r->options->resume)
        return resume(r);
    if (r->setup.has_weights)
        return mz_engine_load_weights(r->engine, r->setup.model_folder);
    mz_progress_say(&r->progress, "%s holds no weights: starting from the %s family's initialisation, seed %llu",
                    r->options->model, mz_model_get_info(r->setup.model)->family,
                    (unsigned long long)r->setup.config.seed);
    return MZ_OK;
}

static void say_memory(run *r)
{
    mz_zero_memory m;
    const double gib = 1 << 30;
    mz_zero_get_memory(r->engine->zero, &m);
    size_t state = m.params + m.grads + m.master + m.optimizer;
    size_t buffers = m.gather_buffers + m.reduce_buffers + m.other;
    mz_progress_say(&r->progress, "%s, %.1f M parameters, %s, ZeRO-%d over %d rank%s on %d node%s; %s",
                    mz_model_get_info(r->setup.model)->family, 1e-6 * (double)mz_model_n_params(r->setup.model),
                    mz_dtype_name(r->setup.config.dtype), r->setup.config.zero.stage, r->world->size,
                    r->world->size == 1 ? "" : "s", r->world->n_nodes, r->world->n_nodes == 1 ? "" : "s",
                    r->engine->device->label);
    mz_progress_say(&r->progress,
                    "memory per rank: model state %.3f GiB (parameters %.3f, gradients %.3f, master weights %.3f, "
                    "optimiser %.3f), buffers %.3f, activations %.3f GiB",
                    (double)state / gib, (double)m.params / gib, (double)m.grads / gib, (double)m.master / gib,
                    (double)m.optimizer / gib, (double)buffers / gib, (double)r->engine->arena_bytes / gib);
    mz_progress_say(&r->progress,
                    "%lld blocks of %lld tokens; global batch %lld (%lld x %lld x %d), %lld steps, %.2f epochs",
                    (long long)r->setup.sampler.n_samples, (long long)r->setup.block_size,
                    (long long)r->setup.sampler.global_batch, (long long)r->setup.config.micro_batch_size,
                    (long long)r->setup.config.gradient_accumulation_steps, r->world->size,
                    (long long)r->setup.max_steps, mz_sampler_epoch(&r->setup.sampler, r->setup.max_steps));
}

/* How often a line is due: the flag, else the file's steps_per_print, else 10. */
static int64_t logging_steps(const mz_train_options *options, const mz_config *config)
{
    if (options->logging_steps > 0)
        return options->logging_steps;
    return config->steps_per_print > 0 ? config->steps_per_print : 10;
}

static mz_status prepare(run *r)
{
    const mz_train_options *o = r->options;
    mz_engine_options engine_options = {.device = o->device,
                                        .n_threads = o->cpu_threads,
                                        .no_decay = r->setup.no_decay,
                                        .n_no_decay = r->setup.n_no_decay};
    mz_status st = mz_engine_create(r->world, &r->setup.config, r->setup.model, &engine_options, &r->engine);
    if (st == MZ_OK)
        st = mz_agree(r->world,
                      mz_token_batch_create(r->setup.config.micro_batch_size, r->setup.block_size, &r->tokens),
                      "making the batch");
    if (st == MZ_OK)
        st = mz_engine_plan(r->engine, &r->tokens.batch);
    if (st == MZ_OK && r->setup.validation)
        st = mz_eval_plan(r->world, r->engine, &r->setup);
    r->progress = (mz_progress){.on = r->world->rank == 0 && !o->quiet,
                                .max_steps = r->setup.max_steps,
                                .logging_steps = logging_steps(o, &r->setup.config)};
    mz_progress_start(&r->progress);
    if (st == MZ_OK)
        say_memory(r);
    if (st == MZ_OK)
        mz_report_start(&r->setup.config, &r->progress);
    if (st == MZ_OK)
        st = mz_agree(r->world, mz_make_directories(r->output), "making the output folder");
    if (st == MZ_OK)
        st = load_start(r);
    if (st != MZ_OK)
        return st;
    r->progress.first_step = mz_engine_steps(r->engine);
    r->progress.peak_flops =
        mz_peak_flops(r->engine->device, r->engine->compute, r->setup.config.dtype) * r->world->size;
    r->progress.flops_per_step =
        r->engine->flops_per_micro * r->world->size * (double)r->setup.config.gradient_accumulation_steps;
    if (r->world->rank == 0)
        st = mz_trackers_create(r->output, &r->setup.config, o->tensorboard, r->progress.first_step, &r->trackers);
    return mz_agree(r->world, st, "opening the metrics");
}

static mz_status finish(run *r, bool stopped)
{
    mz_status st = mz_engine_save_wait(r->engine);
    if (st != MZ_OK && tolerate(r, st) != MZ_OK)
        return st;
    if (r->save_failed)
        return mz_fail(MZ_ERR_IO, "the last checkpoint could not be written; older ones in %s/checkpoints are kept",
                       r->output);
    mz_report_end(&r->setup.config, r->engine, &r->progress);
    if (stopped) {
        mz_progress_say(&r->progress, "stopped by a signal; saved at step %lld. Go on with --resume latest",
                        (long long)mz_engine_steps(r->engine));
        return mz_fail(MZ_STOPPED, "saved at step %lld on a signal", (long long)mz_engine_steps(r->engine));
    }
    const mz_config *config = &r->setup.config;
    if (!r->options->save_weights)
        return MZ_OK;
    if (config->zero.stage == 3 && !config->zero.stage3_gather_16bit_weights_on_model_save &&
        r->options->config_path) {
        mz_progress_say(
            &r->progress,
            "no weights folder: stage3_gather_16bit_weights_on_model_save is false. mpizero consolidate "
            "makes one from the checkpoint");
        return MZ_OK;
    }
    char *folder = mz_path_join(r->output, "weights");
    st = folder ? mz_engine_save_weights(r->engine, folder, r->setup.weights_dtype, 0,
                                         mz_tokenizer_folder(r->setup.tokenizer))
                : MZ_ERR_MEMORY;
    if (st == MZ_OK)
        mz_progress_say(&r->progress, "wrote %s (%s)", folder, mz_dtype_name(r->setup.weights_dtype));
    mz_free(folder);
    return st;
}

mz_status mz_train(mz_world *world, const mz_train_options *options)
{
    run r = {.world = world,
             .options = options,
             .output = options->output_dir ? options->output_dir : "run",
             .save_steps = options->save_steps < 0 ? 500 : options->save_steps,
             .eval_steps = options->eval_steps,
             .last_saved = -1};
    bool stop = false;
    mz_signals_install();
    mz_status st = mz_setup_open(world, options, false, &r.setup);
    if (st == MZ_OK)
        st = prepare(&r);
    while (st == MZ_OK && !stop && mz_engine_steps(r.engine) < r.setup.max_steps) {
        mz_metrics metrics;
        st = train_step(&r, &metrics);
        if (st == MZ_OK)
            st = after_step(&r, &metrics, &stop);
    }
    if (st == MZ_OK)
        st = finish(&r, stop);
    mz_conclude_early(world, st);
    mz_trackers_destroy(r.trackers);
    mz_token_batch_free(&r.tokens);
    mz_engine_destroy(r.engine);
    mz_setup_close(&r.setup);
    return st;
}
