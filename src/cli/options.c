#include "cli/options.h"

#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "core/error.h"
#include "core/nearest.h"

enum { NAME_MAX_BYTES = 64, MAX_SEEN = 128 };

/* An option of a command and where its value goes. */
typedef struct place {
    const mz_option *option;
    void *target;
    bool negated; /* --no-NAME */
} place;

static bool is_on_off(const mz_option *option)
{
    return option->kind == MZ_OPTION_SWITCH || option->kind == MZ_OPTION_CHOICE;
}

/* Calls `visit` for each option of the command until it returns true. */
static bool for_each(const mz_command *command, char *target, bool (*visit)(void *context, place at), void *context)
{
    for (int g = 0; g < command->n_groups; g++) {
        const mz_command_group *group = &command->groups[g];
        for (int i = 0; i < group->group->n_options; i++) {
            const mz_option *option = &group->group->options[i];
            if (visit(context, (place){option, target + group->base + option->offset, false}))
                return true;
        }
    }
    return false;
}

typedef struct search {
    const char *name;
    place found;
    mz_nearest nearest;
} search;

static bool match(void *context, place at)
{
    search *s = context;
    const char *positive = strncmp(s->name, "no-", 3) == 0 ? s->name + 3 : NULL;
    if (!at.option->name)
        return false;
    mz_nearest_offer(&s->nearest, at.option->name);
    if (at.option->alias)
        mz_nearest_offer(&s->nearest, at.option->alias);
    bool same =
        strcmp(at.option->name, s->name) == 0 || (at.option->alias && strcmp(at.option->alias, s->name) == 0);
    at.negated = !same && positive && is_on_off(at.option) && strcmp(at.option->name, positive) == 0;
    if (same || at.negated)
        s->found = at;
    return same || at.negated;
}

/* The n-th operand's option. */
typedef struct operand_search {
    int left;
    place found;
} operand_search;

static bool match_operand(void *context, place at)
{
    operand_search *s = context;
    if (at.option->name || s->left-- > 0)
        return false;
    s->found = at;
    return true;
}

static mz_status usage(const mz_command *command, const char *text)
{
    return mz_fail(MZ_ERR_USAGE, "%s (mpizero %s --help lists the flags)", text, command->name);
}

static mz_status bad_number(const char *shown, const mz_option *option, const char *kind, const char *text)
{
    if (option->max < 1e18)
        return mz_fail(MZ_ERR_USAGE, "%s: expected %s from %g to %g, found \"%s\"", shown, kind, option->min,
                       option->max, text);
    return mz_fail(MZ_ERR_USAGE, "%s: expected %s of at least %g, found \"%s\"", shown, kind, option->min, text);
}

/* A whole number, also when written as 5e8. */
static bool parse_integer(const char *text, int64_t *value)
{
    char *end;
    errno = 0;
    long long whole = strtoll(text, &end, 10);
    *value = whole;
    if (end != text && *end == '\0')
        return errno == 0;
    double real = strtod(text, &end);
    *value = fabs(real) < 9.2e18 ? (int64_t)real : 0;
    return end != text && *end == '\0' && real == (double)*value;
}

static bool is_word(const char *words, const char *text)
{
    size_t n = strlen(text);
    for (;; words++) {
        size_t length = strcspn(words, "|");
        if (length == n && memcmp(words, text, n) == 0)
            return true;
        words += length;
        if (!*words)
            return false;
    }
}

static mz_status take_word(const char *shown, const mz_option *option, const char *text, const char **target)
{
    char list[128];
    size_t n = 0;
    if (is_word(option->words, text)) {
        *target = text;
        return MZ_OK;
    }
    for (const char *p = option->words; *p && n + 3 < sizeof list; p++) {
        list[n++] = *p == '|' ? ',' : *p;
        if (*p == '|')
            list[n++] = ' ';
    }
    list[n] = '\0';
    return mz_fail(MZ_ERR_USAGE, "%s: expected one of %s, found \"%s\"", shown, list, text);
}

static mz_status take_value(place at, const char *shown, const char *text)
{
    const mz_option *option = at.option;
    int64_t integer;
    double real;
    char *end;
    switch (option->kind) {
    case MZ_OPTION_INT:
    case MZ_OPTION_INT64:
        if (!parse_integer(text, &integer) || (double)integer < option->min || (double)integer > option->max)
            return bad_number(shown, option, "a whole number", text);
        if (option->kind == MZ_OPTION_INT)
            *(int *)at.target = (int)integer;
        else
            *(int64_t *)at.target = integer;
        return MZ_OK;
    case MZ_OPTION_DOUBLE:
        real = strtod(text, &end);
        if (end == text || *end || !(real >= option->min && real <= option->max))
            return bad_number(shown, option, "a number", text);
        *(double *)at.target = real;
        return MZ_OK;
    case MZ_OPTION_WORD:
        return take_word(shown, option, text, at.target);
    default:
        *(const char **)at.target = text;
        return MZ_OK;
    }
}

