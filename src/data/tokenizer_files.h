/* Reading a tokenizer from a Hugging Face folder's files. */
#ifndef MZ_DATA_TOKENIZER_FILES_H
#define MZ_DATA_TOKENIZER_FILES_H

#include "core/json.h"
#include "data/bpe.h"
#include "data/tokenizer.h"

/* A token that is found in text before any merge. */
typedef struct mz_added_token {
    char *text; /* owned */
    size_t bytes;
    int32_t id;
    bool special;                 /* found only when special tokens are parsed */
    bool strip_left, strip_right; /* swallows the white space on that side */
} mz_added_token;

/* Where a space goes in front, so that a text's first word looks like any other word. */
typedef enum mz_prefix {
    MZ_PREFIX_NONE = 0,
    MZ_PREFIX_TEXT,    /* the text, unless it begins with white space: vocab.json's tokenizers */
    MZ_PREFIX_SEGMENT, /* each stretch between added tokens that does not begin with a space: tokenizer.json's */
} mz_prefix;

typedef struct mz_tokenizer_parts {
    mz_bpe *bpe;           /* owned, sealed */
    mz_added_token *added; /* [n_added], owned */
    int n_added;
    int32_t end_id; /* -1: none */
    mz_prefix prefix;
} mz_tokenizer_parts;

/* Frees what the parts hold; half-built ones too. */
void mz_tokenizer_parts_free(mz_tokenizer_parts *parts);

/* A tokenizer of these parts, which it takes over; they are left empty, also on failure. folder: NULL or copied. */
mz_status mz_tokenizer_from_parts(const char *name, const char *folder, mz_tokenizer_parts *parts,
                                  mz_tokenizer **tokenizer);

/* tokenizer.json where there is one, else vocab.json and merges.txt. tokenizer_config.json, special_tokens_map.json
 * and added_tokens.json are read when present. */
mz_status mz_tokenizer_read_folder(const char *folder, mz_tokenizer_parts *parts);

/* The contents of a folder, for readers that have them in memory; a root of NULL: no such file. */
typedef struct mz_tokenizer_files {
    mz_json tokenizer; /* tokenizer.json; then vocab and merges are not looked at */
    mz_json vocab;
    char *merges_name, *merges; /* merges.txt; both owned */
    size_t merges_bytes;
    mz_json config, special_map, added;
} mz_tokenizer_files;

void mz_tokenizer_files_free(mz_tokenizer_files *files);
mz_status mz_tokenizer_parse_files(const mz_tokenizer_files *files, mz_tokenizer_parts *parts);

#endif
