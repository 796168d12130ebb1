#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "core/log.h"
#include "core/memory.h"

/* Runs a command with its options read. */
static mz_status run(const mz_command *command, const void *target, mz_world **world)
{
    const mz_cli_common *shared = target;
    const mz_world_options options = {
        .ranks_per_node = shared->ranks_per_node, .timeout_seconds = shared->timeout_seconds, .wire = shared->wire};
    mz_log_level level = MZ_LOG_INFO;
    if (shared->log_level && mz_log_level_from_name(shared->log_level, &level))
        mz_log_set_level(level);
    mz_status status = command->starts_mpi ? mz_world_create(&options, world) : MZ_OK;
    if (status == MZ_OK && *world)
        status = mz_same_program(*world);
    return status == MZ_OK ? command->run(*world, target) : status;
}

/* `mpizero COMMAND ...`. */
static mz_status run_command(int n_args, char **args, mz_world **world)
{
    bool help = false;
    int n_words;
    const mz_command *command = mz_command_find(n_args, args, &n_words);
    if (!command)
        return MZ_ERR_USAGE;
    mz_cli_common *target = mz_calloc(1, command->target_bytes); /* its first member is the common part */
    if (!target)
        return MZ_ERR_MEMORY;
    *target = (mz_cli_common){.timeout_seconds = -1};
    if (command->set_defaults)
        command->set_defaults(target);
    mz_status status = mz_options_parse(command, n_args - n_words, args + n_words, target, &help);
    if (status == MZ_OK && help && mz_is_first_process())
        mz_help_print(command, stdout);
    if (status == MZ_OK && !help)
        status = run(command, target, world);
    mz_free(target);
    return status;
}

int main(int argc, char **argv)
{
    mz_world *world = NULL;
    mz_status status = MZ_OK;
    bool alone;
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        mz_help_print(NULL, argc < 2 ? stderr : stdout);
        return argc < 2 ? 2 : 0;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("mpizero %s\n", MZ_VERSION);
        return 0;
    }
    if (strcmp(argv[1], "--manual-options") == 0) { /* for doc/mpizero.1 */
        mz_help_print_manual(stdout);
        return 0;
    }
    status = run_command(argc - 1, argv + 1, &world);
    fflush(stdout);
    int code = mz_conclude(world, status, &alone);
    if (alone)
        mz_abandon(world, code);
    mz_world_destroy(world);
    return code;
}
