/* Configurations that must be refused: each with the words that the message must hold. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "config_test.h"

#define BATCH "\"train_micro_batch_size_per_gpu\": 2,\n"

struct bad {
    const char *name;
    const char *text;
    const char *words[4]; /* all of them in the message */
    const char *flags;    /* "lr=0.1 clip=1 ..."; NULL: none */
    int ranks;            /* 0: 2 */
};

static const struct bad json_cases[] = {
    {"empty file", "", {"ds.json:"}, NULL, 0},
    {"not an object", "[1, 2]", {"ds.json:1", "object"}, NULL, 0},
    {"no closing brace", "{\n\"zero_optimization\": {\n", {"ds.json:"}, NULL, 0},
    {"duplicate key",
     "{\n" BATCH "\"gradient_clipping\": 1,\n\"gradient_clipping\": 2}",
     {"ds.json:4", "gradient_clipping"},
     NULL,
     0},
    {"no batch at all",
     "{\n\"gradient_accumulation_steps\": 2}",
     {"needs to be provided", "--per-device-train-batch-size"},
     NULL,
     0},
    {"batch mismatch",
     "{\n\"train_batch_size\": 32,\n\"train_micro_batch_size_per_gpu\": 4,\n\"gradient_accumulation_steps\": 2}",
     {"ds.json:2", "Check batch related parameters", "32 != 4 * 2 * 2", "expected 16"},
     NULL,
     0},
    {"batch not divisible by ranks", "{\"train_batch_size\": 7}", {"ds.json:1", "multiple", "2", "7"}, NULL, 0},
    {"batch not divisible by micro",
     "{\n\"train_batch_size\": 9,\n\"train_micro_batch_size_per_gpu\": 2}",
     {"ds.json:2", "4", "9"},
     NULL,
     0},
    {"batch zero", "{\"train_batch_size\": 0}", {"ds.json:1", "at least 1", "found 0"}, NULL, 0},
    {"batch negative", "{\"train_micro_batch_size_per_gpu\": -3}", {"at least 1", "found -3"}, NULL, 0},
    {"batch as string",
     "{\"train_batch_size\": \"32\"}",
     {"ds.json:1", "train_batch_size", "an integer", "the string \"32\""},
     NULL,
     0},
    {"batch beyond counting", "{\"train_batch_size\": 9e18}", {"can be counted", "make it smaller"}, NULL, 0},
    {"batch fractional", "{\"train_batch_size\": 3.5}", {"an integer", "found 3.5"}, NULL, 0},
    {"batch against a flag",
     "{\n" BATCH "\"gradient_accumulation_steps\": 4}",
     {"ds.json:3", "--gradient-accumulation-steps", "found 4", "2"},
     "steps=2",
     0},
    {"stage 4",
     "{\n" BATCH "\"zero_optimization\": {\n\"stage\": 4}}",
     {"ds.json:4: zero_optimization.stage", "0, 1, 2 or 3", "found 4"},
     NULL,
     0},
    {"stage -1", "{" BATCH "\"zero_optimization\": {\"stage\": -1}}", {"0, 1, 2 or 3", "found -1"}, NULL, 0},
    {"stage text",
     "{" BATCH "\"zero_optimization\": {\"stage\": \"two\"}}",
     {"zero_optimization.stage", "the string \"two\""},
     NULL,
     0},
    {"stage true", "{" BATCH "\"zero_optimization\": {\"stage\": true}}", {"found true"}, NULL, 0},
    {"stage against a flag",
     "{" BATCH "\"zero_optimization\": {\"stage\": 3}}",
     {"--zero-stage, 2", "found 3"},
     "stage=2",
     0},
    {"zero as a list",
     "{" BATCH "\"zero_optimization\": [2]}",
     {"zero_optimization", "a block", "a list"},
     NULL,
     0},
    {"unknown zero key",
     "{\n" BATCH "\"zero_optimization\": {\n\"stage\": 2,\n\"reduce_bucket_sise\": 5}}",
     {"ds.json:5: zero_optimization.reduce_bucket_sise", "did you mean \"reduce_bucket_size\""},
     NULL,
     0},
    {"bucket zero",
     "{" BATCH "\"zero_optimization\": {\"reduce_bucket_size\": 0}}",
     {"at least 1", "found 0"},
     NULL,
     0},
    {"bucket too exact",
     "{" BATCH "\"zero_optimization\": {\"reduce_bucket_size\": 5.5e0}}",
     {"an integer", "5.5"},
     NULL,
     0},
    {"bucket auto without a model",
     "{" BATCH "\"zero_optimization\": {\"reduce_bucket_size\": \"auto\"}}",
     {"hidden size", "give a number"},
     NULL,
     0},
    {"overlap as number",
     "{" BATCH "\"zero_optimization\": {\"overlap_comm\": 1}}",
     {"true or false", "found 1"},
     NULL,
     0},
    {"overlap as word",
     "{" BATCH "\"zero_optimization\": {\"overlap_comm\": \"yes\"}}",
     {"true or false", "\"yes\""},
     NULL,
     0},
    {"unknown offload key",
     "{\n" BATCH "\"zero_optimization\": {\"stage\": 3, \"offload_param\": {\n\"devices\": \"cpu\"}}}",
     {"ds.json:4: zero_optimization.offload_param.devices", "did you mean \"device\""},
     NULL,
     0},
    {"unknown offload device",
     "{" BATCH "\"zero_optimization\": {\"offload_optimizer\": {\"device\": \"disk\"}}}",
     {"\"none\", \"cpu\", \"nvme\"", "\"disk\""},
     NULL,
     0},
    {"nvme without path",
     "{" BATCH "\"zero_optimization\": {\"stage\": 3, \"offload_param\": {\"device\": \"nvme\"}}}",
     {"nvme_path"},
     NULL,
     0},
    {"ratio above one",
     "{" BATCH "\"zero_optimization\": {\"offload_optimizer\": {\"ratio\": 1.5}}}",
     {"from 0 to 1", "1.5"},
     NULL,
     0},
    {"zenflow",
     "{" BATCH "\"zero_optimization\": {\"zenflow\": {\"topk_ratio\": 0.1}}}",
     {"zenflow", "remove the block"},
     NULL,
     0},
    {"loco",
     "{" BATCH "\"zero_optimization\": {\"zeropp_loco_param\": {\"err_beta\": 0.8}}}",
     {"zeropp_loco_param"},
     NULL,
     0},
    {"hpz not a divisor",
     "{" BATCH "\"zero_optimization\": {\"stage\": 3, \"zero_hpz_partition_size\": 3}}",
     {"divisor", "2", "found 3"},
     NULL,
     0},
    {"hpz not a divisor of mics",
     "{" BATCH "\"zero_optimization\": {\"stage\": 3, \"zero_hpz_partition_size\": 2, \"mics_shard_size\": 1}}",
     {"zero_hpz_partition_size", "divisor of mics_shard_size, 1", "found 2"},
     NULL,
     0},
    {"quantised gradients without reduce_scatter",
     "{" BATCH
     "\"zero_optimization\": {\"stage\": 3, \"zero_quantized_gradients\": true, \"reduce_scatter\": false}}",
     {"zero_quantized_gradients", "expected reduce_scatter"},
     NULL,
     0},
    {"mics zero",
     "{" BATCH "\"zero_optimization\": {\"stage\": 3, \"mics_shard_size\": 0}}",
     {"mics_shard_size", "divisor", "found 0"},
     NULL,
     0},
    {"old and new name",
     "{\n" BATCH "\"zero_optimization\": {\n\"stage3_gather_fp16_weights_on_model_save\": "
     "true,\n\"stage3_gather_16bit_weights_on_model_save\": false}}",
     {"ds.json:5", "a second one", "line 4"},
     NULL,
     0},
    {"sum at stage 3",
     "{" BATCH "\"gradient_allreduce_op\": \"sum\", \"zero_optimization\": {\"stage\": 3}}",
     {"gradient_allreduce_op", "stage 3"},
     NULL,
     0},
    {"unknown reduction",
     "{" BATCH "\"gradient_allreduce_op\": \"max\"}",
     {"\"mean\", \"sum\"", "\"max\""},
     NULL,
     0},
    {"fp16 and bf16",
     "{\n" BATCH "\"fp16\": {\"enabled\": true},\n\"bf16\": {\n\"enabled\": \"true\"}}",
     {"ds.json:5: bf16.enabled", "fp16 on line 3"},
     NULL,
     0},
    {"unknown fp16 key",
     "{" BATCH "\"fp16\": {\"enable\": true}}",
     {"fp16.enable", "did you mean \"enabled\""},
     NULL,
     0},
    {"unknown bf16 key", "{" BATCH "\"bf16\": {\"loss_scale\": 1}}", {"bf16.loss_scale", "unknown"}, NULL, 0},
    {"fp16 against a flag",
     "{\n" BATCH "\"fp16\": {\"enabled\": true}}",
     {"ds.json:3", "--mixed-precision bf16"},
     "mp=bf16",
     0},
    {"bf16 off against a flag",
     "{" BATCH "\"bf16\": {\"enabled\": false}}",
     {"bf16.enabled", "--mixed-precision bf16"},
     "mp=bf16",
     0},
    {"unknown precision flag", "{" BATCH "}", {"--mixed-precision", "no, fp16 or bf16", "fp8"}, "mp=fp8", 0},
    {"negative loss scale",
     "{" BATCH "\"fp16\": {\"loss_scale\": -1}}",
     {"fp16.loss_scale", "at least 0"},
     NULL,
     0},
    {"scale power too large", "{" BATCH "\"fp16\": {\"initial_scale_power\": 200}}", {"from 0 to 127"}, NULL, 0},
    {"window zero", "{" BATCH "\"fp16\": {\"loss_scale_window\": 0}}", {"at least 1"}, NULL, 0},
    {"fp16 masters",
     "{" BATCH "\"fp16\": {\"fp16_master_weights_and_grads\": true}}",
     {"master weights of fp16 are fp32"},
     NULL,
     0},
    {"bf16 states alone",
     "{\n" BATCH "\"bf16\": {\"enabled\": true,\n\"bf16_optimizer_states\": true}}",
     {"ds.json:4", "bf16.bf16_optimizer_states", "bf16_master_weights_and_grads with it"},
     NULL,
     0},
    {"stochastic rounding with masters",
     "{\n" BATCH "\"bf16\": {\"enabled\": true},\n\"mpizero\": {\"stochastic_rounding\": true}}",
     {"ds.json:4", "mpizero.stochastic_rounding", "found fp32 master weights", "bf16_master_weights_and_grads"},
     NULL,
     0},
    {"stochastic rounding in fp32",
     "{" BATCH "\"bf16\": {\"bf16_master_weights_and_grads\": true}, \"mpizero\": {\"stochastic_rounding\": true}}",
     {"mpizero.stochastic_rounding", "found fp32;"},
     NULL,
     0},
    {"stochastic rounding by a flag, with masters",
     "{" BATCH "}",
     {"mpizero.stochastic_rounding"},
     "mp=bf16 sr=1",
     0},
    {"mixed 16-bit types",
     "{" BATCH "\"bf16\": {\"enabled\": true}, \"data_types\": {\"grad_accum_dtype\": \"fp16\"}}",
     {"grad_accum_dtype", "bf16"},
     NULL,
     0},
    {"unknown data type",
     "{" BATCH "\"communication_data_type\": \"int8\"}",
     {"communication_data_type", "\"fp32\""},
     NULL,
     0},
    {"amp", "{" BATCH "\"amp\": {\"enabled\": true}}", {"amp", "bf16 or fp16"}, NULL, 0},
    {"autocast", "{" BATCH "\"torch_autocast\": {\"enabled\": true}}", {"torch_autocast"}, NULL, 0},
    {"clipping negative", "{" BATCH "\"gradient_clipping\": -1}", {"at least 0", "found -1"}, NULL, 0},
    {"clipping text", "{" BATCH "\"gradient_clipping\": \"1.0\"}", {"a number", "the string"}, NULL, 0},
    {"clipping against a flag",
     "{\n" BATCH "\"gradient_clipping\": 1.0}",
     {"ds.json:3", "--max-grad-norm, 0.5", "found 1"},
     "clip=0.5",
     0},
    {"two flags",
     "{\n" BATCH "\"gradient_clipping\": 1.0,\n\"optimizer\": {\"type\": \"AdamW\", \"params\": {\"lr\": 0.1}}}",
     {"--max-grad-norm", "likewise optimizer.params.lr (line 4)", "--learning-rate"},
     "clip=0.5 lr=0.2",
     0},
    {"predivide zero", "{" BATCH "\"gradient_predivide_factor\": 0}", {"above 0"}, NULL, 0},
    {"clipping null", "{" BATCH "\"gradient_clipping\": null}", {"a number", "found null"}, NULL, 0},
    {"optimizer without type",
     "{\n" BATCH "\"optimizer\": {\"params\": {\"lr\": 0.1}}}",
     {"ds.json:3", "optimizer.type", "AdamW"},
     NULL,
     0},
    {"unsupported optimizer",
     "{" BATCH "\"optimizer\": {\"type\": \"OneBitAdam\"}}",
     {"Adam, AdamW, SGD, Adagrad or Lion", "OneBitAdam"},
     NULL,
     0},
    {"max_grad_norm in params",
     "{\n" BATCH "\"optimizer\": {\"type\": \"AdamW\", \"params\": {\n\"max_grad_norm\": 1.0}}}",
     {"ds.json:4", "gradient_clipping"},
     NULL,
     0},
    {"unknown parameter",
     "{" BATCH "\"optimizer\": {\"type\": \"AdamW\", \"params\": {\"weight_deacy\": 0.1}}}",
     {"did you mean \"weight_decay\""},
     NULL,
     0},
    {"momentum for AdamW",
     "{" BATCH "\"optimizer\": {\"type\": \"AdamW\", \"params\": {\"momentum\": 0.9}}}",
     {"optimizer.params.momentum", "AdamW", "SGD"},
     NULL,
     0},
    {"one beta",
     "{" BATCH "\"optimizer\": {\"type\": \"AdamW\", \"params\": {\"betas\": [0.9]}}}",
     {"betas", "two numbers"},
     NULL,
     0},
    {"beta of one",
     "{" BATCH "\"optimizer\": {\"type\": \"AdamW\", \"params\": {\"betas\": [0.9, 1.0]}}}",
     {"below 1", "found 1"},
     NULL,
     0},
    {"betas as number",
     "{" BATCH "\"optimizer\": {\"type\": \"AdamW\", \"params\": {\"betas\": 0.9}}}",
     {"a list"},
     NULL,
     0},
    {"betas against a flag",
     "{" BATCH "\"optimizer\": {\"type\": \"AdamW\", \"params\": {\"betas\": [0.9, 0.95]}}}",
     {"--adam-beta2", "0.95"},
     "beta2=0.99",
     0},
    {"nesterov alone",
     "{" BATCH "\"optimizer\": {\"type\": \"SGD\", \"params\": {\"nesterov\": true}}}",
     {"nesterov", "momentum"},
     NULL,
     0},
    {"amsgrad",
     "{" BATCH "\"optimizer\": {\"type\": \"Adam\", \"params\": {\"amsgrad\": true}}}",
     {"amsgrad"},
     NULL,
     0},
    {"unknown scheduler",
     "{" BATCH "\"scheduler\": {\"type\": \"StepLR\"}}",
     {"scheduler.type", "\"WarmupLR\"", "StepLR"},
     NULL,
     0},
    {"scheduler without type",
     "{" BATCH "\"scheduler\": {\"params\": {}}}",
     {"scheduler.type", "WarmupLR"},
     NULL,
     0},
    {"cycle without rates",
     "{" BATCH "\"scheduler\": {\"type\": \"OneCycle\", \"params\": {\"cycle_min_lr\": 0.1}}}",
     {"cycle_max_lr"},
     NULL,
     0},
    {"another scheduler's parameter",
     "{" BATCH "\"scheduler\": {\"type\": \"WarmupLR\", \"params\": {\"cycle_min_lr\": 0.1}}}",
     {"cycle_min_lr", "OneCycle"},
     NULL,
     0},
    {"unknown warm-up",
     "{" BATCH "\"scheduler\": {\"type\": \"WarmupLR\", \"params\": {\"warmup_type\": \"cosine\"}}}",
     {"\"log\", \"linear\""},
     NULL,
     0},
    {"warm-up against a flag",
     "{" BATCH "\"scheduler\": {\"type\": \"WarmupLR\", \"params\": {\"warmup_num_steps\": 10}}}",
     {"--num-warmup-steps, 20", "found 10"},
     "warmup=20",
     0},
    {"auto where it means nothing",
     "{" BATCH "\"steps_per_print\": \"auto\"}",
     {"steps_per_print", "an integer"},
     NULL,
     0},
    {"unknown flops key",
     "{" BATCH "\"flops_profiler\": {\"enable\": true}}",
     {"flops_profiler.enable", "\"enabled\""},
     NULL,
     0},
    {"unknown aio key", "{" BATCH "\"aio\": {\"blocksize\": 1}}", {"aio.blocksize", "\"block_size\""}, NULL, 0},
    {"unknown tensorboard key", "{" BATCH "\"tensorboard\": {\"path\": \"x\"}}", {"tensorboard.path"}, NULL, 0},
    {"tag validation",
     "{" BATCH "\"checkpoint\": {\"tag_validation\": \"Maybe\"}}",
     {"\"Ignore\", \"Warn\", \"Fail\""},
     NULL,
     0},
    {"elasticity",
     "{" BATCH "\"elasticity\": {\"enabled\": true}}",
     {"elasticity", "any number of ranks"},
     NULL,
     0},
    {"layer drop",
     "{" BATCH "\"progressive_layer_drop\": {\"enabled\": true}}",
     {"progressive_layer_drop"},
     NULL,
     0},
    {"tensor parallel", "{" BATCH "\"tensor_parallel\": {\"autotp_size\": 4}}", {"ZeRO stage 3"}, NULL, 0},
    {"cpu checkpointing",
     "{" BATCH "\"activation_checkpointing\": {\"cpu_checkpointing\": true}}",
     {"cpu_checkpointing", "--gradient-checkpointing"},
     NULL,
     0},
    {"idle key of a wrong type",
     "{" BATCH "\"sparse_gradients\": 3}",
     {"sparse_gradients", "true or false"},
     NULL,
     0},
    {"block as number", "{" BATCH "\"fp16\": 1}", {"fp16", "a block"}, NULL, 0},
    {"own block", "{" BATCH "\"mpizero\": {\"sede\": 1}}", {"mpizero.sede", "\"seed\""}, NULL, 0},
};

