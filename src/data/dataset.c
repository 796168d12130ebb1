#include "data/dataset.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "comm/mpi_check.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/log.h"
#include "core/memory.h"
#include "data/hash.h"
#include "data/token_cache.h"
#include "data/tokenize.h"

enum { N_PLACES = 2, NO_PLACE = -1 };

struct mz_dataset {
    mz_token_cache cache;
    int64_t block_size;
    int64_t first_block, n_blocks; /* this part of the file's blocks */
    uint64_t fingerprint;
};

/* What opening needs to know; the same on all ranks of a machine. */
typedef struct opening {
    const mz_dataset_options *options;
    const char *field;      /* NULL: plain text */
    mz_token_source source; /* of the cache */
    char *places[N_PLACES]; /* where the cache may be, the preferred one first */
} opening;

/* ---- what is asked for ---- */

static bool is_json_lines(const char *path)
{
    const char *dot = strrchr(path, '.');
    return dot && (strcasecmp(dot, ".jsonl") == 0 || strcasecmp(dot, ".ndjson") == 0);
}

static mz_status check_options(const mz_dataset_options *options)
{
    if (options->block_size < 2)
        return mz_fail(MZ_ERR_ARGUMENT, "block size: expected at least 2 tokens, found %lld",
                       (long long)options->block_size);
    if (!(options->split_fraction >= 0 && options->split_fraction < 1))
        return mz_fail(MZ_ERR_ARGUMENT, "validation split: expected a fraction from 0 to below 1, found %g",
                       options->split_fraction);
    if (options->held_out && options->split_fraction == 0)
        return mz_fail(MZ_ERR_ARGUMENT, "held-out part: expected a validation split above 0");
    return MZ_OK;
}

/* The path without symbolic links, so that two names of a file share a cache. */
static mz_status fingerprint_source(opening *o)
{
    const char *path = o->options->path;
    struct stat info;
    if (stat(path, &info) != 0)
        return mz_fail_errno(MZ_ERR_DATA, "%s: cannot be opened as training data", path);
    if (!S_ISREG(info.st_mode))
        return mz_fail(MZ_ERR_DATA, "%s: expected a text file or .jsonl, found something else", path);
    if (info.st_size == 0)
        return mz_fail(MZ_ERR_DATA, "%s: expected text, found an empty file", path);
    if (access(path, R_OK) != 0)
        return mz_fail_errno(MZ_ERR_DATA, "%s: cannot be read", path);
    char *real = realpath(path, NULL);
    const char *name = real ? real : path;
    const int64_t facts[3] = {info.st_size, info.st_mtim.tv_sec, info.st_mtim.tv_nsec};
    uint64_t h = mz_hash64(mz_hash64(0, name, strlen(name)), facts, sizeof facts);
    if (o->field)
        h = mz_hash64(h, o->field, strlen(o->field));
    free(real); /* realpath's own allocation */
    o->source = (mz_token_source){.source = h, .tokenizer = mz_tokenizer_fingerprint(o->options->tokenizer)};
    return MZ_OK;
}

/* Beside the file or in the folder asked for; else in the machine's temporary folder. */
static mz_status name_places(opening *o)
{
    const char *path = o->options->path, *slash = strrchr(path, '/'), *temporary = getenv("TMPDIR");
    const char *folder = o->options->cache_folder;
    const char *base = slash ? slash + 1 : path;
    const uint64_t h = mz_hash64(o->source.source, &o->source.tokenizer, sizeof o->source.tokenizer);
    const unsigned long long name = h;
    o->places[0] = folder ? mz_strprintf("%s/%s.%016llx.tokens", folder, base, name)
                          : mz_strprintf("%s.%016llx.tokens", path, name);
    if (!o->places[0])
        return MZ_ERR_MEMORY;
    o->places[1] = mz_strprintf("%s/%s.%016llx.tokens", temporary && *temporary ? temporary : "/tmp", base, name);
    return o->places[1] ? MZ_OK : MZ_ERR_MEMORY;
}

