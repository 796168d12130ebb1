/* train_batch_size = micro-batch x accumulation x ranks: what is missing is worked out, what contradicts is
 * refused. */
#include <inttypes.h>
#include <stdio.h>

#include "core/config_internal.h"

#define TRAIN "train_batch_size"
#define MICRO "train_micro_batch_size_per_gpu"
#define STEPS "gradient_accumulation_steps"

static mz_status not_whole(const mz_config_reader *reader, const char *divisor, int64_t train, int64_t by)
{
    return mz_config_fail(reader, mz_config_line_of(reader, TRAIN), TRAIN,
                          "expected a multiple of %s = %" PRId64 ", found %" PRId64
                          "; choose a multiple, or set train_batch_size to \"auto\"",
                          divisor, by, train);
}

static mz_status contradiction(const mz_config_reader *reader, int64_t train, int64_t micro, int64_t steps)
{
    int64_t ranks = reader->world_size;
    int64_t right = micro * steps * ranks;
    return mz_config_fail(
        reader, mz_config_line_of(reader, TRAIN), TRAIN,
        "Check batch related parameters. train_batch_size is not equal to micro_batch_per_gpu * "
        "gradient_acc_step * world_size %" PRId64 " != %" PRId64 " * %" PRId64 " * %" PRId64 "; expected %" PRId64
        " on these ranks: set it to that or to \"auto\", or leave out one of "
        "train_batch_size, " MICRO " (line %d) and " STEPS " (line %d)",
        train, micro, steps, ranks, right, mz_config_line_of(reader, MICRO), mz_config_line_of(reader, STEPS));
}

mz_status mz_config_resolve_batch(mz_config_reader *reader)
{
    mz_config *config = &reader->config;
    const mz_config_entry *entry = mz_config_entry_of(reader, TRAIN);
    int64_t ranks = reader->world_size;
    int64_t micro = config->micro_batch_size, steps = config->gradient_accumulation_steps, train = 0;
    if (entry->state == MZ_KEY_GIVEN)
        train = (int64_t)json_number_value(entry->value);
    if (micro == 0 && mz_config_state_of(reader, MICRO) == MZ_KEY_ABSENT && train == 0 && reader->has_file &&
        entry->state != MZ_KEY_AUTO)
        return mz_config_fail(reader, 0, MICRO,
                              "Either train_batch_size or train_micro_batch_size_per_gpu needs to be provided: add "
                              "\"" MICRO
                              "\": \"auto\" or a number to the file, or give --per-device-train-batch-size");
    if (train > 0 && micro == 0) {
        if (steps == 0)
            steps = 1;
        if (train % (steps * ranks) != 0)
            return not_whole(reader, "accumulation x ranks", train, steps * ranks);
        micro = train / (steps * ranks);
    } else if (train > 0 && steps == 0) {
        if (train % (micro * ranks) != 0)
            return not_whole(reader, "micro-batch x ranks", train, micro * ranks);
        steps = train / (micro * ranks);
    }
    if (micro == 0)
        micro = 8; /* the Trainer's */
    if (steps == 0)
        steps = 1;
    if (micro > INT32_MAX || steps > INT32_MAX || micro * steps > INT64_MAX / ranks)
        return mz_config_fail(reader, mz_config_line_of(reader, MICRO), MICRO,
                              "expected a batch that can be counted, found %" PRId64 " x %" PRId64 " x %" PRId64
                              "; make it smaller",
                              micro, steps, ranks);
    if (train > 0 && train != micro * steps * ranks)
        return contradiction(reader, train, micro, steps);
    config->micro_batch_size = micro;
    config->gradient_accumulation_steps = steps;
    config->train_batch_size = micro * steps * ranks;
    return MZ_OK;
}
