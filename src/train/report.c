#include "train/report.h"

#include <stdio.h>
#include <stdlib.h>

#include "core/log.h"
#include "train/engine_impl.h"

void mz_step_times_add(mz_step_times *sums, const double times[4])
{
    sums->forward += times[1] - times[0];
    sums->backward += times[2] - times[1];
    sums->step += times[3] - times[2];
    sums->n_micro++;
}

void mz_report_start(const mz_config *config, mz_progress *progress)
{
    if (!config->dump_state || !progress->on)
        return;
    char *text = mz_config_to_json(config);
    mz_progress_say(progress, "configuration as resolved:\n%s", text ? text : "(no memory)");
    free(text);
}

/* DeepSpeed's flops profiler, for what a rank does in one step. */
static void profile_flops(const mz_config *config, const mz_engine *engine, mz_progress *progress,
                          const mz_metrics *metrics)
{
    double work = engine->flops_per_micro * (double)config->gradient_accumulation_steps;
    char text[400];
    snprintf(
        text, sizeof text,
        "flops profile of step %lld: %.3f M parameters; per rank forward %.4g GFLOP, backward %.4g GFLOP, step "
        "%.4g s, %.4g GFLOP/s (%lld micro-batches of %lld)",
        (long long)metrics->step, 1e-6 * (double)mz_model_n_params(engine->model), work / 3e9, work / 1.5e9,
        metrics->step_seconds, 1e-9 * work / metrics->step_seconds, (long long)config->gradient_accumulation_steps,
        (long long)config->micro_batch_size);
    FILE *file = config->flops_profiler_output[0] ? fopen(config->flops_profiler_output, "w") : NULL;
    if (file) {
        fprintf(file, "%s\n", text);
        fclose(file);
    } else if (config->flops_profiler_output[0]) {
        mz_log_root(MZ_LOG_WARN, "flops_profiler.output_file %s cannot be written", config->flops_profiler_output);
    } else {
        mz_progress_say(progress, "%s", text);
    }
}

void mz_report_step(const mz_config *config, const mz_engine *engine, mz_progress *progress,
                    const mz_metrics *metrics, mz_step_times *times)
{
    times->n_steps++;
    if (!progress->on)
        return;
    if (config->flops_profiler_enabled && metrics->step == config->flops_profiler_step)
        profile_flops(config, engine, progress, metrics);
    if (!config->wall_clock_breakdown && !config->flops_profiler_enabled)
        return;
    if (metrics->step % progress->logging_steps != 0 && metrics->step != progress->max_steps)
        return;
    const double ms = 1e3 / (double)times->n_steps;
    mz_progress_say(
        progress,
        "time per step (ms) | forward: %.2f | backward: %.2f | step: %.2f | waiting for communication: %.2f",
        ms * times->forward, ms * times->backward, ms * times->step, 1e3 * metrics->exposed_seconds);
    *times = (mz_step_times){0};
}

void mz_report_end(const mz_config *config, const mz_engine *engine, mz_progress *progress)
{
    if (!config->comms_logger_enabled || !progress->on)
        return;
    mz_comm_stats stats = {0};
    if (engine->comm)
        mz_comm_get_stats(engine->comm, &stats);
    mz_progress_say(
        progress,
        "communication of rank 0: %lld collectives, %.6f GB sent inside the node, %.6f GB between nodes, "
        "%.3f s",
        (long long)stats.n_calls, 1e-9 * stats.bytes_in_node, 1e-9 * stats.bytes_between_nodes, stats.seconds);
}
