/* Messages: file, line, key, what was expected and what was found. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/config_internal.h"
#include "core/error.h"
#include "core/log.h"

static void front(const mz_config_reader *reader, int line, const char *path, const char *format, va_list args,
                  char text[2048])
{
    int n;
    if (!reader->has_file)
        n = snprintf(text, 2048, "configuration: %s: ", path);
    else if (line > 0)
        n = snprintf(text, 2048, "%s:%d: %s: ", reader->source.json.name, line, path);
    else
        n = snprintf(text, 2048, "%s: %s: ", reader->source.json.name, path);
    if (n >= 0 && n < 2048)
        vsnprintf(text + n, 2048 - (size_t)n, format, args);
}

mz_status mz_config_fail(const mz_config_reader *reader, int line, const char *path, const char *format, ...)
{
    char text[2048];
    va_list args;
    va_start(args, format);
    front(reader, line, path, format, args, text);
    va_end(args);
    return mz_fail(MZ_ERR_CONFIG, "%s", text);
}

void mz_config_warn(const mz_config_reader *reader, int line, const char *path, const char *format, ...)
{
    char text[2048];
    va_list args;
    va_start(args, format);
    front(reader, line, path, format, args, text);
    va_end(args);
    mz_warn_once(text, "%s", text);
}

void mz_config_describe_value(const json_t *value, char *text, size_t bytes)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        snprintf(text, bytes, "a block");
        break;
    case JSON_ARRAY:
        snprintf(text, bytes, "a list of %zu", json_array_size(value));
        break;
    case JSON_STRING:
        snprintf(text, bytes, "the string \"%.60s\"", json_string_value(value));
        break;
    case JSON_INTEGER:
        snprintf(text, bytes, "%lld", (long long)json_integer_value(value));
        break;
    case JSON_REAL:
        snprintf(text, bytes, "%g", json_real_value(value));
        break;
    default:
        snprintf(text, bytes, "%s", json_is_true(value) ? "true" : json_is_false(value) ? "false" : "null");
    }
}

static void describe_words(const char *words, char *text, size_t bytes)
{
    int n = snprintf(text, bytes, "one of ");
    while (n >= 0 && (size_t)n < bytes) {
        int length = (int)strcspn(words, "|");
        n += snprintf(text + n, bytes - (size_t)n, "\"%.*s\"%s", length, words, words[length] ? ", " : "");
        if (!words[length])
            break;
        words += length + 1;
    }
}

/* "0, 1, 2 or 3" for a short range, else words. */
static void describe_range(const mz_config_key *key, const char *kind, char *text, size_t bytes)
{
    if (key->type == MZ_KEY_INT && key->max - key->min <= 5) {
        int n = 0;
        for (int v = (int)key->min; v <= (int)key->max && n >= 0 && (size_t)n < bytes; v++)
            n += snprintf(text + n, bytes - (size_t)n, "%d%s", v,
                          v + 1 < (int)key->max ? ", "
                          : v < (int)key->max   ? " or "
                                                : "");
    } else if (key->min <= -1e299) {
        snprintf(text, bytes, "%s", kind);
    } else if (key->max < 9e18 && !(key->type == MZ_KEY_INT && key->max >= 2147483647)) {
        snprintf(text, bytes, "%s from %g to %g", kind, key->min, key->max);
    } else if (key->min > 0 && key->type == MZ_KEY_REAL) {
        snprintf(text, bytes, "%s above 0", kind);
    } else {
        snprintf(text, bytes, "%s of at least %g", kind, key->min);
    }
}

mz_status mz_config_wrong_value(const mz_config_reader *reader, const mz_config_key *key, const json_t *value,
                                int line, const char *shown)
{
    char expected[512], found[128];
    switch (key->type) {
    case MZ_KEY_BOOL:
        snprintf(expected, sizeof expected, "true or false");
        break;
    case MZ_KEY_INT:
        describe_range(key, "an integer", expected, sizeof expected);
        break;
    case MZ_KEY_REAL:
        describe_range(key, "a number", expected, sizeof expected);
        break;
    case MZ_KEY_TEXT:
        if (key->offset == MZ_KEY_NO_TARGET)
            snprintf(expected, sizeof expected, "a string");
        else
            snprintf(expected, sizeof expected, "a string of at most %zu bytes", key->bytes - 1);
        break;
    case MZ_KEY_WORD:
        describe_words(key->words, expected, sizeof expected);
        break;
    case MZ_KEY_LIST:
        snprintf(expected, sizeof expected, "a list");
        break;
    default:
        snprintf(expected, sizeof expected, "a block in braces");
    }
    mz_config_describe_value(value, found, sizeof found);
    return mz_config_fail(reader, line, shown, "expected %s%s, found %s; correct the value or remove the key",
                          expected, key->use == MZ_KEY_HONOURED && key->note ? " (or \"auto\")" : "", found);
}
