#include "data/token_cache.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/error.h"
#include "core/memory.h"

/* In the machine's byte order: another order gives another magic number, and the cache is made anew. */
typedef struct cache_header {
    uint64_t magic;
    uint32_t header_crc; /* with this field 0 */
    uint32_t token_bytes;
    int64_t n_tokens;
    mz_token_source source;
    int32_t max_id;
    uint32_t ids_crc;
    uint8_t reserved[16]; /* zero; makes it 64 bytes, so that the ids are aligned */
} cache_header;

static const uint64_t cache_magic = 0x316b6f74657a706du; /* "mpzetok1" */

static uint32_t header_crc(cache_header header)
{
    header.header_crc = 0;
    return mz_crc32c(0, &header, sizeof header);
}

mz_status mz_token_cache_open(const char *path, const mz_token_source *expected, bool check_ids,
                              mz_token_cache *cache)
{
    mz_file_map map;
    mz_status status = mz_file_map_open(path, &map);
    if (status)
        return status;
    cache_header header;
    const char *wrong = NULL;
    if (map.bytes < sizeof header) {
        wrong = "shorter than its header";
    } else {
        memcpy(&header, map.data, sizeof header);
        const uint64_t ids_bytes = map.bytes - sizeof header;
        if (header.magic != cache_magic || header.header_crc != header_crc(header))
            wrong = "its header is damaged";
        else if (memcmp(&header.source, expected, sizeof *expected) != 0)
            wrong = "made from something else";
        else if ((header.token_bytes != 2 && header.token_bytes != 4) || header.n_tokens < 0 ||
                 ids_bytes / header.token_bytes != (uint64_t)header.n_tokens || ids_bytes % header.token_bytes != 0)
            wrong = "its length is not what its header says";
        else if (check_ids && mz_crc32c(0, map.data + sizeof header, ids_bytes) != header.ids_crc)
            wrong = "the checksum of its ids does not match";
    }
    if (wrong) {
        mz_file_map_close(&map);
        return mz_fail(MZ_ERR_DATA, "%s: token cache: %s", path, wrong);
    }
    *cache = (mz_token_cache){
        .map = map,
        .tokens = map.data + sizeof header,
        .token_bytes = (int)header.token_bytes,
        .n_tokens = header.n_tokens,
        .max_id = header.max_id,
        .crc = header.ids_crc,
    };
    return MZ_OK;
}

void mz_token_cache_close(mz_token_cache *cache)
{
    mz_file_map_close(&cache->map);
    *cache = (mz_token_cache){0};
}

/* ---- writing ---- */

enum { BUFFER_IDS = 1 << 16 };

struct mz_token_writer {
    char *path, *temporary;
    int fd; /* -1: closed */
    bool committed;
    cache_header header;
    int32_t buffer[BUFFER_IDS]; /* ids as the file has them */
};

static mz_status write_fully(const mz_token_writer *writer, const void *data, size_t bytes)
{
    for (const char *p = data; bytes > 0;) {
        const ssize_t n = write(writer->fd, p, bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return mz_fail_errno(MZ_ERR_IO, "%s: cannot be written", writer->temporary);
        p += n;
        bytes -= (size_t)n;
    }
    return MZ_OK;
}

mz_status mz_token_writer_create(const char *path, int token_bytes, mz_token_writer **out)
{
    char host[256] = "";
    gethostname(host, sizeof host - 1);
    mz_token_writer *writer = mz_calloc(1, sizeof *writer);
    if (!writer)
        return MZ_ERR_MEMORY;
    mz_status status = MZ_ERR_MEMORY;
    writer->fd = -1;
    writer->header = (cache_header){.magic = cache_magic, .token_bytes = (uint32_t)token_bytes, .max_id = -1};
    writer->path = mz_strdup(path);
    if (!writer->path)
        goto fail;
    writer->temporary = mz_strprintf("%s.%s.%ld.tmp", path, host, (long)getpid());
    if (!writer->temporary)
        goto fail;
    writer->fd = open(writer->temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0666);
    status = writer->fd < 0 ? mz_fail_errno(MZ_ERR_IO, "%s: cannot be created", writer->temporary)
                            : write_fully(writer, &writer->header, sizeof writer->header);
    if (status)
        goto fail;
    *out = writer;
    return MZ_OK;
fail:
    mz_token_writer_destroy(writer);
    return status;
}

mz_status mz_token_writer_append(mz_token_writer *writer, const int32_t *ids, int64_t n)
{
    cache_header *header = &writer->header;
    mz_status status = MZ_OK;
    for (int64_t first = 0; !status && first < n; first += BUFFER_IDS) {
        const int64_t m = n - first < BUFFER_IDS ? n - first : BUFFER_IDS;
        for (int64_t i = 0; i < m; i++) {
            const int32_t id = ids[first + i];
            if (id > header->max_id)
                header->max_id = id;
            if (header->token_bytes == 2)
                ((uint16_t *)writer->buffer)[i] = (uint16_t)id;
            else
                writer->buffer[i] = id;
        }
        const size_t bytes = (size_t)m * header->token_bytes;
        header->ids_crc = mz_crc32c(header->ids_crc, writer->buffer, bytes);
        header->n_tokens += m;
        status = write_fully(writer, writer->buffer, bytes);
    }
    return status;
}

mz_status mz_token_writer_commit(mz_token_writer *writer, const mz_token_source *source)
{
    writer->header.source = *source;
    writer->header.header_crc = header_crc(writer->header);
    if (pwrite(writer->fd, &writer->header, sizeof writer->header, 0) != (ssize_t)sizeof writer->header ||
        fsync(writer->fd) != 0)
        return mz_fail_errno(MZ_ERR_IO, "%s: cannot be written", writer->temporary);
    const int closed = close(writer->fd);
    writer->fd = -1;
    if (closed != 0)
        return mz_fail_errno(MZ_ERR_IO, "%s: cannot be closed", writer->temporary);
    const mz_status status = mz_file_rename(writer->temporary, writer->path);
    writer->committed = !status;
    return status;
}

void mz_token_writer_destroy(mz_token_writer *writer)
{
    if (!writer)
        return;
    if (writer->fd >= 0)
        close(writer->fd);
    if (writer->temporary && !writer->committed)
        unlink(writer->temporary);
    mz_free(writer->temporary);
    mz_free(writer->path);
    mz_free(writer);
}
