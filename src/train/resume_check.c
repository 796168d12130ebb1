/* Does a resumed run see the same samples in the same order as the one that saved? */
#include <jansson.h>
#include <string.h>

#include "core/error.h"
#include "core/log.h"
#include "train/resume_check.h"

mz_status mz_resume_check(const char *extra, int64_t global_batch, int64_t block_size, const char *data,
                          uint64_t seed, bool shuffle)
{
    json_t *root = extra ? json_loads(extra, 0, NULL) : NULL;
    json_int_t saved_batch = global_batch, saved_block = block_size, saved_seed = (json_int_t)seed;
    const char *saved_data = data;
    int saved_shuffle = shuffle;
    mz_status st = MZ_OK;
    if (root)
        json_unpack(root, "{s?I, s?I, s?s, s?I, s?b}", "global_batch", &saved_batch, "block_size", &saved_block,
                    "data", &saved_data, "seed", &saved_seed, "shuffle", &saved_shuffle);
    if (saved_batch != global_batch)
        st = mz_fail(
            MZ_ERR_CONFIG,
            "the checkpoint was trained with a global batch of %lld, this run has %lld: the data would be read "
            "in another order. Set micro-batch and gradient_accumulation_steps so that their product with the "
            "number of ranks is %lld",
            (long long)saved_batch, (long long)global_batch, (long long)saved_batch);
    else if (saved_block != block_size)
        st = mz_fail(MZ_ERR_CONFIG, "the checkpoint was trained with --block-size %lld, this run has %lld",
                     (long long)saved_block, (long long)block_size);
    else if (strcmp(saved_data, data) != 0)
        mz_log_root(MZ_LOG_WARN,
                    "the training data are not those of the checkpoint: the run goes on at the same position "
                    "of the new ones");
    else if (saved_seed != (json_int_t)seed || saved_shuffle != (int)shuffle)
        mz_log_root(MZ_LOG_WARN, "seed or shuffling differ from the checkpoint's: samples come in another order");
    json_decref(root);
    return st;
}
