/* docs/CONFIG.md lists the table of keys as it is. With an argument, prints the list instead, to be put into the
 * document between its markers. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/config_internal.h"
#include "core/file.h"
#include "core/memory.h"

#define BEGIN "<!-- keys: begin -->\n"
#define END   "<!-- keys: end -->\n"

static const char *type_of(const mz_config_key *key)
{
    static const char *const names[] = {"true or false", "integer", "number", "string", "", "list", "block", "any"};
    return names[key->type];
}

static void print_words(FILE *out, const char *words)
{
    for (; *words; words += *words == '|') {
        int n = (int)strcspn(words, "|");
        fprintf(out, "`%.*s`%s", n, words, words[n] ? ", " : "");
        words += n;
    }
}

static void print_fate(FILE *out, const mz_config_key *key)
{
    if (key->use == MZ_KEY_NO_EFFECT)
        fprintf(out, "no effect: %s", key->note);
    else if (key->use == MZ_KEY_REFUSED)
        fprintf(out, "refused unless default: %s", key->note);
    else if (mz_config_key_later(key))
        fprintf(out, "read and checked; training refuses it in this version");
    else if (key->type == MZ_KEY_BLOCK)
        fprintf(out, "honoured; an unknown key is %s", key->strict ? "an error" : "a warning");
    else
        fprintf(out, "honoured");
    if (key->use == MZ_KEY_HONOURED && key->note)
        fprintf(out, "; `\"auto\"`: %s", key->note);
    if (key->only)
        fprintf(out, " (%s)", key->only);
}

/* The group a key is listed under: its block at the top, or the top level. */
static void group_of(const char *path, bool is_block, char group[64])
{
    size_t n = strcspn(path, ".");
    snprintf(group, 64, "%.*s", path[n] == '.' || is_block ? (int)n : 0, path);
}

static void print_keys(FILE *out)
{
    char last[64] = "-", group[64];
    for (int i = 0; i < mz_config_n_keys; i++) {
        const mz_config_key *key = &mz_config_keys[i];
        group_of(key->path, key->type == MZ_KEY_BLOCK, group);
        if (strcmp(group, last) != 0) {
            fprintf(out, "\n### %s\n\n| key | type | default | what becomes of it |\n|---|---|---|---|\n",
                    *group ? group : "Top level");
            strcpy(last, group);
        }
        fprintf(out, "| `%s` | ", key->path);
        if (key->words)
            print_words(out, key->words);
        else
            fprintf(out, "%s", type_of(key));
        fprintf(out, " | %s | ", *key->fallback ? key->fallback : "(empty)");
        print_fate(out, key);
        fprintf(out, " |\n");
    }
    fprintf(out, "\n");
}

/* Compares the document's part with the list; says where they part. */
static int compare(const char *document, const char *list)
{
    const char *begin = strstr(document, BEGIN), *end = strstr(document, END);
    if (!begin || !end) {
        printf("docs/CONFIG.md: the markers of the list are gone\n");
        return 1;
    }
    begin += strlen(BEGIN);
    size_t n = (size_t)(end - begin);
    if (n == strlen(list) && memcmp(begin, list, n) == 0)
        return 0;
    size_t same = 0, line = 0;
    for (; same < n && list[same] == begin[same]; same++)
        if (begin[same] == '\n')
            line = same + 1;
    printf("docs/CONFIG.md differs from the table of keys at\n  %.*s\nwhich should be\n  %.*s\n"
           "(tests/config/test_doc list prints the whole list)\n",
           (int)strcspn(begin + line, "\n"), begin + line, (int)strcspn(list + line, "\n"), list + line);
    return 1;
}

int main(int argc, char **argv)
{
    (void)argv;
    if (argc > 1) {
        print_keys(stdout);
        return 0;
    }
    char *list, *document, path[1024];
    size_t bytes;
    FILE *out = open_memstream(&list, &bytes);
    print_keys(out);
    fclose(out);
    const char *folder = getenv("srcdir");
    snprintf(path, sizeof path, "%s/docs/CONFIG.md", folder ? folder : ".");
    if (mz_file_read(path, &document, &bytes) != MZ_OK) {
        printf("%s\n", mz_last_error());
        free(list);
        return 1;
    }
    int wrong = compare(document, list);
    free(list);
    mz_free(document);
    return wrong;
}
