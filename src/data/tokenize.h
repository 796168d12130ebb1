/* A whole file to token ids, in parallel and in bounded memory. */
#ifndef MZ_DATA_TOKENIZE_H
#define MZ_DATA_TOKENIZE_H

#include "core/file.h"
#include "data/token_cache.h"
#include "data/tokenizer.h"

typedef struct mz_tokenize_job {
    const char *path; /* for messages */
    mz_file_map file;
    const mz_tokenizer *tokenizer;
    const char *field; /* of each line's JSON object; NULL: the file is plain text */
} mz_tokenize_job;

/* Appends the file's ids to the writer. Plain text gives the ids of the whole file as one text; a JSON line those
 * of its field, then the end token. Errors: MZ_ERR_DATA with file and line, and the writer's. */
mz_status mz_tokenize_file(const mz_tokenize_job *job, mz_token_writer *writer);

#endif