static const struct bad yaml_cases[] = {
    {"not YAML", "a: [1\nb: 2\n", {"accelerate.yaml:", "YAML"}, NULL, 0},
    {"a list", "- a\n- b\n", {"accelerate.yaml:1", "key: value"}, NULL, 0},
    {"unknown key",
     "compute_environment: LOCAL_MACHINE\nmixed_precison: bf16\n",
     {"accelerate.yaml:2", "did you mean \"mixed_precision\""},
     NULL,
     0},
    {"stage 5",
     "deepspeed_config:\n  zero_stage: 5\n",
     {"accelerate.yaml:2: deepspeed_config.zero_stage", "0, 1, 2 or 3", "found 5"},
     NULL,
     0},
    {"precision",
     "debug: false\nmixed_precision: int8\n",
     {"accelerate.yaml:2: mixed_precision", "no, fp16 or bf16"},
     NULL,
     0},
    {"precision against a flag",
     "mixed_precision: fp16\nnum_processes: 2\n",
     {"--mixed-precision", "fp16"},
     "mp=fp8",
     0},
    {"twice", "num_machines: 1\nnum_machines: 2\n", {"accelerate.yaml:2: num_machines", "second time"}, NULL, 0},
    {"fsdp", "distributed_type: FSDP\n", {"accelerate.yaml:1: distributed_type", "DEEPSPEED"}, NULL, 0},
    {"clipping",
     "deepspeed_config:\n  zero_stage: 2\n  gradient_clipping: lots\n",
     {"accelerate.yaml:3: deepspeed_config.gradient_clipping", "\"lots\""},
     NULL,
     0},
    {"offload device",
     "deepspeed_config:\n  offload_param_device: gpu\n",
     {"accelerate.yaml:2: deepspeed_config.offload_param_device", "\"gpu\""},
     NULL,
     0},
    {"block as value", "deepspeed_config: zero3\n", {"accelerate.yaml:1: deepspeed_config", "a block"}, NULL, 0},
    {"file and keys",
     "deepspeed_config:\n  deepspeed_config_file: ds.json\n  zero_stage: 2\n",
     {"accelerate.yaml:3: deepspeed_config.zero_stage", "ds.json"},
     NULL,
     0},
    {"file not there", "deepspeed_config:\n  deepspeed_config_file: none.json\n", {"none.json"}, NULL, 0},
    {"flag against the file",
     "deepspeed_config:\n  gradient_accumulation_steps: 4\n",
     {"accelerate.yaml:2", "--gradient-accumulation-steps"},
     "steps=2",
     0},
};