static void take_switch(place at)
{
    if (at.option->kind == MZ_OPTION_SWITCH)
        *(bool *)at.target = !at.negated;
    else
        *(int *)at.target = !at.negated;
}

/* Options that were given, and by which of their names. */
typedef struct seen {
    const mz_option *options[MAX_SEEN];
    char names[MAX_SEEN][NAME_MAX_BYTES];
    int n;
} seen;

/* The last of several equal flags counts; two names of one option contradict each other. */
static mz_status note(seen *s, const mz_option *option, const char *name)
{
    for (int i = 0; i < s->n; i++) {
        if (s->options[i] != option)
            continue;
        if (option->name && !is_on_off(option) && strcmp(s->names[i], name) != 0)
            return mz_fail(MZ_ERR_USAGE, "--%s and --%s set the same; give one of them", s->names[i], name);
        return MZ_OK;
    }
    if (s->n < MAX_SEEN) {
        s->options[s->n] = option;
        snprintf(s->names[s->n++], NAME_MAX_BYTES, "%s", name);
    }
    return MZ_OK;
}

typedef struct required_check {
    const seen *seen;
    const mz_option *missing;
} required_check;

static bool is_missing(void *context, place at)
{
    required_check *check = context;
    for (int i = 0; i < check->seen->n; i++)
        if (check->seen->options[i] == at.option)
            return false;
    if (at.option->required)
        check->missing = at.option;
    return at.option->required;
}

/* "--learning_rate=1" to "learning-rate" and "1"; *value NULL without a '='. */
static bool split(const char *argument, char name[NAME_MAX_BYTES], const char **value)
{
    size_t n = strcspn(argument + 2, "=");
    if (n == 0 || n >= NAME_MAX_BYTES)
        return false;
    memcpy(name, argument + 2, n);
    name[n] = '\0';
    for (char *c = name; *c; c++)
        if (*c == '_')
            *c = '-';
    *value = argument[2 + n] == '=' ? argument + n + 3 : NULL;
    return true;
}

static mz_status unknown_flag(const mz_command *command, const char *argument, const char *nearest)
{
    char text[256];
    snprintf(text, sizeof text, "unknown flag %.*s%s%s%s", (int)strcspn(argument, "="), argument,
             nearest ? ", did you mean --" : "", nearest ? nearest : "", nearest ? "?" : "");
    return usage(command, text);
}

/* One flag at args[*i], and its value there or in the next argument. */
static mz_status take_flag(const mz_command *command, int n_args, char **args, int *i, char *target, seen *given)
{
    char name[NAME_MAX_BYTES], text[256];
    const char *value, *argument = args[*i];
    search s = {.name = name};
    if (!split(argument, name, &value))
        return unknown_flag(command, argument, NULL);
    mz_nearest_init(&s.nearest, name);
    if (!for_each(command, target, match, &s))
        return unknown_flag(command, argument, s.nearest.best);
    mz_status status = note(given, s.found.option, name);
    if (status != MZ_OK)
        return status;
    if (is_on_off(s.found.option)) {
        snprintf(text, sizeof text, "--%s takes no value, found \"%.100s\"", name, value ? value : "");
        if (value)
            return usage(command, text);
        take_switch(s.found);
        return MZ_OK;
    }
    if (!value) {
        snprintf(text, sizeof text, "--%s: expected a value, %s, found none", name, s.found.option->value);
        if (*i + 1 >= n_args || strncmp(args[*i + 1], "--", 2) == 0)
            return usage(command, text);
        value = args[++*i];
    }
    snprintf(text, sizeof text, "--%s", name);
    return take_value(s.found, text, value);
}

mz_status mz_options_parse(const mz_command *command, int n_args, char **args, void *target, bool *help)
{
    seen given = {.n = 0};
    int n_operands = 0;
    char text[256];
    mz_status status = MZ_OK;
    *help = n_args > 0 && strcmp(args[0], "-h") == 0;
    for (int i = 0; i < n_args; i++)
        *help = *help || strcmp(args[i], "--help") == 0;
    if (*help)
        return MZ_OK;
    for (int i = 0; i < n_args && status == MZ_OK; i++) {
        if (strncmp(args[i], "--", 2) == 0) {
            status = take_flag(command, n_args, args, &i, target, &given);
            continue;
        }
        operand_search s = {.left = n_operands++};
        snprintf(text, sizeof text, "unexpected argument \"%.150s\"", args[i]);
        if (!for_each(command, target, match_operand, &s))
            return usage(command, text);
        *(const char **)s.found.target = args[i];
        status = note(&given, s.found.option, "");
    }
    required_check check = {.seen = &given};
    if (status == MZ_OK && for_each(command, target, is_missing, &check)) {
        const mz_option *missing = check.missing;
        snprintf(text, sizeof text, "mpizero %s needs %s%s%s", command->name, missing->name ? "--" : "",
                 missing->name ? missing->name : missing->value, missing->name ? " and its value" : "");
        status = usage(command, text);
    }
    return status;
}
