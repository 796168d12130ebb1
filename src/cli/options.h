/* Command-line options as tables: parsing, --help and the manual page all follow from them.
 *
 * A group is a table of options that fill one struct; a command lists groups, each with the place of that struct in
 * the command's own one, so that commands share groups. */
#ifndef MZ_CLI_OPTIONS_H
#define MZ_CLI_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

#include "mpizero/status.h"

typedef enum mz_option_kind {
    MZ_OPTION_SWITCH, /* bool; --name, --no-name */
    MZ_OPTION_CHOICE, /* int; --name 1, --no-name 0, otherwise as it was */
    MZ_OPTION_INT,    /* int */
    MZ_OPTION_INT64,
    MZ_OPTION_DOUBLE,
    MZ_OPTION_TEXT, /* const char *, into argv */
    MZ_OPTION_WORD  /* const char *, one of `words` */
} mz_option_kind;

typedef struct mz_option {
    const char *name;  /* without dashes; of an operand NULL */
    const char *alias; /* another name; NULL: none */
    mz_option_kind kind;
    const char *value;    /* what stands for the value in --help: "DIR"; NULL of switches */
    const char *fallback; /* the default in words, for --help; NULL: none */
    const char *help;
    const char *words; /* "no|fp16|bf16" */
    double min, max;   /* of numbers */
    size_t offset;     /* in the group's struct */
    bool required;
} mz_option;

/* Rows of a table: name, value, default, range or words, place, help. MZ_NEEDED is a text that has to be given
 * (name NULL: an operand); _ALSO has a second name. */
#define MZ_NUMBER_ROW(name, alias, kind, value, fallback, min, max, where, help)                                   \
    {                                                                                                              \
        name, alias, kind, value, fallback, help, NULL, min, max, where, false                                     \
    }
#define MZ_OTHER_ROW(name, alias, kind, value, fallback, words, where, needed, help)                               \
    {                                                                                                              \
        name, alias, kind, value, fallback, help, words, 0, 0, where, needed                                       \
    }
#define MZ_SWITCH(name, fallback, where, help)                                                                     \
    MZ_OTHER_ROW(name, NULL, MZ_OPTION_SWITCH, NULL, fallback, NULL, where, false, help)
#define MZ_CHOICE(name, fallback, where, help)                                                                     \
    MZ_OTHER_ROW(name, NULL, MZ_OPTION_CHOICE, NULL, fallback, NULL, where, false, help)
#define MZ_INT(name, value, fallback, min, max, where, help)                                                       \
    MZ_NUMBER_ROW(name, NULL, MZ_OPTION_INT, value, fallback, min, max, where, help)
#define MZ_INT64(name, value, fallback, min, max, where, help)                                                     \
    MZ_NUMBER_ROW(name, NULL, MZ_OPTION_INT64, value, fallback, min, max, where, help)
#define MZ_INT64_ALSO(name, alias, value, fallback, min, max, where, help)                                         \
    MZ_NUMBER_ROW(name, alias, MZ_OPTION_INT64, value, fallback, min, max, where, help)
#define MZ_DOUBLE(name, value, fallback, min, max, where, help)                                                    \
    MZ_NUMBER_ROW(name, NULL, MZ_OPTION_DOUBLE, value, fallback, min, max, where, help)
#define MZ_TEXT(name, value, fallback, where, help)                                                                \
    MZ_OTHER_ROW(name, NULL, MZ_OPTION_TEXT, value, fallback, NULL, where, false, help)
#define MZ_TEXT_ALSO(name, alias, value, fallback, where, help)                                                    \
    MZ_OTHER_ROW(name, alias, MZ_OPTION_TEXT, value, fallback, NULL, where, false, help)
#define MZ_NEEDED(name, value, where, help)                                                                        \
    MZ_OTHER_ROW(name, NULL, MZ_OPTION_TEXT, value, NULL, NULL, where, true, help)
#define MZ_WORD(name, value, fallback, words, where, help)                                                         \
    MZ_OTHER_ROW(name, NULL, MZ_OPTION_WORD, value, fallback, words, where, false, help)

typedef struct mz_option_group {
    const char *title;
    const mz_option *options;
    int n_options;
} mz_option_group;

typedef struct mz_command_group {
    const mz_option_group *group;
    size_t base; /* of the group's struct in the command's */
} mz_command_group;

typedef struct mz_command mz_command;

/* Fills `target` from the arguments after the command's name. *help is set for --help, and then nothing is
 * checked further. Strings point into argv. MZ_ERR_USAGE. */
mz_status mz_options_parse(const mz_command *command, int n_args, char **args, void *target, bool *help);

#endif
