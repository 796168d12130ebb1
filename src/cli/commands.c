#include "cli/cli.h"

#include <string.h>

#include "core/error.h"
#include "core/nearest.h"

const mz_command *const mz_commands[] = {
    &mz_command_train,   &mz_command_eval,     &mz_command_generate, &mz_command_consolidate,
    &mz_command_inspect, &mz_command_estimate, &mz_command_topo,     &mz_command_env,
};
const int mz_n_commands = sizeof mz_commands / sizeof mz_commands[0];

const mz_command *mz_command_find(const char *name)
{
    mz_nearest nearest;
    mz_nearest_init(&nearest, name);
    for (int i = 0; i < mz_n_commands; i++) {
        if (strcmp(mz_commands[i]->name, name) == 0)
            return mz_commands[i];
        mz_nearest_offer(&nearest, mz_commands[i]->name);
    }
    mz_fail(MZ_ERR_USAGE, "unknown command \"%.60s\"%s%s%s (mpizero --help lists the commands)", name,
            nearest.best ? ", did you mean " : "", nearest.best ? nearest.best : "", nearest.best ? "?" : "");
    return NULL;
}
