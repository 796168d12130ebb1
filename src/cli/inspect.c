#include "checkpoint/tools.h"

#include <stdlib.h>

#include "cli/cli.h"
#include "core/error.h"
#include "core/memory.h"

#define N(table) ((int)(sizeof(table) / sizeof((table)[0])))

typedef struct inspect_target {
    mz_cli_common common;
    const char *path;
    bool verify, json;
} inspect_target;

#define AT(field) offsetof(inspect_target, field)

static const mz_option what[] = {
    MZ_NEEDED(NULL, "PATH", AT(path),
              "a checkpoint (a step's or a run's folder, RUN/checkpoints/latest) or a weights folder"),
    MZ_SWITCH("verify", "off", AT(verify), "read all data of a checkpoint and compare every checksum"),
    MZ_SWITCH("json", "off", AT(json), "print a JSON object"),
};
static const mz_option_group what_group = {"What to show", what, N(what)};

static const mz_command_group groups[] = {{&what_group, 0}, {&mz_group_common, 0}};

/* Facts are printed even of a damaged checkpoint; the failure follows. */
static mz_status run(mz_world *world, const void *target)
{
    const inspect_target *t = target;
    json_t *facts = NULL;
    (void)world;
    mz_status status = mz_inspect(t->path, t->verify, &facts);
    if (!facts)
        return status;
    if (t->json) {
        json_dumpf(facts, stdout, JSON_INDENT(1));
        putchar('\n');
    } else {
        char *text = mz_inspect_text(facts);
        if (text)
            fputs(text, stdout);
        else
            status = MZ_ERR_MEMORY;
        mz_free(text);
    }
    json_decref(facts);
    return status;
}

const mz_command mz_command_inspect = {
    .name = "inspect",
    .operands = "PATH",
    .summary = "what a checkpoint or a weights folder holds, and whether it is whole",
    .description =
        "Shows the tensors, sizes and state of a checkpoint or a weights folder, and whether all files are there "
        "and whole.",
    .groups = groups,
    .n_groups = N(groups),
    .target_bytes = sizeof(inspect_target),
    .run = run,
};
