#include "train/trackers.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/file.h"
#include "core/log.h"
#include "core/memory.h"
#include "train/event_file.h"

enum { MAX_SCALARS = 8 };

struct mz_trackers {
    FILE *jsonl;
    FILE *events[2]; /* the run's own, and the configuration's */
    char *csv_folder;
    bool warned;
};

/* Rewrites the file without lines of steps after `last`. A line that is not JSON (torn by a crash) goes too. */
static mz_status drop_later_lines(const char *path, int64_t last)
{
    char *text = NULL, *kept = NULL;
    size_t bytes = 0, n = 0;
    mz_status st = mz_file_read(path, &text, &bytes);
    if (st != MZ_OK)
        return st;
    kept = mz_alloc(bytes + 1);
    if (!kept)
        st = MZ_ERR_MEMORY;
    for (char *line = text; st == MZ_OK && line < text + bytes;) {
        char *end = memchr(line, '\n', (size_t)(text + bytes - line));
        size_t length = end ? (size_t)(end - line) + 1 : (size_t)(text + bytes - line);
        json_t *object = end ? json_loadb(line, length, 0, NULL) : NULL;
        if (object && json_integer_value(json_object_get(object, "step")) <= last) {
            memcpy(kept + n, line, length);
            n += length;
        }
        json_decref(object);
        line += length;
    }
    if (st == MZ_OK && n != bytes)
        st = mz_file_write_atomic(path, kept, n);
    mz_free(kept);
    mz_free(text);
    return st;
}

static mz_status open_jsonl(mz_trackers *t, const char *folder, int64_t resumed_step)
{
    char *path = mz_path_join(folder, "metrics.jsonl");
    mz_status st = path ? MZ_OK : MZ_ERR_MEMORY;
    if (st == MZ_OK && mz_path_exists(path))
        st = resumed_step > 0 ? drop_later_lines(path, resumed_step) : mz_remove_tree(path);
    if (st == MZ_OK && !(t->jsonl = fopen(path, "a")))
        st = mz_fail_errno(MZ_ERR_IO, "%s: cannot write", path);
    mz_free(path);
    return st;
}

static mz_status open_events(mz_trackers *t, const char *folder, const mz_config *config, bool tensorboard)
{
    mz_status st = MZ_OK;
    char *path = mz_path_join(folder, "tensorboard");
    if (tensorboard)
        st = path ? mz_event_file_open(path, &t->events[0]) : MZ_ERR_MEMORY;
    mz_free(path);
    if (st == MZ_OK && config->tensorboard_enabled) {
        path = mz_path_join(config->tensorboard_output_path[0] ? config->tensorboard_output_path : folder,
                            config->tensorboard_job_name);
        st = path ? mz_event_file_open(path, &t->events[1]) : MZ_ERR_MEMORY;
        mz_free(path);
    }
    if (st == MZ_OK && config->csv_monitor_enabled) {
        t->csv_folder =
            mz_path_join(config->csv_output_path[0] ? config->csv_output_path : folder, config->csv_job_name);
        st = t->csv_folder ? mz_make_directories(t->csv_folder) : MZ_ERR_MEMORY;
    }
    return st;
}

mz_status mz_trackers_create(const char *folder, const mz_config *config, bool tensorboard, int64_t resumed_step,
                             mz_trackers **trackers)
{
    mz_trackers *t = mz_calloc(1, sizeof *t);
    if (!t)
        return MZ_ERR_MEMORY;
    mz_status st = open_jsonl(t, folder, resumed_step);
    if (st == MZ_OK)
        st = open_events(t, folder, config, tensorboard);
    if (st != MZ_OK) {
        mz_trackers_destroy(t);
        return st;
    }
    *trackers = t;
    return MZ_OK;
}

void mz_trackers_destroy(mz_trackers *trackers)
{
    if (!trackers)
        return;
    if (trackers->jsonl)
        fclose(trackers->jsonl);
    for (int i = 0; i < 2; i++)
        if (trackers->events[i])
            fclose(trackers->events[i]);
    mz_free(trackers->csv_folder);
    mz_free(trackers);
}

