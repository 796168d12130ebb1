#include "cli/cli.h"

#include <string.h>

#include "core/error.h"
#include "core/nearest.h"

const mz_command *const mz_commands[] = {
    &mz_command_train,       &mz_command_eval,
    &mz_command_generate,    &mz_command_consolidate,
    &mz_command_inspect,     &mz_command_estimate,
    &mz_command_topo,        &mz_command_env,
    &mz_command_bench_train, &mz_command_bench_collectives,
};
const int mz_n_commands = sizeof mz_commands / sizeof mz_commands[0];

enum { NAME_MAX_BYTES = 80 };

static const mz_command *find_name(const char *name, mz_nearest *nearest)
{
    mz_nearest_init(nearest, name);
    for (int i = 0; i < mz_n_commands; i++) {
        if (strcmp(mz_commands[i]->name, name) == 0)
            return mz_commands[i];
        mz_nearest_offer(nearest, mz_commands[i]->name);
    }
    return NULL;
}

/* Whether some command's name begins with this word and a blank. */
static bool begins_names(const char *word)
{
    size_t n = strlen(word);
    for (int i = 0; i < mz_n_commands; i++)
        if (strncmp(mz_commands[i]->name, word, n) == 0 && mz_commands[i]->name[n] == ' ')
            return true;
    return false;
}

const mz_command *mz_command_find(int n_args, char **args, int *n_words)
{
    char name[NAME_MAX_BYTES];
    mz_nearest nearest;
    bool two = n_args > 1 && args[1][0] != '-' && begins_names(args[0]);
    snprintf(name, sizeof name, "%.39s%s%.39s", args[0], two ? " " : "", two ? args[1] : "");
    *n_words = two ? 2 : 1;
    const mz_command *command = find_name(name, &nearest);
    if (!command)
        mz_fail(MZ_ERR_USAGE, "unknown command \"%s\"%s%s%s (mpizero --help lists the commands)", name,
                nearest.best ? ", did you mean " : "", nearest.best ? nearest.best : "", nearest.best ? "?" : "");
    return command;
}
