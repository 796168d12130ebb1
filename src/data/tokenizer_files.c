#include "data/tokenizer_files.h"

#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/file.h"
#include "core/memory.h"

void mz_tokenizer_parts_free(mz_tokenizer_parts *parts)
{
    mz_bpe_destroy(parts->bpe);
    for (int i = 0; i < parts->n_added; i++)
        mz_free(parts->added[i].text);
    mz_free(parts->added);
    *parts = (mz_tokenizer_parts){.end_id = -1};
}

void mz_tokenizer_files_free(mz_tokenizer_files *files)
{
    mz_json_free(&files->tokenizer);
    mz_json_free(&files->vocab);
    mz_json_free(&files->config);
    mz_json_free(&files->special_map);
    mz_json_free(&files->added);
    mz_free(files->merges_name);
    mz_free(files->merges);
    *files = (mz_tokenizer_files){0};
}

/* Puts "name:line: " in front of the last error. */
static mz_status at_line(const char *name, int line, mz_status status)
{
    char message[1024];
    if (status == MZ_ERR_MEMORY)
        return status;
    const char *last = mz_last_error();
    const size_t n = strnlen(last, sizeof message - 1);
    memcpy(message, last, n);
    message[n] = '\0';
    return line > 0 ? mz_fail(status, "%s:%d: %s", name, line, message) : mz_fail(status, "%s: %s", name, message);
}

static mz_status at_key(const mz_json *json, const char *path, mz_status status)
{
    return at_line(json->name, mz_json_line(json, path), status);
}

static mz_status wrong_value(const mz_json *json, const char *path, mz_status code, const char *expected)
{
    mz_fail(code, "%s: expected %s", path, expected);
    return at_key(json, path, code);
}

/* ---- vocabulary and merges ---- */

static mz_status add_vocab(mz_bpe *bpe, const mz_json *file, const char *path, json_t *vocab)
{
    const char *key;
    json_t *value;
    if (!json_is_object(vocab) || json_object_size(vocab) == 0)
        return wrong_value(file, path, MZ_ERR_MODEL, "an object of tokens and their ids");
    json_object_foreach(vocab, key, value)
    {
        const mz_status status =
            json_is_integer(value) ? mz_bpe_add_token(bpe, key, strlen(key), json_integer_value(value))
                                   : mz_fail(MZ_ERR_MODEL, "token \"%.255s\": expected an integer as its id", key);
        if (!status)
            continue;
        char *where = mz_strprintf("%s%s%s", path, *path ? "." : "", key);
        const mz_status located = where ? at_key(file, where, status) : MZ_ERR_MEMORY;
        mz_free(where);
        return located;
    }
    return MZ_OK;
}

/* "left right"; exactly one space. */
static mz_status add_merge_line(mz_bpe *bpe, const char *line, size_t bytes)
{
    const char *space = memchr(line, ' ', bytes);
    const size_t left = space ? (size_t)(space - line) : 0;
    if (left == 0 || left + 1 == bytes || memchr(space + 1, ' ', bytes - left - 1))
        return mz_fail(MZ_ERR_MODEL, "expected two tokens with one space between them, found \"%.*s\"",
                       (int)(bytes < 255 ? bytes : 255), line);
    return mz_bpe_add_merge(bpe, line, left, space + 1, bytes - left - 1);
}

/* merges.txt: a "#version" line, then one merge a line; line ends of either kind. */
static mz_status add_merge_lines(mz_bpe *bpe, const char *name, const char *text, size_t bytes)
{
    const char *end = text + bytes;
    int line = 1;
    for (const char *p = text; p < end; line++) {
        const char *newline = memchr(p, '\n', (size_t)(end - p));
        const char *next = newline ? newline + 1 : end;
        size_t n = (size_t)((newline ? newline : end) - p);
        if (n > 0 && p[n - 1] == '\r')
            n--;
        const bool version = line == 1 && n >= 8 && memcmp(p, "#version", 8) == 0;
        const mz_status status = n == 0 || version ? MZ_OK : add_merge_line(bpe, p, n);
        if (status)
            return at_line(name, line, status);
        p = next;
    }
    return MZ_OK;
}

