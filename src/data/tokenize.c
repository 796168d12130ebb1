#include "data/tokenize.h"

#include <jansson.h>
#include <string.h>

#include "core/error.h"
#include "core/memory.h"
#include "core/threads.h"
#include "data/tokenizer_pieces.h"
#include "data/utf8.h"

enum { PIECE_BYTES = 4 << 20 };

/* A stretch of the file for one thread. */
typedef struct piece {
    const mz_tokenize_job *job;
    const char *text;
    size_t bytes;
    int32_t *ids;
    int64_t n, capacity;
    mz_status status;
    const char *fault; /* where in the text; for the line */
    char message[512]; /* errors are kept per thread; this one travels to the caller */
} piece;

static void fail_at(piece *p, const char *fault, mz_status status)
{
    p->status = status;
    p->fault = fault;
    snprintf(p->message, sizeof p->message, "%s", mz_last_error());
}

static void tokenize_text(piece *p)
{
    const mz_tokenizer *tokenizer = p->job->tokenizer;
    const size_t valid = mz_tokenizer_folder(tokenizer) ? mz_utf8_valid_prefix(p->text, p->bytes) : p->bytes;
    mz_status status;
    if (valid < p->bytes)
        status = mz_fail(MZ_ERR_DATA,
                         "expected UTF-8, found byte 0x%02x; convert the file (iconv), or use --tokenizer byte, "
                         "which takes any bytes",
                         (uint8_t)p->text[valid]);
    else
        status = mz_tokenizer_encode(tokenizer, p->text, p->bytes, true, &p->ids, &p->n, &p->capacity);
    if (status)
        fail_at(p, p->text + (valid < p->bytes ? valid : 0), status);
}

static mz_status tokenize_json_line(piece *p, const char *line, size_t bytes)
{
    const mz_tokenizer *tokenizer = p->job->tokenizer;
    const int32_t end_id = mz_tokenizer_end_id(tokenizer);
    json_error_t error;
    json_t *object = json_loadb(line, bytes, JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, &error);
    const json_t *text = json_object_get(object, p->job->field);
    mz_status status;
    if (!object)
        status = mz_fail(MZ_ERR_DATA, "not valid JSON: %s", error.text);
    else if (!json_is_string(text))
        status = mz_fail(MZ_ERR_DATA, "expected an object with a string \"%s\", found %s", p->job->field,
                         !json_is_object(object) ? "no object"
                         : text                  ? "another type"
                                                 : "no such key");
    else
        status = mz_tokenizer_encode(tokenizer, json_string_value(text), json_string_length(text), true, &p->ids,
                                     &p->n, &p->capacity);
    json_decref(object);
    if (!status && end_id >= 0)
        status = mz_tokenizer_append(&p->ids, &p->n, &p->capacity, end_id);
    return status;
}

static void tokenize_json_lines(piece *p)
{
    const char *end = p->text + p->bytes;
    for (const char *line = p->text, *next; line < end; line = next) {
        const char *newline = memchr(line, '\n', (size_t)(end - line));
        const size_t bytes = (size_t)((newline ? newline : end) - line);
        next = newline ? newline + 1 : end;
        size_t blank = 0;
        while (blank < bytes && strchr(" \t\r", line[blank]) && line[blank])
            blank++;
        const mz_status status = blank < bytes ? tokenize_json_line(p, line, bytes) : MZ_OK;
        if (status) {
            fail_at(p, line, status);
            return;
        }
    }
}

static void run_pieces(void *arg, int64_t begin, int64_t end, int thread)
{
    piece *pieces = arg;
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        if (pieces[i].job->field)
            tokenize_json_lines(&pieces[i]);
        else
            tokenize_text(&pieces[i]);
    }
}

/* Where the piece that begins at `begin` ends: at a place that does not change the ids, PIECE_BYTES on or later. */
static size_t piece_end(const mz_tokenize_job *job, size_t begin)
{
    const char *text = (const char *)job->file.data;
    const size_t bytes = job->file.bytes;
    if (bytes - begin <= PIECE_BYTES)
        return bytes;
    for (size_t i = begin + PIECE_BYTES; i < bytes; i++) {
        const char *newline = memchr(text + i, '\n', bytes - i);
        if (!newline)
            break;
        i = (size_t)(newline - text);
        if (job->field || mz_tokenizer_may_cut(job->tokenizer, text, bytes, i + 1))
            return i + 1;
    }
    return bytes;
}

static mz_status locate(const mz_tokenize_job *job, const piece *p)
{
    if (p->status != MZ_ERR_DATA)
        return mz_fail_adopt(p->status, p->message);
    int64_t line = 1;
    for (const char *c = (const char *)job->file.data;
         c < p->fault && (c = memchr(c, '\n', (size_t)(p->fault - c))); c++)
        line++;
    return mz_fail(p->status, "%s:%lld: %s", job->path, (long long)line, p->message);
}

/* As many pieces at a time as there are threads; written in order. */
static mz_status run_batches(const mz_tokenize_job *job, mz_threads *pool, piece *pieces, mz_token_writer *writer)
{
    const int n_threads = mz_threads_count(pool);
    mz_status status = MZ_OK;
    for (size_t begin = 0; !status && begin < job->file.bytes;) {
        int n = 0;
        for (; n < n_threads && begin < job->file.bytes; n++) {
            const size_t end = piece_end(job, begin);
            pieces[n] = (piece){.job = job,
                                .text = (const char *)job->file.data + begin,
                                .bytes = end - begin,
                                .ids = pieces[n].ids,
                                .capacity = pieces[n].capacity};
            begin = end;
        }
        mz_threads_for(pool, n, 1, run_pieces, pieces);
        for (int i = 0; !status && i < n; i++)
            status = pieces[i].status ? locate(job, &pieces[i])
                                      : mz_token_writer_append(writer, pieces[i].ids, pieces[i].n);
    }
    return status;
}

mz_status mz_tokenize_file(const mz_tokenize_job *job, mz_token_writer *writer)
{
    const size_t n_pieces = job->file.bytes / PIECE_BYTES + 1;
    const int n_cores = mz_cores_available();
    const int n_threads = (size_t)n_cores < n_pieces ? n_cores : (int)n_pieces;
    mz_threads *pool = NULL;
    piece *pieces = mz_calloc((size_t)n_threads, sizeof *pieces);
    mz_status status = pieces ? mz_threads_create(n_threads, &pool) : MZ_ERR_MEMORY;
    if (!status)
        status = run_batches(job, pool, pieces, writer);
    mz_threads_destroy(pool);
    for (int i = 0; pieces && i < n_threads; i++)
        mz_free(pieces[i].ids);
    mz_free(pieces);
    return status;
}
