/* Data sets opened by several ranks: the same blocks everywhere, and the same verdict everywhere when one fails. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "comm/comm.h"
#include "core/file.h"
#include "core/log.h"
#include "core/memory.h"
#include "data/dataset.h"
#include "tests/data/scratch.h"

static int n_wrong;

static void check(const mz_world *world, bool good, const char *what)
{
    if (good)
        return;
    printf("rank %d: wrong: %s (last error: %s)\n", world->rank, what, mz_last_error());
    n_wrong++;
}

/* Rank 0's scratch folder, known to all. */
static void share_folder(const mz_world *world, char *folder, int room)
{
    if (world->rank == 0 && scratch_make(NULL) == 0)
        snprintf(folder, (size_t)room, "%s", scratch_folder());
    MPI_Bcast(folder, room, MPI_CHAR, 0, world->comm);
}

static void write_text(const mz_world *world, const char *name, const char *text)
{
    if (world->rank == 0)
        mz_free(scratch_write_text(name, text));
    MPI_Barrier(world->comm);
}

static void same_blocks(mz_world *world, mz_dataset_options *options, const char *path)
{
    mz_dataset *dataset = NULL;
    int32_t ids[8], labels[8];
    options->path = path;
    const mz_status status = mz_dataset_open(world, options, 257, &dataset);
    check(world, status == MZ_OK, "a good file opens");
    if (status)
        return;
    uint64_t fingerprint = mz_dataset_fingerprint(dataset);
    check(world, mz_agree_same(world, &fingerprint, sizeof fingerprint, "fingerprint") == MZ_OK, "one fingerprint");
    mz_dataset_block(dataset, 1, ids, labels);
    check(world, memcmp(ids, (int32_t[]){'i', 'j', 'k', 'l', 'm', 'n', 'o', 'p'}, sizeof ids) == 0, "the block");
    mz_dataset_close(dataset);
}

static void fails_everywhere(mz_world *world, const mz_dataset_options *options, int64_t vocab,
                             const char *expected)
{
    mz_dataset *dataset = NULL;
    const mz_status status = mz_dataset_open(world, options, vocab, &dataset);
    check(world, status != MZ_OK && !dataset, expected);
    check(world, strstr(mz_last_error(), expected) != NULL, expected);
}

static void run(mz_world *world, const char *folder, const mz_tokenizer *tokenizer)
{
    mz_dataset_options options = {.tokenizer = tokenizer, .block_size = 8, .cache_folder = folder};
    char *good = mz_path_join(folder, "good.txt"), *short_text = mz_path_join(folder, "short.txt");
    char *lines = mz_path_join(folder, "bad.jsonl");
    write_text(world, "good.txt", "abcdefghijklmnopqrstuvwxyz");
    write_text(world, "short.txt", "abc");
    write_text(world, "bad.jsonl", "{\"text\": \"a\"}\n{\n");
    same_blocks(world, &options, good); /* made */
    same_blocks(world, &options, good); /* found */

    options.path = world->rank == world->size - 1 ? "/nonexistent/file" : good;
    fails_everywhere(world, &options, 0, "/nonexistent/file");
    options.path = lines;
    fails_everywhere(world, &options, 0, "bad.jsonl:2: not valid JSON");
    options.path = short_text;
    fails_everywhere(world, &options, 0, "found 3 tokens");
    options.path = good;
    fails_everywhere(world, &options, 100, "beyond the model's vocabulary");
    options.block_size = world->rank == 0 ? 8 : 0;
    fails_everywhere(world, &options, 0, "block size");
    mz_free(good);
    mz_free(short_text);
    mz_free(lines);
}

int main(void)
{
    mz_world *world;
    mz_tokenizer *tokenizer = NULL;
    char folder[512] = "";
    const mz_world_options two_on_a_node = {.ranks_per_node = 2, .timeout_seconds = 60};
    if (mz_world_create(&two_on_a_node, &world)) {
        fprintf(stderr, "%s\n", mz_last_error());
        return 1;
    }
    mz_log_set_level(MZ_LOG_WARN);
    share_folder(world, folder, sizeof folder);
    if (*folder && mz_tokenizer_open("byte", &tokenizer) == MZ_OK)
        run(world, folder, tokenizer);
    else
        n_wrong++;
    mz_tokenizer_close(tokenizer);
    MPI_Barrier(world->comm);
    if (world->rank == 0)
        n_wrong += scratch_remove(NULL) != 0;
    MPI_Allreduce(MPI_IN_PLACE, &n_wrong, 1, MPI_INT, MPI_SUM, world->comm);
    mz_world_destroy(world);
    return n_wrong != 0;
}