static void opening_free(opening *o)
{
    for (int i = 0; i < N_PLACES; i++)
        mz_free(o->places[i]);
}

static mz_status describe(const mz_dataset_options *options, opening *o)
{
    *o = (opening){.options = options};
    if (is_json_lines(options->path))
        o->field = options->text_field ? options->text_field : "text";
    mz_status status = check_options(options);
    if (!status)
        status = fingerprint_source(o);
    return status ? status : name_places(o);
}

/* ---- the cache ---- */

static mz_status build(const opening *o, const char *place)
{
    const mz_dataset_options *options = o->options;
    mz_tokenize_job job = {.path = options->path, .tokenizer = options->tokenizer, .field = o->field};
    mz_token_writer *writer = NULL;
    const double start = mz_clock_seconds();
    const int token_bytes = mz_tokenizer_vocab(options->tokenizer) <= 65536 ? 2 : 4;
    mz_status status = mz_file_map_open(options->path, &job.file);
    if (!status)
        status = mz_token_writer_create(place, token_bytes, &writer);
    if (!status)
        status = mz_tokenize_file(&job, writer);
    if (!status)
        status = mz_token_writer_commit(writer, &o->source);
    const size_t bytes = job.file.bytes;
    mz_token_writer_destroy(writer);
    mz_file_map_close(&job.file);
    if (!status)
        mz_log_root(MZ_LOG_INFO, "%s: tokenised %.1f MB in %.2f s into %s", options->path, (double)bytes * 1e-6,
                    mz_clock_seconds() - start, place);
    return status;
}

/* Finds a good cache or makes one; *place is its index. A place that cannot be written is passed over for the next.
 */
static mz_status prepare(const opening *o, int *place)
{
    mz_token_cache cache;
    mz_status status = MZ_OK;
    for (int i = 0; i < N_PLACES; i++) {
        status = mz_token_cache_open(o->places[i], &o->source, true, &cache);
        if (!status) {
            mz_token_cache_close(&cache);
            *place = i;
            return MZ_OK;
        }
        if (status == MZ_ERR_DATA)
            mz_log(MZ_LOG_WARN, "%s; making it anew", mz_last_error());
    }
    if (o->options->cache_folder && mz_make_directories(o->options->cache_folder) == MZ_ERR_MEMORY)
        return MZ_ERR_MEMORY; /* after any other error the next place serves */
    for (int i = 0; i < N_PLACES; i++) {
        status = build(o, o->places[i]);
        if (!status)
            *place = i;
        if (status != MZ_ERR_IO)
            break;
    }
    return status;
}

/* One rank of each machine prepares. Rank 0 goes first: where the machines share the file system, its cache serves
 * all, and the others find it there. Afterwards each rank learns its machine's place. */
static mz_status prepare_together(mz_world *world, const opening *o, mz_status status, int *place)
{
    if (!world)
        return status ? status : prepare(o, place);
    for (int turn = 0; turn < 2; turn++) {
        const bool mine = world->local_rank == 0 && (world->node == 0) == (turn == 0);
        if (!status && mine)
            status = prepare(o, place);
        status = mz_agree(world, status, "preparing the training data");
        if (status)
            return status;
    }
    int *all = mz_alloc((size_t)world->size * sizeof *all);
    status = mz_agree(world, all ? MZ_OK : MZ_ERR_MEMORY, "preparing the training data");
    if (!status)
        status = mz_mpi_check(MPI_Allgather(place, 1, MPI_INT, all, 1, MPI_INT, world->comm), "MPI_Allgather");
    for (int r = 0; !status && r < world->size; r++) {
        if (world->node_of[r] == world->node && world->local_rank_of[r] == 0)
            *place = all[r];
    }
    mz_free(all);
    return status;
}

/* ---- blocks ---- */

