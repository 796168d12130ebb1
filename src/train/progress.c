#include "train/progress.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "core/clock.h"

/* A live line is drawn this often at most. */
#define REDRAW_SECONDS 0.1

static const char *short_count(char text[16], double value)
{
    static const char *const suffix[] = {"", "k", "M", "G", "T"};
    int i = 0;
    for (; value >= 1000 && i < 4; i++)
        value /= 1000;
    snprintf(text, 16, i == 0 ? "%.0f%s" : value < 10 ? "%.2f%s" : "%.1f%s", value, suffix[i]);
    return text;
}

static const char *clock_text(char text[32], double seconds)
{
    long s = isfinite(seconds) && seconds > 0 ? lround(seconds) : 0;
    snprintf(text, 32, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    return text;
}

void mz_progress_start(mz_progress *progress)
{
    progress->live = progress->on && isatty(STDOUT_FILENO);
    progress->started = mz_clock_seconds();
    progress->last_shown = 0;
    progress->mean_seconds = 0;
    progress->line_open = false;
}

static void close_line(mz_progress *progress)
{
    if (progress->line_open)
        putchar('\n');
    progress->line_open = false;
}

static int format_step(const mz_progress *p, const mz_metrics *m, char *line, size_t size)
{
    char tokens[16], left[32], mfu[32] = "";
    if (p->peak_flops > 0 && p->mean_seconds > 0)
        snprintf(mfu, sizeof mfu, "  mfu %.0f%%", 100 * p->flops_per_step / p->mean_seconds / p->peak_flops);
    return snprintf(
        line, size,
        "step %lld/%lld  epoch %.2f  loss %.4f  lr %.3g  norm %.3g  scale %g  %s tok/s%s  mem %.2f GiB  "
        "left %s%s",
        (long long)m->step, (long long)p->max_steps, m->epoch, m->loss, m->learning_rate, m->grad_norm,
        m->loss_scale, short_count(tokens, m->tokens_per_second), mfu, (double)m->memory_bytes / (1 << 30),
        clock_text(left, (double)(p->max_steps - m->step) * p->mean_seconds),
        m->skipped ? "  (overflow: skipped)" : "");
}

void mz_progress_step(mz_progress *progress, const mz_metrics *metrics)
{
    double now = mz_clock_seconds();
    bool first = metrics->step == progress->first_step + 1, last = metrics->step == progress->max_steps;
    progress->mean_seconds = progress->mean_seconds > 0 ? 0.9 * progress->mean_seconds + 0.1 * metrics->step_seconds
                                                        : metrics->step_seconds;
    if (!progress->on)
        return;
    bool due = progress->live ? now - progress->last_shown >= REDRAW_SECONDS
                              : metrics->step % progress->logging_steps == 0;
    if (!due && !first && !last)
        return;
    progress->last_shown = now;
    char line[320];
    format_step(progress, metrics, line, sizeof line);
    if (progress->live)
        printf("\r\033[K%s", line);
    else
        printf("%s\n", line);
    progress->line_open = progress->live;
    if (last)
        close_line(progress);
    fflush(stdout);
}

void mz_progress_eval(mz_progress *progress, const mz_metrics *metrics)
{
    mz_progress_say(progress, "eval at step %lld: loss %.4f  perplexity %.2f  (%.1f s)", (long long)metrics->step,
                    metrics->eval_loss, metrics->perplexity, metrics->eval_seconds);
}

void mz_progress_say(mz_progress *progress, const char *format, ...)
{
    if (!progress->on)
        return;
    close_line(progress);
    va_list args;
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
    fflush(stdout);
}
