#include "checkpoint/publish.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "checkpoint/manifest.h"
#include "checkpoint/steps.h"
#include "core/error.h"
#include "core/file.h"
#include "core/log.h"
#include "core/memory.h"

static bool is_listed(const mz_manifest *manifest, const char *name)
{
    for (int i = 0; i < manifest->n_files; i++)
        if (!strcmp(manifest->files[i].name, name))
            return true;
    return !strcmp(name, ".") || !strcmp(name, "..");
}

/* A crashed save of the same step, by more ranks, may have left files in the folder. */
static mz_status remove_strangers(const char *folder, const mz_manifest *manifest)
{
    DIR *entries = opendir(folder);
    if (!entries)
        return mz_fail_errno(MZ_ERR_IO, "%s: cannot list", folder);
    mz_status status = MZ_OK;
    for (struct dirent *entry = readdir(entries); entry && !status; entry = readdir(entries)) {
        if (is_listed(manifest, entry->d_name))
            continue;
        char *path = mz_path_join(folder, entry->d_name);
        status = path ? mz_remove_tree(path) : MZ_ERR_MEMORY;
        mz_free(path);
    }
    closedir(entries);
    return status;
}

/* Builds the manifest, reads it as a loader will, and only then writes it. */
static mz_status write_manifest(const mz_publication *p, const char *folder)
{
    char *text = NULL, *path = mz_path_join(folder, MZ_MANIFEST_NAME);
    size_t bytes = 0;
    mz_manifest manifest = {0};
    mz_status status =
        path ? mz_manifest_build(p->step, p->world_size, p->state, p->files, &text, &bytes) : MZ_ERR_MEMORY;
    if (!status)
        status = mz_manifest_parse(path, text, bytes, &manifest);
    if (!status)
        status = remove_strangers(folder, &manifest);
    if (!status)
        status = mz_file_write_atomic(path, text, bytes); /* syncs the folder, ranks' files included */
    mz_manifest_free(&manifest);
    mz_free(text);
    mz_free(path);
    return status;
}

/* Gives the folder its name. An older save of the same step changes places with it in one atomic step where the
 * file system can do that; else the old one steps aside as step-NNNNNN.old, which readers know. */
static mz_status take_name(const char *temporary, const char *final)
{
    if (!mz_path_exists(final))
        return mz_file_rename(temporary, final);
    if (!renameat2(AT_FDCWD, temporary, AT_FDCWD, final, RENAME_EXCHANGE)) {
        mz_status status = mz_file_sync_parent(final);
        return status ? status : mz_remove_tree(temporary);
    }
    char *old = mz_strprintf("%s.old", final);
    mz_status status = old ? mz_remove_tree(old) : MZ_ERR_MEMORY;
    if (!status)
        status = mz_file_rename(final, old);
    if (!status)
        status = mz_file_rename(temporary, final);
    if (!status)
        status = mz_remove_tree(old);
    mz_free(old);
    return status;
}

mz_status mz_publish(const mz_publication *p)
{
    char *final = NULL, *temporary = NULL;
    char *checkpoints = mz_path_join(p->run_folder, MZ_CHECKPOINTS_FOLDER);
    char *latest = checkpoints ? mz_path_join(checkpoints, MZ_LATEST_NAME) : NULL;
    mz_status status = latest ? mz_step_paths(p->run_folder, p->step, &final, &temporary) : MZ_ERR_MEMORY;
    if (!status)
        status = write_manifest(p, temporary);
    if (!status)
        status = mz_file_sync_parent(checkpoints); /* the first save made it */
    if (!status)
        status = take_name(temporary, final);
    if (!status) {
        const char *name = strrchr(final, '/') + 1;
        char line[64];
        snprintf(line, sizeof line, "%s\n", name);
        status = mz_file_write_atomic(latest, line, strlen(line));
        if (!status && mz_steps_clean(checkpoints, name, p->keep))
            mz_log(MZ_LOG_WARN, "old checkpoints could not be looked through: %s", mz_last_error());
    }
    mz_free(latest);
    mz_free(checkpoints);
    mz_free(final);
    mz_free(temporary);
    return status;
}

void mz_publish_abandon(const char *run_folder, int64_t step)
{
    char *final, *temporary;
    if (mz_step_paths(run_folder, step, &final, &temporary))
        return;
    if (mz_path_exists(temporary) && mz_remove_tree(temporary))
        mz_log(MZ_LOG_WARN, "the unfinished checkpoint %s could not be removed: %s", temporary, mz_last_error());
    mz_free(final);
    mz_free(temporary);
}