/* Which blocks are this data set's. */
static mz_status cut_blocks(const opening *o, int64_t model_vocab, mz_dataset *dataset)
{
    const mz_dataset_options *options = o->options;
    const int64_t n_tokens = dataset->cache.n_tokens, total = n_tokens / options->block_size;
    if (model_vocab > 0 && dataset->cache.max_id >= model_vocab)
        return mz_fail(MZ_ERR_DATA,
                       "%s: token id %d is beyond the model's vocabulary of %lld; use the model's own tokenizer "
                       "(this is %s) or a model with a vocabulary of %d or more",
                       options->path, dataset->cache.max_id, (long long)model_vocab,
                       mz_tokenizer_name(options->tokenizer), dataset->cache.max_id + 1);
    if (total == 0)
        return mz_fail(
            MZ_ERR_DATA,
            "%s: expected at least one block of %lld tokens, found %lld tokens; use a smaller --block-size "
            "or more text",
            options->path, (long long)options->block_size, (long long)n_tokens);
    int64_t held_out = 0;
    if (options->split_fraction > 0) {
        held_out = llround(options->split_fraction * (double)total);
        held_out = held_out < 1 ? 1 : held_out;
    }
    if (held_out >= total)
        return mz_fail(MZ_ERR_DATA,
                       "%s: a validation split of %g takes %lld of %lld blocks and leaves none to train on; use a "
                       "smaller --block-size, a smaller split or more text",
                       options->path, options->split_fraction, (long long)held_out, (long long)total);
    dataset->block_size = options->block_size;
    dataset->first_block = options->held_out ? total - held_out : 0;
    dataset->n_blocks = options->held_out ? held_out : total - held_out;
    const int64_t facts[] = {dataset->cache.crc, n_tokens, dataset->block_size, dataset->first_block,
                             dataset->n_blocks};
    dataset->fingerprint = mz_hash64(0, facts, sizeof facts);
    return MZ_OK;
}

mz_status mz_dataset_open(mz_world *world, const mz_dataset_options *options, int64_t model_vocab, mz_dataset **out)
{
    opening o;
    int place = NO_PLACE;
    mz_dataset *dataset = NULL;
    mz_status status = prepare_together(world, &o, describe(options, &o), &place);
    if (!status) {
        dataset = mz_calloc(1, sizeof *dataset);
        status = dataset ? mz_token_cache_open(o.places[place], &o.source, false, &dataset->cache) : MZ_ERR_MEMORY;
        if (!status)
            status = cut_blocks(&o, model_vocab, dataset);
        if (world)
            status = mz_agree(world, status, "opening the training data");
    }
    opening_free(&o);
    if (status) {
        mz_dataset_close(dataset);
        return status;
    }
    *out = dataset;
    return MZ_OK;
}

void mz_dataset_close(mz_dataset *dataset)
{
    if (!dataset)
        return;
    mz_token_cache_close(&dataset->cache);
    mz_free(dataset);
}

int64_t mz_dataset_n_blocks(const mz_dataset *dataset)
{
    return dataset->n_blocks;
}

int64_t mz_dataset_n_tokens(const mz_dataset *dataset)
{
    return dataset->cache.n_tokens;
}

int64_t mz_dataset_block_size(const mz_dataset *dataset)
{
    return dataset->block_size;
}

uint64_t mz_dataset_fingerprint(const mz_dataset *dataset)
{
    return dataset->fingerprint;
}

void mz_dataset_block(const mz_dataset *dataset, int64_t block, int32_t *ids, int32_t *labels)
{
    const int64_t n = dataset->block_size, first = (dataset->first_block + block) * n;
    if (dataset->cache.token_bytes == 2) {
        const uint16_t *tokens = (const uint16_t *)dataset->cache.tokens + first;
        for (int64_t t = 0; t < n; t++)
            ids[t] = tokens[t];
    } else {
        memcpy(ids, (const int32_t *)dataset->cache.tokens + first, (size_t)n * sizeof *ids);
    }
    memcpy(labels, ids + 1, (size_t)(n - 1) * sizeof *labels);
    labels[n - 1] = -100;
}