/* tokenizer.json: "left right" or ["left", "right"]. */
static mz_status add_merge_array(mz_bpe *bpe, const mz_json *file, json_t *merges)
{
    size_t i;
    json_t *merge;
    if (!json_is_array(merges))
        return wrong_value(file, "model.merges", MZ_ERR_MODEL, "an array of merges");
    json_array_foreach(merges, i, merge)
    {
        mz_status status;
        const json_t *left = json_array_get(merge, 0), *right = json_array_get(merge, 1);
        if (json_is_string(merge))
            status = add_merge_line(bpe, json_string_value(merge), json_string_length(merge));
        else if (json_array_size(merge) == 2 && json_is_string(left) && json_is_string(right))
            status = mz_bpe_add_merge(bpe, json_string_value(left), json_string_length(left),
                                      json_string_value(right), json_string_length(right));
        else
            status = mz_fail(MZ_ERR_MODEL, "expected a merge as \"a b\" or [\"a\", \"b\"]");
        if (status) {
            char where[64];
            snprintf(where, sizeof where, "model.merges.%zu", i);
            return at_key(file, where, status);
        }
    }
    return MZ_OK;
}

/* ---- added tokens ---- */

/* Adds a token, to the vocabulary too unless it is there. The first of several entries for a text counts. */
static mz_status add_added(mz_tokenizer_parts *parts, const char *text, int64_t id, const json_t *details)
{
    const size_t bytes = strlen(text);
    if (bytes == 0)
        return mz_fail(MZ_ERR_MODEL, "an added token has no text");
    for (int i = 0; i < parts->n_added; i++) {
        if (strcmp(parts->added[i].text, text) == 0)
            return MZ_OK;
    }
    if (json_is_true(json_object_get(details, "single_word")))
        return mz_fail(MZ_ERR_UNSUPPORTED, "added token \"%.255s\": single_word is not supported", text);
    if (id < 0 || mz_bpe_find(parts->bpe, text, bytes) != id) { /* which is -1 for what is not there */
        const mz_status status = mz_bpe_add_token(parts->bpe, text, bytes, id);
        if (status)
            return status;
    }
    mz_added_token *larger = mz_realloc(parts->added, (size_t)(parts->n_added + 1) * sizeof *larger);
    if (!larger)
        return MZ_ERR_MEMORY;
    parts->added = larger;
    char *copy = mz_strdup(text);
    if (!copy)
        return MZ_ERR_MEMORY;
    const json_t *special = json_object_get(details, "special");
    parts->added[parts->n_added++] = (mz_added_token){
        .text = copy,
        .bytes = bytes,
        .id = (int32_t)id,
        .special = !special || json_is_true(special),
        .strip_left = json_is_true(json_object_get(details, "lstrip")),
        .strip_right = json_is_true(json_object_get(details, "rstrip")),
    };
    return MZ_OK;
}

/* tokenizer.json: [{"id": 50256, "content": "<|endoftext|>", ...}]. */
static mz_status add_added_array(mz_tokenizer_parts *parts, const mz_json *file)
{
    size_t i;
    json_t *token;
    json_array_foreach(json_object_get(file->root, "added_tokens"), i, token)
    {
        const json_t *id = json_object_get(token, "id"), *content = json_object_get(token, "content");
        const mz_status status = json_is_integer(id) && json_is_string(content)
                                     ? add_added(parts, json_string_value(content), json_integer_value(id), token)
                                     : mz_fail(MZ_ERR_MODEL, "expected an added token with \"id\" and \"content\"");
        if (status) {
            char where[64];
            snprintf(where, sizeof where, "added_tokens.%zu", i);
            return at_key(file, where, status);
        }
    }
    return MZ_OK;
}

/* tokenizer_config.json: "added_tokens_decoder": {"50256": {"content": "<|endoftext|>", ...}}. */
static mz_status add_added_decoder(mz_tokenizer_parts *parts, const mz_json *file)
{
    const char *key;
    json_t *token;
    json_object_foreach(json_object_get(file->root, "added_tokens_decoder"), key, token)
    {
        char *end;
        const json_t *content = json_object_get(token, "content");
        const long long id = strtoll(key, &end, 10);
        const mz_status status =
            *key && !*end && json_is_string(content)
                ? add_added(parts, json_string_value(content), id, token)
                : mz_fail(MZ_ERR_MODEL, "added_tokens_decoder: expected \"id\": {\"content\": ...}");
        if (status)
            return at_key(file, "added_tokens_decoder", status);
    }
    return MZ_OK;
}

