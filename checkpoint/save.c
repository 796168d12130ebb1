#include "checkpoint/save.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "checkpoint/publish.h"
#include "checkpoint/shard_file.h"
#include "checkpoint/steps.h"
#include "comm/mpi_check.h"
#include "core/error.h"
#include "core/file.h"
#include "core/memory.h"

/* What each rank tells rank 0, and rank 0 everybody: small and of fixed size. */
typedef struct report {
    int32_t status;
    int64_t text_bytes; /* of its file's description */
    char message[1024];
} report;

static void fill_report(report *r, mz_status status, size_t text_bytes)
{
    *r = (report){.status = status, .text_bytes = (int64_t)text_bytes};
    if (status)
        snprintf(r->message, sizeof r->message, "%s", mz_last_error());
}

/* A disk may take hours, so nobody is given up here: training's own collectives find a rank that is gone. Waiting
 * polls and sleeps, where MPI's blocking calls would burn the core that computes. */
static mz_status finish(int code, MPI_Request *request, const char *call)
{
    mz_status status = mz_mpi_check(code, call);
    return status ? status : mz_mpi_wait(request, INFINITY, call);
}

static mz_status broadcast(const mz_save_job *job, report *r)
{
    MPI_Request request = MPI_REQUEST_NULL;
    if (job->size == 1)
        return MZ_OK;
    return finish(MPI_Ibcast(r, sizeof *r, MPI_BYTE, 0, job->comm, &request), &request, "MPI_Ibcast");
}

/* The texts of all ranks, on rank 0. */
typedef struct gathered {
    report *reports;
    int *counts, *places;
    char *text; /* each with its '\0' */
    const char **files;
} gathered;

static void free_gathered(gathered *all)
{
    mz_free(all->reports);
    mz_free(all->counts);
    mz_free(all->places);
    mz_free(all->text);
    mz_free(all->files);
}

/* Rank 0's conclusion from all reports: room for the texts, or the first failure. */
static mz_status conclude(const mz_save_job *job, gathered *all)
{
    int64_t total = 0;
    for (int r = 0; r < job->size; r++) {
        const report *theirs = &all->reports[r];
        if (theirs->status)
            return mz_fail((mz_status)theirs->status, "checkpoint of step %lld not saved, rank %d: %s",
                           (long long)job->step, r, theirs->message);
        all->counts[r] = (int)theirs->text_bytes;
        all->places[r] = (int)total;
        total += theirs->text_bytes;
        if (total > INT_MAX)
            return mz_fail(MZ_ERR_UNSUPPORTED,
                           "the manifest's index is larger than 2 GiB: too many tensors and ranks");
    }
    all->text = mz_alloc((size_t)total);
    if (!all->text)
        return MZ_ERR_MEMORY;
    for (int r = 0; r < job->size; r++)
        all->files[r] = all->text + all->places[r];
    return MZ_OK;
}

/* Brings the ranks' descriptions together on rank 0, unless a rank failed: then all return that failure. */
static mz_status gather(const mz_save_job *job, mz_status mine, const char *text, gathered *all)
{
    report my_report, verdict = {0};
    MPI_Request request = MPI_REQUEST_NULL;
    const bool root = job->rank == 0;
    fill_report(&my_report, mine, text ? strlen(text) + 1 : 0);
    if (job->size == 1) {
        all->reports[0] = my_report;
        mz_status status = conclude(job, all);
        if (!status)
            memcpy(all->text, text, strlen(text) + 1);
        return status;
    }
    mz_status status = finish(MPI_Igather(&my_report, sizeof my_report, MPI_BYTE, all->reports, sizeof my_report,
                                          MPI_BYTE, 0, job->comm, &request),
                              &request, "MPI_Igather");
    if (status)
        return status;
    if (root)
        fill_report(&verdict, conclude(job, all), 0);
    status = broadcast(job, &verdict);
    if (status || verdict.status)
        return status ? status : mz_fail_adopt((mz_status)verdict.status, verdict.message);
    return finish(MPI_Igatherv(text, (int)my_report.text_bytes, MPI_BYTE, all->text, all->counts, all->places,
                               MPI_BYTE, 0, job->comm, &request),
                  &request, "MPI_Igatherv");
}

static mz_status write_file(const mz_save_job *job, char **description, int64_t *bytes)
{
    char *final = NULL, *temporary = NULL, name[32];
    mz_status status = mz_step_paths(job->run_folder, job->step, &final, &temporary);
    if (!status)
        status = mz_make_directories(temporary);
    snprintf(name, sizeof name, "rank-%05d.h5", job->rank);
    char *path = status ? NULL : mz_path_join(temporary, name);
    if (path) {
        const mz_shard_file file = {.path = path,
                                    .name = name,
                                    .source = job->source,
                                    .crcs = job->crcs,
                                    .frame = job->frame,
                                    .step = job->step,
                                    .rank = job->rank,
                                    .size = job->size,
                                    .rate_bytes_per_second = job->rate_bytes_per_second};
        status = mz_shard_file_write(&file, description, bytes);
    } else if (!status) {
        status = MZ_ERR_MEMORY;
    }
    mz_free(path);
    mz_free(final);
    mz_free(temporary);
    return status;
}

static mz_status allocate(const mz_save_job *job, gathered *all)
{
    if (job->rank != 0)
        return MZ_OK;
    const size_t n = (size_t)job->size;
    all->reports = mz_calloc(n, sizeof *all->reports);
    all->counts = mz_calloc(n, sizeof *all->counts);
    all->places = mz_calloc(n, sizeof *all->places);
    all->files = mz_calloc(n, sizeof *all->files);
    return all->reports && all->counts && all->places && all->files ? MZ_OK : MZ_ERR_MEMORY;
}

mz_status mz_save_run(const mz_save_job *job, mz_status taken, int64_t *bytes)
{
    gathered all = {0};
    char *description = NULL;
    report verdict = {0}, mine;
    fill_report(&mine, taken, 0); /* keeps its message */
    /* Nothing can be agreed on before rank 0 has room for the reports, so that this comes first. */
    fill_report(&verdict, allocate(job, &all), 0);
    mz_status status = broadcast(job, &verdict);
    if (!status && verdict.status)
        status = mz_fail_adopt((mz_status)verdict.status, verdict.message);
    if (status)
        goto out;
    status = taken ? mz_fail_adopt(taken, mine.message) : write_file(job, &description, bytes);
    status = gather(job, status, description, &all);
    if (job->rank == 0) {
        if (!status) {
            const mz_publication publication = {job->run_folder, job->step,  job->size,
                                                job->keep,       job->state, all.files};
            status = mz_publish(&publication);
            if (status)
                mz_fail(status, "checkpoint of step %lld not saved: %s", (long long)job->step, mz_last_error());
        }
        if (status)
            mz_publish_abandon(job->run_folder, job->step);
        fill_report(&verdict, status, 0);
    }
    if (job->size > 1 && status != MZ_ERR_COMM) {
        mz_status sent = broadcast(job, &verdict);
        status = sent ? sent : verdict.status ? mz_fail_adopt((mz_status)verdict.status, verdict.message) : MZ_OK;
    }
out:
    free_gathered(&all);
    mz_free(description);
    return status;
}
