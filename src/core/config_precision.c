/* fp16, bf16 or fp32, and the types of gradients in memory and on the wire. */
#include <string.h>

#include "core/config_internal.h"
#include "core/error.h"

#define FP16 "fp16.enabled"
#define BF16 "bf16.enabled"

#define NO_MASTERS   "bf16.bf16_master_weights_and_grads"
#define SMALL_STATES "bf16.bf16_optimizer_states"
#define STOCHASTIC   "mpizero.stochastic_rounding"

/* Whether the file or, where it is silent, the command line wants this type. */
static mz_status wanted(const mz_config_reader *reader, const char *path, const char *name, const char *flag,
                        bool *yes)
{
    bool by_flag = flag && strcmp(flag, name) == 0;
    *yes = mz_config_truth_of(reader, path, by_flag);
    if (mz_config_state_of(reader, path) == MZ_KEY_GIVEN && flag && *yes != by_flag)
        return mz_config_fail(reader, mz_config_line_of(reader, path), path,
                              "expected %s because of %s %s, found %s; make them agree, or set the key to \"auto\"",
                              by_flag ? "true" : "false",
                              reader->flags->mixed_precision ? "--mixed-precision"
                                                             : "the YAML file's mixed_precision",
                              flag, *yes ? "true" : "false");
    return MZ_OK;
}

/* The type a *_data_type key gives; `otherwise` when it is not given. */
static mz_dtype dtype_of(const mz_config_reader *reader, const char *path, mz_dtype given, mz_dtype otherwise)
{
    return mz_config_state_of(reader, path) == MZ_KEY_GIVEN ? (mz_dtype)(given % 3) : otherwise;
}

/* Training without fp32 master weights. */
static mz_status resolve_masters(mz_config_reader *reader)
{
    mz_config *config = &reader->config;
    if (config->bf16_optimizer_states && !config->bf16_master_weights_and_grads)
        return mz_config_fail(reader, mz_config_line_of(reader, SMALL_STATES), SMALL_STATES,
                              "expected bf16_master_weights_and_grads with it, as DeepSpeed does, found false; set "
                              "both, or remove it");
    if (config->bf16_master_weights_and_grads && config->dtype != MZ_BF16) {
        mz_config_warn(reader, mz_config_line_of(reader, NO_MASTERS), NO_MASTERS, "no effect: bf16 is not enabled");
        config->bf16_master_weights_and_grads = config->bf16_optimizer_states = false;
    }
    if (config->stochastic_rounding && !config->bf16_master_weights_and_grads)
        return mz_config_fail(reader, mz_config_line_of(reader, STOCHASTIC), STOCHASTIC,
                              "expected bf16 with bf16.bf16_master_weights_and_grads, found %s; with fp32 master "
                              "weights no update is "
                              "rounded to 16 bits: set that key, or leave stochastic rounding out",
                              config->dtype == MZ_F32 ? "fp32" : "fp32 master weights");
    return MZ_OK;
}

mz_status mz_config_resolve_precision(mz_config_reader *reader)
{
    mz_config *config = &reader->config;
    const char *flag = reader->flags->mixed_precision;
    const char *accumulation = "data_types.grad_accum_dtype";
    bool fp16 = false, bf16 = false;
    if (flag && mz_config_word_index("no|fp16|bf16", flag) < 0)
        return mz_fail(MZ_ERR_CONFIG,
                       "--mixed-precision: expected no, fp16 or bf16, found \"%s\"; correct the flag", flag);
    if (!flag)
        flag = reader->source.mixed_precision;
    if (mz_config_truth_of(reader, FP16, false) && mz_config_truth_of(reader, BF16, false))
        return mz_config_fail(
            reader, mz_config_line_of(reader, BF16), BF16,
            "expected fp16 or bf16 alone, found both enabled (fp16 on line %d); disable one of them",
            mz_config_line_of(reader, FP16));
    mz_status status = wanted(reader, FP16, "fp16", flag, &fp16);
    if (status == MZ_OK)
        status = wanted(reader, BF16, "bf16", flag, &bf16);
    if (status != MZ_OK)
        return status;
    config->dtype = fp16 ? MZ_F16 : bf16 ? MZ_BF16 : MZ_F32;
    config->grad_accum_dtype = dtype_of(reader, accumulation, config->grad_accum_dtype, config->dtype);
    config->communication_data_type =
        dtype_of(reader, "communication_data_type", config->communication_data_type, config->grad_accum_dtype);
    if (config->grad_accum_dtype != config->dtype && config->grad_accum_dtype != MZ_F32)
        return mz_config_fail(reader, mz_config_line_of(reader, accumulation), accumulation,
                              "expected fp32 or the training type %s, found %s; choose one of the two",
                              mz_dtype_name(config->dtype), mz_dtype_name(config->grad_accum_dtype));
    return resolve_masters(reader);
}
