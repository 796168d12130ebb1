/* A file of token ids, made once and mapped into memory by every rank of a machine. It appears under its name only
 * when it is whole, and carries checksums of its header and of its ids. */
#ifndef MZ_DATA_TOKEN_CACHE_H
#define MZ_DATA_TOKEN_CACHE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/file.h"

/* What the ids were made from; a cache of anything else is not ours. */
typedef struct mz_token_source {
    uint64_t source;    /* file, size, time of change, field */
    uint64_t tokenizer; /* mz_tokenizer_fingerprint */
} mz_token_source;

typedef struct mz_token_cache {
    mz_file_map map;
    const void *tokens; /* into the map: uint16_t or int32_t */
    int token_bytes;    /* 2 or 4 */
    int64_t n_tokens;
    int32_t max_id;
    uint32_t crc; /* of the ids */
} mz_token_cache;

/* MZ_ERR_IO when there is no such file, MZ_ERR_DATA when it is damaged or another's. The ids' checksum is compared
 * only when check_ids. */
mz_status mz_token_cache_open(const char *path, const mz_token_source *expected, bool check_ids,
                              mz_token_cache *cache);
void mz_token_cache_close(mz_token_cache *cache);

typedef struct mz_token_writer mz_token_writer;

/* Writes beside `path` under a name of this process's own. token_bytes 2 or 4, enough for every id. */
mz_status mz_token_writer_create(const char *path, int token_bytes, mz_token_writer **writer);
mz_status mz_token_writer_append(mz_token_writer *writer, const int32_t *ids, int64_t n);
/* Makes it durable under its name. */
mz_status mz_token_writer_commit(mz_token_writer *writer, const mz_token_source *source);
/* Removes what was not committed. */
void mz_token_writer_destroy(mz_token_writer *writer);

#endif
