/* zero_optimization: "auto" from the model's size, and what excludes what. */
#include <inttypes.h>
#include <string.h>

#include "core/config_internal.h"

#define ZERO(name) "zero_optimization." name

/* Sets an "auto" size. */
static mz_status automatic_size(const mz_config_reader *reader, const char *path, double value, int64_t *size)
{
    if (mz_config_state_of(reader, path) != MZ_KEY_AUTO)
        return MZ_OK;
    if (reader->flags->hidden_size <= 0)
        return mz_config_fail(
            reader, mz_config_line_of(reader, path), path,
            "\"auto\" follows the model's hidden size, and this model states none; give a number");
    *size = value < 1 ? 1 : (int64_t)value;
    return MZ_OK;
}

static mz_status check_offload(mz_config_reader *reader, const char *block, mz_offload_config *offload,
                               int least_stage)
{
    char path[96];
    int stage = reader->config.zero.stage;
    strcpy(path, block);
    strcat(path, ".device");
    int line = mz_config_line_of(reader, path);
    if (offload->device == MZ_OFFLOAD_NVME && offload->nvme_path[0] == '\0')
        return mz_config_fail(reader, line, path,
                              "expected a folder in nvme_path for device \"nvme\", found none; add \"nvme_path\"");
    if (offload->device != MZ_OFFLOAD_NONE && stage < least_stage) {
        mz_config_warn(reader, line, path, "no effect at stage %d: it needs stage %d or more", stage, least_stage);
        offload->device = MZ_OFFLOAD_NONE;
    }
    return MZ_OK;
}

/* The sizes of groups of ranks. */
static mz_status check_groups(const mz_config_reader *reader)
{
    const struct {
        const char *path;
        int size, none;
    } groups[] = {
        {ZERO("zero_hpz_partition_size"), reader->config.zero.zero_hpz_partition_size, 1},
        {ZERO("mics_shard_size"), reader->config.zero.mics_shard_size, -1},
    };
    for (int i = 0; i < 2; i++) {
        int line = mz_config_line_of(reader, groups[i].path);
        if (groups[i].size == groups[i].none)
            continue;
        if (groups[i].size < 1 || reader->world_size % groups[i].size != 0)
            return mz_config_fail(
                reader, line, groups[i].path,
                "expected a divisor of the number of ranks, %d, found %d; choose one, or remove the key",
                reader->world_size, groups[i].size);
        if (reader->config.zero.stage != 3)
            return mz_config_fail(reader, line, groups[i].path,
                                  "expected stage 3 with it, found stage %d; set stage to 3, "
                                  "or remove the key",
                                  reader->config.zero.stage);
    }
    const mz_zero_config *zero = &reader->config.zero;
    if (zero->mics_shard_size > 0 && zero->mics_shard_size % zero->zero_hpz_partition_size != 0)
        return mz_config_fail(reader, mz_config_line_of(reader, groups[0].path), groups[0].path,
                              "expected a divisor of mics_shard_size, %d, found %d; choose one, or remove a key",
                              zero->mics_shard_size, zero->zero_hpz_partition_size);
    return MZ_OK;
}

/* Below stage 3 DeepSpeed leaves them alone. */
static mz_status check_quantized(mz_config_reader *reader)
{
    struct {
        const char *path;
        bool *on;
    } keys[] = {
        {ZERO("zero_quantized_weights"), &reader->config.zero.zero_quantized_weights},
        {ZERO("zero_quantized_gradients"), &reader->config.zero.zero_quantized_gradients},
    };
    for (int i = 0; i < 2 && reader->config.zero.stage < 3; i++) {
        if (*keys[i].on)
            mz_config_warn(reader, mz_config_line_of(reader, keys[i].path), keys[i].path,
                           "no effect at stage %d: it needs stage 3", reader->config.zero.stage);
        *keys[i].on = false;
    }
    if (*keys[1].on && !reader->config.zero.reduce_scatter)
        return mz_config_fail(reader, mz_config_line_of(reader, keys[1].path), keys[1].path,
                              "expected reduce_scatter with it, found false; remove one of the two");
    return MZ_OK;
}

mz_status mz_config_resolve_zero(mz_config_reader *reader)
{
    mz_zero_config *zero = &reader->config.zero;
    double hidden = (double)reader->flags->hidden_size;
    mz_status status =
        automatic_size(reader, ZERO("reduce_bucket_size"), hidden * hidden, &zero->reduce_bucket_size);
    if (status == MZ_OK)
        status = automatic_size(reader, ZERO("stage3_prefetch_bucket_size"), 0.9 * hidden * hidden,
                                &zero->stage3_prefetch_bucket_size);
    if (status == MZ_OK)
        status = automatic_size(reader, ZERO("stage3_param_persistence_threshold"), 10 * hidden,
                                &zero->stage3_param_persistence_threshold);
    if (status == MZ_OK)
        status = check_offload(reader, ZERO("offload_param"), &zero->offload_param, 3);
    if (status == MZ_OK)
        status = check_offload(reader, ZERO("offload_optimizer"), &zero->offload_optimizer, 1);
    if (status == MZ_OK)
        status = check_groups(reader);
    if (status == MZ_OK)
        status = check_quantized(reader);
    if (status != MZ_OK)
        return status;
    zero->overlap_comm = mz_config_truth_of(reader, ZERO("overlap_comm"), zero->stage == 3);
    if (reader->config.gradient_allreduce_sum && zero->stage == 3)
        return mz_config_fail(reader, mz_config_line_of(reader, "gradient_allreduce_op"), "gradient_allreduce_op",
                              "expected \"mean\" at stage 3, found \"sum\"; use another stage or \"mean\"");
    return MZ_OK;
}