/* added_tokens.json: {"<mask>": 8008}. */
static mz_status add_added_object(mz_tokenizer_parts *parts, const mz_json *file)
{
    const char *key;
    json_t *id;
    json_object_foreach(file->root, key, id)
    {
        const mz_status status = json_is_integer(id) ? add_added(parts, key, json_integer_value(id), NULL)
                                                     : mz_fail(MZ_ERR_MODEL, "\"%.255s\": expected an id", key);
        if (status)
            return at_key(file, key, status);
    }
    return MZ_OK;
}

/* The text of a token that a settings file names: "eos_token": "..." or {"content": "..."}; NULL: none. */
static const char *named_token(const mz_tokenizer_files *files, const char *key)
{
    const mz_json *const places[] = {&files->config, &files->special_map};
    for (int i = 0; i < 2; i++) {
        const json_t *value = json_object_get(places[i]->root, key);
        if (json_is_object(value))
            value = json_object_get(value, "content");
        if (json_is_string(value))
            return json_string_value(value);
    }
    return NULL;
}

/* The tokens that the settings name are special even where no list of added tokens says so. */
static mz_status add_named_tokens(mz_tokenizer_parts *parts, const mz_tokenizer_files *files)
{
    static const char *const keys[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                       "pad_token", "cls_token", "mask_token"};
    mz_status status = MZ_OK;
    for (size_t i = 0; !status && i <= sizeof keys / sizeof *keys; i++) {
        const char *text = i < sizeof keys / sizeof *keys ? named_token(files, keys[i]) : "<|endoftext|>";
        const int32_t id = text ? mz_bpe_find(parts->bpe, text, strlen(text)) : -1;
        if (id >= 0 && *text)
            status = add_added(parts, text, id, NULL);
    }
    return status;
}

static int32_t find_named(const mz_tokenizer_parts *parts, const char *text)
{
    return text ? mz_bpe_find(parts->bpe, text, strlen(text)) : -1;
}

/* ---- the two kinds of folder ---- */

/* What tokenizer.json may ask for beyond GPT-2's scheme is refused here, not ignored. */
static mz_status check_model(const mz_json *file)
{
    const json_t *model = json_object_get(file->root, "model");
    const char *type = json_string_value(json_object_get(model, "type"));
    const json_t *normalizer = json_object_get(file->root, "normalizer");
    if (!json_is_object(model))
        return wrong_value(file, "model", MZ_ERR_MODEL, "an object");
    if (type && strcmp(type, "BPE") != 0)
        return wrong_value(file, "model.type", MZ_ERR_UNSUPPORTED, "\"BPE\", the one kind supported here");
    if (normalizer && !json_is_null(normalizer))
        return wrong_value(file, "normalizer", MZ_ERR_UNSUPPORTED, "null: no normalizer is supported");
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    for (int i = 0; i < 2; i++) {
        const char *affix = json_string_value(json_object_get(model, affixes[i]));
        if (affix && *affix)
            return wrong_value(file, i ? "model.end_of_word_suffix" : "model.continuing_subword_prefix",
                               MZ_ERR_UNSUPPORTED, "\"\" (byte-level BPE)");
    }
    if (json_is_true(json_object_get(model, "byte_fallback")))
        return wrong_value(file, "model.byte_fallback", MZ_ERR_UNSUPPORTED, "false (byte-level BPE)");
    if (json_is_true(json_object_get(model, "ignore_merges")))
        return wrong_value(file, "model.ignore_merges", MZ_ERR_UNSUPPORTED, "false");
    return MZ_OK;
}

static mz_status read_pretokenizer(const mz_json *file, mz_prefix *prefix)
{
    const json_t *settings = json_object_get(file->root, "pre_tokenizer");
    const char *type = json_string_value(json_object_get(settings, "type"));
    if (!type || strcmp(type, "ByteLevel") != 0)
        return wrong_value(file, "pre_tokenizer", MZ_ERR_UNSUPPORTED, "{\"type\": \"ByteLevel\", ...}");
    if (json_is_false(json_object_get(settings, "use_regex")))
        return wrong_value(file, "pre_tokenizer.use_regex", MZ_ERR_UNSUPPORTED, "true");
    *prefix = json_is_false(json_object_get(settings, "add_prefix_space")) ? MZ_PREFIX_NONE : MZ_PREFIX_SEGMENT;
    return MZ_OK;
}

