/* --help and the manual page's options, both from the tables. */
#include <string.h>

#include "cli/cli.h"

enum { COLUMN = 36, WIDTH = 100 };

/* "--[no-]shuffle", "--block-size N", "PATH". */
static void flag_text(const mz_option *option, char *text, size_t bytes)
{
    bool on_off = option->kind == MZ_OPTION_SWITCH || option->kind == MZ_OPTION_CHOICE;
    if (!option->name)
        snprintf(text, bytes, "%s", option->value);
    else
        snprintf(text, bytes, "--%s%s%s%s", on_off ? "[no-]" : "", option->name, option->value ? " " : "",
                 option->value ? option->value : "");
}

/* The explanation with the default and the other name, as one sentence. */
static void help_text(const mz_option *option, char *text, size_t bytes)
{
    int n = snprintf(text, bytes, "%s", option->help);
    if (option->required && n >= 0 && (size_t)n < bytes)
        n += snprintf(text + n, bytes - (size_t)n, " (needed)");
    if (option->fallback && n >= 0 && (size_t)n < bytes)
        n += snprintf(text + n, bytes - (size_t)n, " (default %s)", option->fallback);
    if (option->alias && n >= 0 && (size_t)n < bytes)
        snprintf(text + n, bytes - (size_t)n, "; also --%s", option->alias);
}

/* Words from `column` to the width, on as many lines as they need. */
static void print_wrapped(FILE *out, const char *text, int column)
{
    int at = column;
    while (*text) {
        int n = (int)strcspn(text, " ");
        if (at > column && at + 1 + n > WIDTH) {
            fprintf(out, "\n%*s", column, "");
            at = column;
        }
        at += fprintf(out, "%s%.*s", at > column ? " " : "", n, text);
        text += n + (text[n] == ' ');
    }
    fputc('\n', out);
}

static void print_option(const mz_option *option, FILE *out)
{
    char flag[128], help[512];
    flag_text(option, flag, sizeof flag);
    help_text(option, help, sizeof help);
    int n = fprintf(out, "  %s", flag);
    if (n + 2 > COLUMN) {
        fputc('\n', out);
        n = 0;
    }
    fprintf(out, "%*s", COLUMN - n, "");
    print_wrapped(out, help, COLUMN);
}

static void print_program(FILE *out)
{
    fprintf(
        out,
        "Usage: mpizero COMMAND [options]\n       srun mpizero COMMAND [options]\n\nTrains large models with ZeRO "
        "over MPI.\n\nCommands:\n");
    for (int i = 0; i < mz_n_commands; i++)
        fprintf(out, "  %-17s  %s\n", mz_commands[i]->name, mz_commands[i]->summary);
    fprintf(
        out,
        "\n'mpizero COMMAND --help' lists a command's options; 'mpizero --version' names the version.\n"
        "Exit codes: 0 done, 1 failed, 2 wrong command line, 75 saved on a signal or lost a rank, and wants to be "
        "requeued.\n");
}

void mz_help_print(const mz_command *command, FILE *out)
{
    if (!command) {
        print_program(out);
        return;
    }
    fprintf(out, "Usage: mpizero %s%s%s [options]\n\n", command->name, *command->operands ? " " : "",
            command->operands);
    print_wrapped(out, command->description, 0);
    for (int g = 0; g < command->n_groups; g++) {
        const mz_option_group *group = command->groups[g].group;
        fprintf(out, "\n%s:\n", group->title);
        for (int i = 0; i < group->n_options; i++)
            print_option(&group->options[i], out);
    }
}

/* Text with what roff would take for its own made harmless. */
static void print_roff(FILE *out, const char *text)
{
    if (*text == '.' || *text == '\'')
        fputs("\\&", out);
    for (; *text; text++) {
        if (*text == '\\')
            fputs("\\e", out);
        else if (*text == '-')
            fputs("\\-", out);
        else
            fputc(*text, out);
    }
}

void mz_help_print_manual(FILE *out)
{
    char flag[128], help[512];
    for (int c = 0; c < mz_n_commands; c++) {
        const mz_command *command = mz_commands[c];
        fprintf(out, ".SS mpizero %s%s%s\n", command->name, *command->operands ? " " : "", command->operands);
        print_roff(out, command->description);
        fputc('\n', out);
        for (int g = 0; g < command->n_groups; g++) {
            const mz_option_group *group = command->groups[g].group;
            for (int i = 0; i < group->n_options; i++) {
                flag_text(&group->options[i], flag, sizeof flag);
                help_text(&group->options[i], help, sizeof help);
                fputs(".TP\n.B ", out);
                print_roff(out, flag);
                fputc('\n', out);
                print_roff(out, help);
                fputc('\n', out);
            }
        }
    }
}