/* JSON has no infinities or NaNs: null stands for them. */
static json_t *number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static int put_jsonl(FILE *file, const mz_metrics *m)
{
    json_t *line = json_object();
    json_object_set_new(line, "step", json_integer(m->step));
    json_object_set_new(line, "epoch", number(m->epoch));
    if (m->is_eval) {
        json_object_set_new(line, "eval_loss", number(m->eval_loss));
        json_object_set_new(line, "perplexity", number(m->perplexity));
        json_object_set_new(line, "eval_seconds", number(m->eval_seconds));
    } else {
        json_object_set_new(line, "loss", number(m->loss));
        json_object_set_new(line, "learning_rate", number(m->learning_rate));
        json_object_set_new(line, "grad_norm", number(m->grad_norm));
        json_object_set_new(line, "loss_scale", number(m->loss_scale));
        json_object_set_new(line, "skipped", json_boolean(m->skipped));
        json_object_set_new(line, "step_seconds", number(m->step_seconds));
        json_object_set_new(line, "tokens_per_second", number(m->tokens_per_second));
        json_object_set_new(line, "exposed_communication_seconds", number(m->exposed_seconds));
    }
    json_object_set_new(line, "tokens_seen", json_integer(m->tokens_seen));
    json_object_set_new(line, "memory_bytes", json_integer(m->memory_bytes));
    char *text = line ? json_dumps(line, JSON_COMPACT | JSON_REAL_PRECISION(10)) : NULL;
    int ok = text && fprintf(file, "%s\n", text) > 0 && fflush(file) == 0;
    free(text);
    json_decref(line);
    return ok;
}

static int list_scalars(const mz_metrics *m, mz_event_scalar scalars[MAX_SCALARS])
{
    int n = 0;
    if (m->is_eval) {
        scalars[n++] = (mz_event_scalar){"eval/loss", m->eval_loss};
        scalars[n++] = (mz_event_scalar){"eval/perplexity", m->perplexity};
        return n;
    }
    scalars[n++] = (mz_event_scalar){"train/loss", m->loss};
    scalars[n++] = (mz_event_scalar){"train/learning_rate", m->learning_rate};
    scalars[n++] = (mz_event_scalar){"train/grad_norm", m->grad_norm};
    scalars[n++] = (mz_event_scalar){"train/loss_scale", m->loss_scale};
    scalars[n++] = (mz_event_scalar){"train/epoch", m->epoch};
    scalars[n++] = (mz_event_scalar){"perf/tokens_per_second", m->tokens_per_second};
    scalars[n++] = (mz_event_scalar){"perf/step_seconds", m->step_seconds};
    scalars[n++] = (mz_event_scalar){"perf/memory_bytes", (double)m->memory_bytes};
    return n;
}

/* One file per figure, "step,value" lines, as DeepSpeed's csv_monitor. */
static int put_csv(const char *folder, int64_t step, const mz_event_scalar *scalars, int n)
{
    int ok = 1;
    for (int i = 0; i < n; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s.csv", scalars[i].tag);
        for (char *c = name; *c; c++)
            *c = *c == '/' ? '_' : *c;
        char *path = mz_path_join(folder, name);
        bool is_new = path && !mz_path_exists(path);
        FILE *file = path ? fopen(path, "a") : NULL;
        ok &= file && (!is_new || fprintf(file, "step,%s\n", scalars[i].tag) > 0) &&
              fprintf(file, "%lld,%.9g\n", (long long)step, scalars[i].value) > 0;
        if (file)
            ok &= fclose(file) == 0;
        mz_free(path);
    }
    return ok;
}

void mz_trackers_put(mz_trackers *trackers, const mz_metrics *metrics)
{
    if (!trackers)
        return;
    mz_event_scalar scalars[MAX_SCALARS];
    int n = list_scalars(metrics, scalars);
    int ok = put_jsonl(trackers->jsonl, metrics);
    for (int i = 0; i < 2; i++)
        if (trackers->events[i])
            ok &= mz_event_file_put(trackers->events[i], metrics->step, scalars, n);
    if (trackers->csv_folder)
        ok &= put_csv(trackers->csv_folder, metrics->step, scalars, n);
    if (!ok && !trackers->warned) {
        trackers->warned = true;
        mz_log_root(MZ_LOG_WARN, "the metrics of step %lld could not be written (disk full?); training goes on",
                    (long long)metrics->step);
    }
}
