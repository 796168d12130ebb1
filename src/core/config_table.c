/* Lookups in the table of keys, and the defaults it gives. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/config_internal.h"
#include "core/nearest.h"

int mz_config_key_find(const char *path)
{
    for (int i = 0; i < mz_config_n_keys; i++)
        if (strcmp(mz_config_keys[i].path, path) == 0)
            return i;
    return -1;
}

/* Length of the block's part of a path, dot included; 0 at the top. */
static size_t block_length(const char *path)
{
    const char *dot = strrchr(path, '.');
    return dot ? (size_t)(dot - path) + 1 : 0;
}

const char *mz_config_key_nearest(const char *path)
{
    size_t block = block_length(path);
    mz_nearest nearest;
    mz_nearest_init(&nearest, path + block);
    for (int i = 0; i < mz_config_n_keys; i++) {
        const char *known = mz_config_keys[i].path;
        if (block_length(known) == block && strncmp(known, path, block) == 0)
            mz_nearest_offer(&nearest, known + block);
    }
    return nearest.best;
}

bool mz_config_word_in(const char *list, const char *word)
{
    size_t n = strlen(word);
    for (const char *at = list; (at = strstr(at, word)) != NULL; at += n)
        if ((at == list || at[-1] == ' ') && (at[n] == ' ' || at[n] == '\0'))
            return true;
    return false;
}

int mz_config_word_index(const char *words, const char *text)
{
    size_t n = strlen(text);
    for (int index = 0;; index++) {
        size_t length = strcspn(words, "|");
        if (length == n && strncasecmp(words, text, n) == 0)
            return index;
        if (words[length] == '\0')
            return -1;
        words += length + 1;
    }
}

/* An integer written as 1000, 5e8 or 9223372036854775807. */
static int64_t integer_of(const char *text)
{
    char *end;
    long long whole = strtoll(text, &end, 10);
    return *end == '\0' ? whole : (int64_t)strtod(text, NULL);
}

void mz_config_set_defaults(mz_config *config)
{
    memset(config, 0, sizeof *config);
    for (int i = 0; i < mz_config_n_keys; i++) {
        const mz_config_key *key = &mz_config_keys[i];
        if (key->offset == MZ_KEY_NO_TARGET)
            continue;
        void *target = (char *)config + key->offset;
        const char *text = key->fallback;
        bool absent = strcmp(text, "null") == 0 || strcmp(text, "required") == 0;
        switch (key->type) {
        case MZ_KEY_BOOL:
            *(bool *)target = strcmp(text, "true") == 0;
            break;
        case MZ_KEY_INT:
            mz_config_store_int(key, config, absent ? (int64_t)key->none : integer_of(text));
            break;
        case MZ_KEY_WORD:
            mz_config_store_int(key, config, absent ? (int64_t)key->none : mz_config_word_index(key->words, text));
            break;
        case MZ_KEY_REAL:
            *(double *)target = absent ? key->none : strtod(text, NULL);
            break;
        case MZ_KEY_TEXT:
            snprintf(target, key->bytes, "%s", absent ? "" : text);
            break;
        default:
            break;
        }
    }
}

void mz_config_store_int(const mz_config_key *key, mz_config *config, int64_t value)
{
    void *target = (char *)config + key->offset;
    if (key->bytes == sizeof(bool))
        *(bool *)target = value != 0;
    else if (key->bytes == sizeof(int))
        *(int *)target = (int)value;
    else
        *(int64_t *)target = value;
}

int64_t mz_config_fetch_int(const mz_config_key *key, const mz_config *config)
{
    const void *source = (const char *)config + key->offset;
    if (key->bytes == sizeof(bool))
        return *(const bool *)source;
    if (key->bytes == sizeof(int))
        return *(const int *)source;
    return *(const int64_t *)source;
}
