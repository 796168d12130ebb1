/* Data sets of token blocks, as transformers' run_clm makes them: the file is one stream of tokens, cut into blocks of
 * block_size, the rest dropped. Tokenised once into a memory-mapped cache that all ranks of a machine share. */
#ifndef MZ_DATA_DATASET_H
#define MZ_DATA_DATASET_H

#include "comm/comm.h"
#include "data/tokenizer.h"

typedef struct mz_dataset mz_dataset;

typedef struct mz_dataset_options {
    const char *path;      /* text file, or .jsonl: one object a line with a "text" field, each ended by the end token */
    const char *text_field; /* NULL: "text" */
    const mz_tokenizer *tokenizer;
    int64_t block_size;
    const char *cache_folder; /* NULL: beside the file when writable, else under the output directory or $TMPDIR */
    double split_fraction; /* > 0: the last part of the blocks is held out */
    bool held_out;         /* which part this data set is */
} mz_dataset_options;

/* Collective over the world (NULL: this process alone). One rank per machine tokenises, the others map the result. Errors: no such file,
 * empty, shorter than a block (says how many tokens there are), bytes that are not UTF-8 (line), an id beyond
 * `model_vocab` (0: not checked). */
mz_status mz_dataset_open(mz_world *world, const mz_dataset_options *options, int64_t model_vocab,
                          mz_dataset **dataset);
void mz_dataset_close(mz_dataset *dataset);
int64_t mz_dataset_n_blocks(const mz_dataset *dataset);
int64_t mz_dataset_n_tokens(const mz_dataset *dataset);
int64_t mz_dataset_block_size(const mz_dataset *dataset);
uint64_t mz_dataset_fingerprint(const mz_dataset *dataset); /* of the tokens; for resume */
/* ids: [block_size]; labels: [block_size], labels[t] = ids[t+1], the last -100. */
void mz_dataset_block(const mz_dataset *dataset, int64_t block, int32_t *ids, int32_t *labels);

#endif
