/* The configuration reader's own parts.
 *
 * One table (config_keys.c) lists every key; reading, defaults, the resolved JSON and docs/CONFIG.md follow
 * from it. What a table cannot say (batch arithmetic, precision, "auto") is in config_batch.c, config_zero.c
 * and config_optim.c. */
#ifndef MZ_CORE_CONFIG_INTERNAL_H
#define MZ_CORE_CONFIG_INTERNAL_H

#include <stddef.h>

#include "core/json.h"
#include "mpizero/config.h"

typedef enum mz_key_type {
    MZ_KEY_BOOL,
    MZ_KEY_INT,
    MZ_KEY_REAL,
    MZ_KEY_TEXT,
    MZ_KEY_WORD, /* one of `words`; stored as its index */
    MZ_KEY_LIST,
    MZ_KEY_BLOCK, /* an object whose keys are in the table */
    MZ_KEY_OPEN   /* any value; not looked into */
} mz_key_type;

typedef enum mz_key_use {
    MZ_KEY_HONOURED,
    MZ_KEY_NO_EFFECT, /* accepted; a warning when it is not the default */
    MZ_KEY_REFUSED    /* accepted only when it is the default */
} mz_key_use;

#define MZ_KEY_NO_TARGET SIZE_MAX

typedef struct mz_config_key {
    const char *path; /* dotted */
    mz_key_type type;
    mz_key_use use;
    const char *fallback; /* DeepSpeed's default as text; "null": may be null; "required" */
    double min, max;      /* of numbers */
    double none;          /* what null is stored as */
    const char *words;    /* "none|cpu|nvme" */
    size_t offset, bytes; /* in mz_config; MZ_KEY_NO_TARGET: read by code, or nowhere */
    const char *note;     /* why it has no effect or is refused; else what "auto" stands for, or NULL */
    const char *only;     /* the optimiser or scheduler types that take it; NULL: all */
    bool strict;          /* a block that takes no unknown keys */
} mz_config_key;

extern const mz_config_key mz_config_keys[];
extern const int mz_config_n_keys;

/* True for a key that is read and checked, but whose feature training does not have and refuses. */
bool mz_config_key_later(const mz_config_key *key);
/* Index in the table; -1 when there is none. */
int mz_config_key_find(const char *path);
/* The key beside `path` (same block) whose name is most like it; NULL when none is near. */
const char *mz_config_key_nearest(const char *path);
/* True when `word` is one of the blank-separated words of `list`. */
bool mz_config_word_in(const char *list, const char *word);
/* Index of `text` in "a|b|c", letter case ignored; -1 when it is not there. */
int mz_config_word_index(const char *words, const char *text);
/* An integer, word index or flag to and from its place, whatever its width. */
void mz_config_store_int(const mz_config_key *key, mz_config *config, int64_t value);
int64_t mz_config_fetch_int(const mz_config_key *key, const mz_config *config);
/* Sets every target to its default. */
void mz_config_set_defaults(mz_config *config);

/* Where a key of the file stands. */
typedef struct mz_config_line {
    char *path;  /* as in mz_config_keys */
    char *shown; /* the key as the file has it */
    int line;
} mz_config_line;

/* A file in DeepSpeed's form, whatever it was written in. */
typedef struct mz_config_source {
    mz_json json;          /* root and name; of a YAML file, translated */
    mz_config_line *lines; /* of a YAML file; NULL: ask json */
    int n_lines;
    char *mixed_precision; /* of a YAML file; NULL: none */
} mz_config_source;

typedef enum mz_key_state { MZ_KEY_ABSENT = 0, MZ_KEY_AUTO, MZ_KEY_GIVEN } mz_key_state;

typedef struct mz_config_entry {
    mz_key_state state;
    const json_t *value; /* borrowed from the source */
    int line;
} mz_config_entry;

typedef struct mz_config_reader {
    mz_config_source source;
    bool has_file;
    const mz_config_defaults *flags;
    int world_size;
    mz_config config;         /* being filled */
    mz_config_entry *entries; /* one per key of the table */
} mz_config_reader;

/* MZ_ERR_CONFIG with "file:line: key: " in front. `line` 0: the file as a whole. */
mz_status mz_config_fail(const mz_config_reader *reader, int line, const char *path, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* A warning once, with the same front. */
void mz_config_warn(const mz_config_reader *reader, int line, const char *path, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* What was found, in words for a message. */
void mz_config_describe_value(const json_t *value, char *text, size_t bytes);
/* The failure for a value of a wrong type or out of range; `shown` is the key as the file has it. */
mz_status mz_config_wrong_value(const mz_config_reader *reader, const mz_config_key *key, const json_t *value,
                                int line, const char *shown);
/* The entry of a path that the table has. */
const mz_config_entry *mz_config_entry_of(const mz_config_reader *reader, const char *path);
mz_key_state mz_config_state_of(const mz_config_reader *reader, const char *path);
int mz_config_line_of(const mz_config_reader *reader, const char *path);
/* A flag that was given (true and "true" alike); `otherwise` when it was not. */
bool mz_config_truth_of(const mz_config_reader *reader, const char *path, bool otherwise);
/* Refuses parameters in `block` that type `type` does not take. */
mz_status mz_config_check_params(const mz_config_reader *reader, const char *block, const char *type);

/* Reads the file's tree into config and entries. */
mz_status mz_config_read_tree(mz_config_reader *reader);

/* Resolution, in this order. */
mz_status mz_config_resolve_flags(mz_config_reader *reader);     /* flags against the file; "auto" of flags */
mz_status mz_config_resolve_precision(mz_config_reader *reader); /* fp16, bf16, data types */
mz_status mz_config_resolve_batch(mz_config_reader *reader);
mz_status mz_config_resolve_zero(mz_config_reader *reader);
mz_status mz_config_resolve_optimizer(mz_config_reader *reader);
mz_status mz_config_resolve_scheduler(mz_config_reader *reader);

/* Names that stand in the file for an optimiser and a scheduler kind; NULL for a constant rate. */
const char *mz_config_optimizer_name(int kind);
const char *mz_config_scheduler_name(mz_scheduler_kind kind);

/* Opens a configuration in any of the forms. */
mz_status mz_config_source_open(const char *path, mz_config_source *source);
void mz_config_source_close(mz_config_source *source);
/* Sets a dotted path in a tree of objects; takes over `value`. False without memory, or when value is NULL. */
bool mz_config_put(json_t *root, const char *path, json_t *value);
/* An Accelerate YAML file, translated into DeepSpeed's form. */
mz_status mz_config_yaml_open(const char *path, mz_config_source *source);

#endif
