#include "checkpoint/steps.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "checkpoint/manifest.h"
#include "checkpoint/paths.h"
#include "checkpoint/reader.h"
#include "core/error.h"
#include "core/file.h"
#include "core/log.h"
#include "core/memory.h"

/* A folder of checkpoints as it is on disk. */
typedef struct step_folder {
    char *name;
    int64_t step;
    bool temporary;
    struct timespec written; /* its manifest */
} step_folder;

typedef struct step_list {
    step_folder *folders;
    int n;
} step_list;

static void free_list(step_list *list)
{
    for (int i = 0; i < list->n; i++)
        mz_free(list->folders[i].name);
    mz_free(list->folders);
    *list = (step_list){0};
}

/* "step-000100" exactly as it is written, or that with ".tmp" (a save that never ended) or ".old" (being replaced).
 */
static bool parse_name(const char *name, step_folder *folder)
{
    char canonical[40];
    if (strncmp(name, "step-", 5) || name[5] < '0' || name[5] > '9')
        return false;
    char *end;
    errno = 0;
    folder->step = strtoll(name + 5, &end, 10);
    snprintf(canonical, sizeof canonical, "step-%06lld", (long long)folder->step);
    if (errno || strlen(canonical) != (size_t)(end - name) || strncmp(canonical, name, strlen(canonical)))
        return false;
    folder->temporary = !strcmp(end, ".tmp");
    return !*end || folder->temporary || !strcmp(end, ".old");
}

static mz_status add_folder(step_list *list, const char *checkpoints, const char *name, const step_folder *facts)
{
    struct stat info;
    char *manifest = mz_strprintf("%s/%s/%s", checkpoints, name, MZ_MANIFEST_NAME);
    step_folder *grown = manifest ? mz_realloc(list->folders, (size_t)(list->n + 1) * sizeof *grown) : NULL;
    if (grown) {
        list->folders = grown;
        grown[list->n] = *facts;
        grown[list->n].written = stat(manifest, &info) ? (struct timespec){0} : info.st_mtim;
        grown[list->n].name = mz_strdup(name);
    }
    mz_free(manifest);
    if (!grown || !grown[list->n].name)
        return MZ_ERR_MEMORY;
    list->n++;
    return MZ_OK;
}

static mz_status read_list(const char *checkpoints, step_list *list)
{
    DIR *folder = opendir(checkpoints);
    if (!folder)
        return mz_fail_errno(MZ_ERR_CHECKPOINT, "no checkpoints in %s", checkpoints);
    mz_status status = MZ_OK;
    for (struct dirent *entry = readdir(folder); entry && !status; entry = readdir(folder)) {
        step_folder facts = {0};
        if (parse_name(entry->d_name, &facts))
            status = add_folder(list, checkpoints, entry->d_name, &facts);
    }
    closedir(folder);
    if (status)
        free_list(list);
    return status;
}

/* MZ_OK: it is. */
static mz_status check_whole(const char *checkpoints, const char *name)
{
    char *path = mz_path_join(checkpoints, name);
    mz_checkpoint *checkpoint = NULL;
    mz_status status = path ? mz_checkpoint_open_step(path, &checkpoint) : MZ_ERR_MEMORY;
    mz_checkpoint_close(checkpoint);
    mz_free(path);
    return status;
}

/* step-NNNNNN.old, left by a crash while a save of the same step took its place, when that one is whole. */
static bool is_superseded(const char *checkpoints, const char *name)
{
    char *plain = mz_strdup(name);
    const size_t n = strlen(name) - 4;
    bool superseded = false;
    if (plain && !strcmp(plain + n, ".old")) {
        plain[n] = '\0';
        superseded = !check_whole(checkpoints, plain);
    }
    mz_free(plain);
    return superseded;
}

/* Highest step first; of one step the folder that is not being replaced. */
static int compare_step(const void *a, const void *b)
{
    const step_folder *x = a, *y = b;
    if (x->step != y->step)
        return x->step < y->step ? 1 : -1;
    return strcmp(x->name, y->name);
}

/* Written last first: after a resume from an earlier step the highest step is not the newest. */
static int compare_time(const void *a, const void *b)
{
    const step_folder *x = a, *y = b;
    if (x->written.tv_sec != y->written.tv_sec)
        return x->written.tv_sec < y->written.tv_sec ? 1 : -1;
    if (x->written.tv_nsec != y->written.tv_nsec)
        return x->written.tv_nsec < y->written.tv_nsec ? 1 : -1;
    return compare_step(a, b);
}

mz_status mz_step_paths(const char *run_folder, int64_t step, char **final, char **temporary)
{
    *final = mz_strprintf("%s/%s/step-%06lld", run_folder, MZ_CHECKPOINTS_FOLDER, (long long)step);
    *temporary = *final ? mz_strprintf("%s.tmp", *final) : NULL;
    if (*temporary)
        return MZ_OK;
    mz_free(*final);
    *final = NULL;
    return MZ_ERR_MEMORY;
}

