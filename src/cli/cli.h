/* The program: commands, and what they share. */
#ifndef MZ_CLI_CLI_H
#define MZ_CLI_CLI_H

#include <stdio.h>

#include "cli/options.h"
#include "comm/comm.h"
#include "comm/conclude.h"

/* Options of every command; the first member of every command's struct. */
typedef struct mz_cli_common {
    const char *log_level;
    int ranks_per_node;     /* of commands that start MPI */
    double timeout_seconds; /* likewise; < 0: not given */
    const char *wire;       /* likewise */
} mz_cli_common;

enum { MZ_COMMAND_GROUPS = 8 };

struct mz_command {
    const char *name, *operands; /* name: "train", "bench train"; operands: "PATH", or "" */
    const char *summary;         /* one line, for the list of commands */
    const char *description;     /* a paragraph, for --help and the manual */
    const mz_command_group *groups;
    int n_groups;
    size_t target_bytes;
    void (*set_defaults)(void *target);
    bool starts_mpi; /* else `world` is NULL */
    mz_status (*run)(mz_world *world, const void *target);
};

extern const mz_command mz_command_train, mz_command_eval, mz_command_generate, mz_command_consolidate,
    mz_command_inspect, mz_command_estimate, mz_command_topo, mz_command_env, mz_command_bench_train,
    mz_command_bench_collectives;

extern const mz_command *const mz_commands[];
extern const int mz_n_commands;

/* The command that the first arguments name, and of how many words its name is: "train", or two as in "bench
 * train". NULL, with an error recorded that names the nearest command. */
const mz_command *mz_command_find(int n_args, char **args, int *n_words);

/* Groups that several commands have. */
extern const mz_option_group mz_group_common;   /* mz_cli_common, of every command */
extern const mz_option_group mz_group_launch;   /* mz_cli_common, of those that start MPI */
extern const mz_option_group mz_group_training; /* mz_config_defaults */

/* --help of the program (command NULL) or of a command; the same as the manual page's source. */
void mz_help_print(const mz_command *command, FILE *out);
void mz_help_print_manual(FILE *out);

/* Collective over the world: MZ_ERR_LAUNCH unless all ranks run the same program file. */
mz_status mz_same_program(mz_world *world);

#endif
