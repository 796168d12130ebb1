#include "core/json.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "core/error.h"
#include "core/file.h"
#include "core/memory.h"

enum { MAX_DEPTH = 128 };

/* ---- from hjson's extras to plain JSON, byte for byte, so that lines stay what they are ---- */

/* Where the string that begins at text[i] == '"' ends: one past its closing quote, or `bytes`. */
static size_t skip_string(const char *text, size_t bytes, size_t i)
{
    for (i++; i < bytes && text[i] != '"'; i++) {
        if (text[i] == '\\')
            i++;
        else if (text[i] == '\n')
            return i; /* no string runs over a line's end; the parser will say so */
    }
    return i < bytes ? i + 1 : bytes;
}

/* Overwrites a comment that begins at text[i] with blanks, and returns its end; i when there is none. A block
 * comment that never ends is left for the parser to complain about. */
static size_t blank_comment(char *text, size_t bytes, size_t i)
{
    const char next = i + 1 < bytes ? text[i + 1] : '\0';
    size_t end = i;
    if (text[i] == '#' || (text[i] == '/' && next == '/')) {
        while (end < bytes && text[end] != '\n')
            end++;
    } else if (text[i] == '/' && next == '*') {
        const char *close = memmem(text + i + 2, bytes - i - 2, "*/", 2);
        if (close)
            end = (size_t)(close - text) + 2;
    }
    for (size_t k = i; k < end; k++) {
        if (text[k] != '\n')
            text[k] = ' ';
    }
    return end;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* An integer too large for 64 bits becomes a real number of the same length: its last three digits turn into
 * "e03". Hugging Face's files have such numbers (1e30, written out, for "no limit"). The number starts at text[i],
 * after its sign; returns its end. */
static size_t soften_integer(char *text, size_t bytes, size_t i)
{
    static const char largest[] = "9223372036854775807";
    const size_t n_largest = sizeof largest - 1;
    size_t end = i;
    bool integer = true;
    for (; end < bytes && text[end] && strchr("0123456789.eE+-", text[end]); end++)
        integer = integer && text[end] >= '0' && text[end] <= '9';
    const size_t n = end - i;
    if (integer && (n > n_largest || (n == n_largest && memcmp(text + i, largest, n) > 0)))
        memcpy(text + end - 3, "e03", 3);
    return end;
}

/* Blanks comments and trailing commas, softens huge integers; finds nesting deeper than MAX_DEPTH. Returns the line
 * of the offence, 0 when there is none. */
static int simplify(char *text, size_t bytes)
{
    size_t comma = bytes; /* the last token, when it is a comma after a value */
    char last = '\0';     /* the first character of the last token */
    int depth = 0, line = 1;
    if (bytes >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0)
        memset(text, ' ', 3); /* a byte order mark */
    for (size_t i = 0; i < bytes;) {
        const char c = text[i];
        const size_t comment_end = blank_comment(text, bytes, i);
        if (comment_end > i || is_blank(c)) {
            const size_t end = comment_end > i ? comment_end : i + 1;
            for (; i < end; i++)
                line += text[i] == '\n';
            continue;
        }
        if ((c == '{' || c == '[') && ++depth > MAX_DEPTH)
            return line;
        if (c == '}' || c == ']') {
            depth--;
            if (comma < bytes)
                text[comma] = ' ';
        }
        comma = c == ',' && last != '{' && last != '[' ? i : bytes;
        last = c;
        if (c == '"')
            i = skip_string(text, bytes, i);
        else if (c >= '0' && c <= '9')
            i = soften_integer(text, bytes, i);
        else
            i++;
    }
    return 0;
}

static int line_at(const char *text, const char *place)
{
    int line = 1;
    for (const char *p = text; p < place; p++)
        line += *p == '\n';
    return line;
}

mz_status mz_json_parse(const char *name, const char *text, size_t bytes, mz_json *json)
{
    mz_status status = MZ_ERR_MEMORY;
    json_error_t error;
    mz_json result = {.name = mz_strdup(name), .text = mz_alloc(bytes + 1)};
    if (!result.name || !result.text)
        goto out;
    memcpy(result.text, text, bytes);
    result.text[bytes] = '\0';
    const int too_deep = simplify(result.text, bytes);
    if (too_deep) {
        status = mz_fail(MZ_ERR_CONFIG, "%s:%d: nested more than %d levels deep", name, too_deep, MAX_DEPTH);
        goto out;
    }
    /* jansson passes over a zero byte after a number; the search for lines must not end there. */
    const char *zero = memchr(result.text, '\0', bytes);
    if (zero) {
        status = mz_fail(MZ_ERR_CONFIG, "%s:%d: not valid JSON: a zero byte", name, line_at(result.text, zero));
        goto out;
    }
    result.root = json_loadb(result.text, bytes, JSON_REJECT_DUPLICATES, &error);
    if (!result.root) {
        const bool memory = json_error_code(&error) == json_error_out_of_memory;
        status = mz_fail(memory ? MZ_ERR_MEMORY : MZ_ERR_CONFIG, "%s:%d: not valid JSON: %s", name,
                         error.line > 0 ? error.line : 1, error.text);
        goto out;
    }
    *json = result;
    return MZ_OK;
out:
    mz_json_free(&result);
    return status;
}

mz_status mz_json_read(const char *path, mz_json *json)
{
    char *text;
    size_t bytes;
    mz_status status = mz_file_read(path, &text, &bytes);
    if (status)
        return status;
    status = mz_json_parse(path, text, bytes, json);
    mz_free(text);
    return status;
}

void mz_json_free(mz_json *json)
{
    json_decref(json->root);
    mz_free(json->name);
    mz_free(json->text);
    *json = (mz_json){0};
}

/* ---- where a value stands: a walk through text that is known to be valid ---- */

static const char *skip_blanks(const char *p)
{
    while (is_blank(*p))
        p++;
    return p;
}

/* One past the value that begins at p. */
static const char *skip_value(const char *p)
{
    int depth = 0;
    do {
        p = skip_blanks(p);
        if (*p == '"') {
            p += skip_string(p, SIZE_MAX, 0); /* it does end */
        } else if (*p == '{' || *p == '[') {
            depth++;
            p++;
        } else if (*p == '}' || *p == ']') {
            depth--;
            p++;
        } else if (*p == ',' || *p == ':') {
            p++;
        } else {
            p += strcspn(p, ",:{}[] \t\r\n");
        }
    } while (depth > 0 && *p != '\0');
    return p;
}

/* The rest of `path` after its first part, when that part is the key at p ("key"); NULL when it is not. */
static const char *match_key(const char *path, const char *key, size_t length)
{
    if (strncmp(path, key, length) != 0)
        return NULL;
    if (path[length] == '\0')
        return path + length;
    return path[length] == '.' ? path + length + 1 : NULL;
}

/* The value that `path` names below the value at p; NULL when there is none. */
static const char *find_value(const char *p, const char *path)
{
    p = skip_blanks(p);
    if (*path == '\0')
        return p;
    if (*p != '{' && *p != '[')
        return NULL;
    const bool object = *p == '{';
    p = skip_blanks(p + 1);
    for (int index = 0; *p != '\0' && *p != '}' && *p != ']'; index++) {
        char digits[16];
        const char *key = digits;
        size_t length;
        if (object) {
            key = p + 1;
            p = skip_value(p);
            length = (size_t)(p - 1 - key);
            p = skip_blanks(p) + 1; /* the colon */
        } else {
            length = (size_t)snprintf(digits, sizeof digits, "%d", index);
        }
        const char *rest = match_key(path, key, length);
        const char *found = rest ? find_value(p, rest) : NULL;
        if (found)
            return found;
        p = skip_blanks(skip_value(p));
        if (*p == ',')
            p = skip_blanks(p + 1);
    }
    return NULL;
}

int mz_json_line(const mz_json *json, const char *path)
{
    const char *value = json->text ? find_value(json->text, path) : NULL;
    if (!value)
        return 0;
    return line_at(json->text, value);
}