/* What `latest` says; false when it is not there or says nothing sensible. */
static bool read_latest(const char *checkpoints, char name[64])
{
    step_folder facts;
    return mz_read_line_in(checkpoints, MZ_LATEST_NAME, name, 64) && parse_name(name, &facts) && !facts.temporary;
}

static mz_status take_path(const char *checkpoints, const char *name, char **folder)
{
    *folder = mz_path_join(checkpoints, name);
    return *folder ? MZ_OK : MZ_ERR_MEMORY;
}

/* The whole checkpoint of the highest step. */
static mz_status search_whole(const char *checkpoints, const char *except, char **folder)
{
    step_list list = {0};
    mz_status status = read_list(checkpoints, &list);
    if (status)
        return status;
    qsort(list.folders, (size_t)list.n, sizeof *list.folders, compare_step);
    status = MZ_ERR_CHECKPOINT;
    for (int i = 0; i < list.n && status && status != MZ_ERR_MEMORY; i++) {
        const step_folder *candidate = &list.folders[i];
        if (!candidate->temporary && (!except || strcmp(candidate->name, except)))
            status = check_whole(checkpoints, candidate->name);
        if (!status && !candidate->temporary)
            status = take_path(checkpoints, candidate->name, folder);
    }
    if (status && status != MZ_ERR_MEMORY)
        status = mz_fail(MZ_ERR_CHECKPOINT, "%s: no whole checkpoint among %d folders", checkpoints, list.n);
    free_list(&list);
    return status;
}

mz_status mz_steps_find_whole(const char *checkpoints, const char *except, char **folder)
{
    char latest[64];
    if (read_latest(checkpoints, latest) && (!except || strcmp(latest, except))) {
        mz_status status = check_whole(checkpoints, latest);
        if (status == MZ_ERR_MEMORY)
            return status;
        if (!status)
            return take_path(checkpoints, latest, folder);
        if (!except)
            mz_log_root(MZ_LOG_WARN, "%s. Looking for another checkpoint that is whole", mz_last_error());
    }
    return search_whole(checkpoints, except, folder);
}

/* The folder that CHECKPOINTS/latest names, whole or not: what is wrong with it is for the caller to find. */
static mz_status follow_latest(const char *checkpoints, char **step_folder_path)
{
    char latest[64];
    if (!read_latest(checkpoints, latest))
        return search_whole(checkpoints, NULL, step_folder_path);
    return take_path(checkpoints, latest, step_folder_path);
}

/* .../checkpoints/latest, .../checkpoints or a run's folder. Changes `path`. */
static mz_status resolve_latest(char *path, char *base, char **step_folder_path)
{
    if (!strcmp(base, MZ_LATEST_NAME)) {
        *base = '\0';
        return follow_latest(*path ? path : ".", step_folder_path);
    }
    if (!mz_exists_in(path, MZ_CHECKPOINTS_FOLDER))
        return follow_latest(path, step_folder_path);
    char *checkpoints = mz_path_join(path, MZ_CHECKPOINTS_FOLDER);
    mz_status status = checkpoints ? follow_latest(checkpoints, step_folder_path) : MZ_ERR_MEMORY;
    mz_free(checkpoints);
    return status;
}

mz_status mz_steps_resolve(const char *folder, char **step_folder_path)
{
    mz_status status = MZ_OK;
    char *path = mz_strdup(folder);
    if (!path)
        return MZ_ERR_MEMORY;
    for (size_t n = strlen(path); n > 1 && path[n - 1] == '/'; n--)
        path[n - 1] = '\0';
    char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
    struct stat info;
    if (stat(path, &info)) {
        status = mz_fail_errno(MZ_ERR_CHECKPOINT, "%s: no such checkpoint", path);
    } else if (!strcmp(base, MZ_LATEST_NAME) || !strcmp(base, MZ_CHECKPOINTS_FOLDER) ||
               mz_exists_in(path, MZ_CHECKPOINTS_FOLDER)) {
        status = resolve_latest(path, base, step_folder_path);
    } else {
        *step_folder_path = path;
        return MZ_OK;
    }
    mz_free(path);
    return status;
}

static void remove_folder(const char *checkpoints, const char *name)
{
    char *path = mz_path_join(checkpoints, name);
    if (!path || mz_remove_tree(path))
        mz_log(MZ_LOG_WARN, "the old checkpoint %s/%s could not be removed: %s", checkpoints, name,
               mz_last_error());
    mz_free(path);
}

mz_status mz_steps_clean(const char *checkpoints, const char *newest, int keep)
{
    step_list list = {0};
    mz_status status = read_list(checkpoints, &list);
    if (status)
        return status;
    qsort(list.folders, (size_t)list.n, sizeof *list.folders, compare_time);
    int kept = 1; /* the newest */
    for (int i = 0; i < list.n; i++) {
        const step_folder *folder = &list.folders[i];
        if (!strcmp(folder->name, newest))
            continue;
        if (folder->temporary || (keep > 0 && kept >= keep) || is_superseded(checkpoints, folder->name))
            remove_folder(checkpoints, folder->name);
        else if (keep > 0 && !check_whole(checkpoints, folder->name))
            kept++;
    }
    free_list(&list);
    return MZ_OK;
}