static mz_status parse_tokenizer_json(const mz_tokenizer_files *files, mz_tokenizer_parts *parts)
{
    const mz_json *file = &files->tokenizer;
    const json_t *model = json_object_get(file->root, "model");
    mz_status status = check_model(file);
    if (!status)
        status = read_pretokenizer(file, &parts->prefix);
    if (!status)
        status = mz_bpe_create(&parts->bpe);
    if (!status)
        status = add_vocab(parts->bpe, file, "model.vocab", json_object_get(model, "vocab"));
    if (!status)
        status = add_merge_array(parts->bpe, file, json_object_get(model, "merges"));
    if (!status)
        status = add_added_array(parts, file);
    if (!status)
        status = mz_bpe_seal(parts->bpe, find_named(parts, json_string_value(json_object_get(model, "unk_token"))));
    return status;
}

static mz_status parse_vocab_and_merges(const mz_tokenizer_files *files, mz_tokenizer_parts *parts)
{
    mz_status status = mz_bpe_create(&parts->bpe);
    if (json_is_true(json_object_get(files->config.root, "add_prefix_space")))
        parts->prefix = MZ_PREFIX_TEXT;
    if (!status)
        status = add_vocab(parts->bpe, &files->vocab, "", files->vocab.root);
    if (!status)
        status = add_merge_lines(parts->bpe, files->merges_name, files->merges, files->merges_bytes);
    if (!status)
        status = add_added_decoder(parts, &files->config);
    if (!status)
        status = add_added_object(parts, &files->added);
    if (!status)
        status = mz_bpe_seal(parts->bpe, find_named(parts, named_token(files, "unk_token")));
    return status;
}

mz_status mz_tokenizer_parse_files(const mz_tokenizer_files *files, mz_tokenizer_parts *out)
{
    mz_tokenizer_parts parts = {.end_id = -1};
    mz_status status =
        files->tokenizer.root ? parse_tokenizer_json(files, &parts) : parse_vocab_and_merges(files, &parts);
    if (!status)
        status = add_named_tokens(&parts, files);
    if (status) {
        mz_tokenizer_parts_free(&parts);
        return status;
    }
    const char *end = named_token(files, "eos_token");
    parts.end_id = find_named(&parts, end ? end : "<|endoftext|>");
    *out = parts;
    return MZ_OK;
}

/* ---- files ---- */

/* A file that may be absent. */
static mz_status read_optional(const char *folder, const char *name, mz_json *json)
{
    char *path = mz_path_join(folder, name);
    if (!path)
        return MZ_ERR_MEMORY;
    const mz_status status = mz_path_exists(path) ? mz_json_read(path, json) : MZ_OK;
    mz_free(path);
    return status;
}

static mz_status read_merges(const char *folder, mz_tokenizer_files *files)
{
    files->merges_name = mz_path_join(folder, "merges.txt");
    if (!files->merges_name)
        return MZ_ERR_MEMORY;
    if (!files->vocab.root || !mz_path_exists(files->merges_name))
        return mz_fail(
            MZ_ERR_MODEL,
            "%s: expected a tokenizer: tokenizer.json, or vocab.json and merges.txt; found no %s; give the "
            "folder that holds them, or --tokenizer byte",
            folder, files->vocab.root ? "merges.txt" : "vocab.json");
    return mz_file_read(files->merges_name, &files->merges, &files->merges_bytes);
}

mz_status mz_tokenizer_read_folder(const char *folder, mz_tokenizer_parts *parts)
{
    mz_tokenizer_files files = {0};
    mz_status status = read_optional(folder, "tokenizer.json", &files.tokenizer);
    if (!status)
        status = read_optional(folder, "tokenizer_config.json", &files.config);
    if (!status)
        status = read_optional(folder, "special_tokens_map.json", &files.special_map);
    if (!status && !files.tokenizer.root) {
        status = read_optional(folder, "vocab.json", &files.vocab);
        if (!status)
            status = read_optional(folder, "added_tokens.json", &files.added);
        if (!status)
            status = read_merges(folder, &files);
    }
    if (!status)
        status = mz_tokenizer_parse_files(&files, parts);
    mz_tokenizer_files_free(&files);
    return status == MZ_ERR_CONFIG ? MZ_ERR_MODEL : status; /* not valid JSON: the model's folder is wrong */
}
