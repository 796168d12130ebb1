#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "checkpoint/reader.h"
#include "core/error.h"
#include "core/memory.h"

/* Lines of text that grow. */
typedef struct lines {
    char *text; /* NULL: no memory */
    size_t used;
} lines;

__attribute__((format(printf, 2, 3))) static void add_line(lines *report, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    const int n = vsnprintf(NULL, 0, format, args);
    char *grown = report->text && n >= 0 ? mz_realloc(report->text, report->used + (size_t)n + 2) : NULL;
    if (grown) {
        vsnprintf(grown + report->used, (size_t)n + 1, format, again);
        report->used += (size_t)n + 1;
        memcpy(grown + report->used - 1, "\n", 2);
        report->text = grown;
    }
    va_end(again);
    va_end(args);
}

typedef struct verification {
    mz_checkpoint *checkpoint;
    lines report;
    int64_t n_wrong;
    mz_status status; /* of the first failure */
    char *message;    /* likewise */
} verification;

static void note(verification *v, mz_status status)
{
    if (!status)
        return;
    if (!v->n_wrong++) {
        v->status = status;
        v->message = mz_strdup(mz_last_error());
    }
    add_line(&v->report, "%s", mz_last_error());
}

/* All of one file: what HDF5 wrote, then each run. */
static void verify_file(verification *v, int file, float *piece, int64_t piece_elements)
{
    const mz_manifest *manifest = &v->checkpoint->manifest;
    const mz_manifest_file *facts = &manifest->files[file];
    mz_status status = mz_checkpoint_select(v->checkpoint, file);
    note(v, status);
    if (status && v->checkpoint->open_file != file)
        return;
    v->checkpoint->frame_checked[file] = true; /* said once is enough: the data may still be good */
    for (int64_t i = 0; i < facts->n_runs; i++) {
        const mz_manifest_run *run = &manifest->by_file[facts->first_run + i];
        status = MZ_OK;
        for (int64_t done = 0; done < run->count && !status; done += piece_elements) {
            const int64_t n = run->count - done < piece_elements ? run->count - done : piece_elements;
            status = mz_checkpoint_read_run(v->checkpoint, run, done, n, piece);
        }
        note(v, status);
    }
    v->checkpoint->frame_checked[file] = false;
}

mz_status mz_checkpoint_verify(mz_checkpoint *checkpoint, char **report)
{
    const mz_manifest *manifest = &checkpoint->manifest;
    int64_t piece_elements = (int64_t)4 << 20; /* whole blocks */
    if (piece_elements < checkpoint->block_elements)
        piece_elements = checkpoint->block_elements;
    verification v = {.checkpoint = checkpoint, .report.text = mz_strdup("")};
    float *piece = mz_alloc_aligned((size_t)piece_elements * sizeof *piece);
    *report = NULL;
    if (!piece || !v.report.text) {
        mz_free(piece);
        mz_free(v.report.text);
        return MZ_ERR_MEMORY;
    }
    int64_t bytes = 0;
    memset(checkpoint->frame_checked, 0, (size_t)manifest->n_files * sizeof *checkpoint->frame_checked);
    checkpoint->open_file = -1;
    for (int i = 0; i < manifest->n_files; i++) {
        verify_file(&v, i, piece, piece_elements);
        bytes += manifest->files[i].bytes;
    }
    add_line(&v.report, "%s: step %lld, %d tensors in %lld data sets, %d files, %lld bytes: %s", checkpoint->folder,
             (long long)manifest->step, manifest->n_tensors, (long long)manifest->n_runs, manifest->n_files,
             (long long)bytes, v.n_wrong ? "DAMAGED" : "whole");
    mz_free(piece);
    *report = v.report.text;
    if (v.n_wrong)
        mz_fail_adopt(v.status, v.message ? v.message : "the checkpoint is damaged");
    mz_free(v.message);
    return v.status;
}