static void set_flags(const char *text, mz_config_defaults *flags)
{
    mz_config_defaults_init(flags);
    char name[16], value[16];
    for (int n; text && sscanf(text, " %15[a-z0-9]=%15[^ ]%n", name, value, &n) == 2; text += n) {
        double number = 0;
        sscanf(value, "%lf", &number);
        if (strcmp(name, "steps") == 0)
            flags->gradient_accumulation_steps = (int64_t)number;
        else if (strcmp(name, "stage") == 0)
            flags->zero_stage = (int)number;
        else if (strcmp(name, "clip") == 0)
            flags->gradient_clipping = number;
        else if (strcmp(name, "lr") == 0)
            flags->learning_rate = number;
        else if (strcmp(name, "beta2") == 0)
            flags->adam_beta2 = number;
        else if (strcmp(name, "warmup") == 0)
            flags->warmup_steps = (int64_t)number;
        else if (strcmp(name, "sr") == 0)
            flags->stochastic_rounding = number > 0;
        else if (strcmp(name, "mp") == 0)
            flags->mixed_precision = strcmp(value, "bf16") == 0   ? "bf16"
                                     : strcmp(value, "fp16") == 0 ? "fp16"
                                                                  : "fp8";
    }
}

static int check(const char *file, const struct bad *bad)
{
    mz_config_defaults flags;
    mz_config config;
    int wrong = 0;
    set_flags(bad->flags, &flags);
    memset(&config, 0x5a, sizeof config);
    mz_config before = config;
    mz_status status = load_text(file, bad->text, &flags, bad->ranks ? bad->ranks : 2, &config, NULL, 0);
    if (status == MZ_OK) {
        printf("%s: was accepted\n", bad->name);
        return 1;
    }
    for (int i = 0; i < 4 && bad->words[i]; i++) {
        if (!strstr(mz_last_error(), bad->words[i])) {
            printf("%s: \"%s\" is not in: %s\n", bad->name, bad->words[i], mz_last_error());
            wrong = 1;
        }
    }
    if (memcmp(&before, &config, sizeof config) != 0) {
        printf("%s: the output was touched\n", bad->name);
        wrong = 1;
    }
    return wrong;
}

static void bad_json(void **state)
{
    (void)state;
    int wrong = 0;
    for (size_t i = 0; i < sizeof json_cases / sizeof json_cases[0]; i++)
        wrong += check("ds.json", &json_cases[i]);
    assert_int_equal(wrong, 0);
}

static void bad_yaml(void **state)
{
    (void)state;
    int wrong = 0;
    for (size_t i = 0; i < sizeof yaml_cases / sizeof yaml_cases[0]; i++)
        wrong += check("accelerate.yaml", &yaml_cases[i]);
    assert_int_equal(wrong, 0);
}

static void not_files(void **state)
{
    (void)state;
    mz_config_defaults flags;
    mz_config config;
    mz_config_defaults_init(&flags);
    assert_int_equal(mz_config_load("/nowhere/ds.json", &flags, 1, &config), MZ_ERR_IO);
    assert_non_null(strstr(mz_last_error(), "/nowhere/ds.json"));
    assert_int_equal(mz_config_load("eyJ0cmFpbl9iYXRjaF9zaXplIjogOH0=", &flags, 1, &config), MZ_ERR_CONFIG);
    assert_non_null(strstr(mz_last_error(), "base64"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_json),
        cmocka_unit_test(bad_yaml),
        cmocka_unit_test(not_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
