/* Configurations that must be read, and what they come to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "config_test.h"
#include "core/memory.h"

/* The file of Hugging Face's blog on ZeRO through Accelerate, string booleans and all. */
static const char blog[] =
    "{\n"
    "  // ZeRO 3 with everything left to the command line\n"
    "  \"fp16\": {\"enabled\": \"true\", \"loss_scale\": 0, \"loss_scale_window\": 1000,\n"
    "           \"initial_scale_power\": 15, \"hysteresis\": 2, \"min_loss_scale\": 1},\n"
    "  \"optimizer\": {\"type\": \"AdamW\", \"params\": {\"lr\": \"auto\", \"weight_decay\": \"auto\",\n"
    "                \"torch_adam\": true, \"adam_w_mode\": true}},\n"
    "  \"scheduler\": {\"type\": \"WarmupDecayLR\", \"params\": {\"warmup_min_lr\": \"auto\",\n"
    "    \"warmup_max_lr\": \"auto\", \"warmup_num_steps\": \"auto\", \"total_num_steps\": \"auto\"}},\n"
    "  \"zero_optimization\": {\n"
    "    \"stage\": 3, \"allgather_partitions\": true, \"allgather_bucket_size\": 2e8,\n"
    "    \"overlap_comm\": \"true\", \"reduce_scatter\": true, \"reduce_bucket_size\": \"auto\",\n"
    "    \"stage3_prefetch_bucket_size\": \"auto\", \"stage3_param_persistence_threshold\": \"auto\",\n"
    "    \"contiguous_gradients\": true, \"stage3_gather_16bit_weights_on_model_save\": \"auto\",\n"
    "    \"sub_group_size\": 1e12\n"
    "  },\n"
    "  \"gradient_accumulation_steps\": \"auto\",\n"
    "  \"gradient_clipping\": \"auto\",\n"
    "  \"steps_per_print\": 2000,\n"
    "  \"train_batch_size\": \"auto\",\n"
    "  \"train_micro_batch_size_per_gpu\": \"auto\",\n"
    "  \"wall_clock_breakdown\": false,\n"
    "}\n";

static mz_status load(const char *text, const mz_config_defaults *flags, int ranks, mz_config *config)
{
    mz_config_defaults none;
    mz_config_defaults_init(&none);
    mz_status status = load_text("ds.json", text, flags ? flags : &none, ranks, config, NULL, 0);
    if (status != MZ_OK)
        print_error("%s\n", mz_last_error());
    return status;
}

static mz_config_defaults blog_flags(void)
{
    mz_config_defaults flags;
    mz_config_defaults_init(&flags);
    flags.micro_batch_size = 4;
    flags.gradient_accumulation_steps = 2;
    flags.learning_rate = 3e-4;
    flags.weight_decay = 0.1;
    flags.warmup_steps = 100;
    flags.total_steps = 5000;
    flags.hidden_size = 1600;
    return flags;
}

static void automatic_values(void **state)
{
    mz_config c;
    (void)state;
    mz_config_defaults flags = blog_flags();
    assert_int_equal(load(blog, &flags, 8, &c), MZ_OK);
    assert_int_equal(c.micro_batch_size, 4);
    assert_int_equal(c.gradient_accumulation_steps, 2);
    assert_int_equal(c.train_batch_size, 64);
    assert_int_equal(c.dtype, MZ_F16);
    assert_int_equal(c.grad_accum_dtype, MZ_F16);
    assert_int_equal(c.communication_data_type, MZ_F16);
    assert_int_equal(c.fp16.initial_scale_power, 15);
    assert_int_equal(c.zero.stage, 3);
    assert_true(c.zero.overlap_comm);
    assert_int_equal(c.zero.reduce_bucket_size, 1600 * 1600);
    assert_int_equal(c.zero.stage3_prefetch_bucket_size, 2304000);
    assert_int_equal(c.zero.stage3_param_persistence_threshold, 16000);
    assert_int_equal(c.zero.allgather_bucket_size, 200000000);
    assert_int_equal(c.zero.sub_group_size, 1000000000000);
    assert_false(c.zero.stage3_gather_16bit_weights_on_model_save);
    assert_int_equal(c.optimizer.kind, 0);
    assert_true(c.optimizer.lr == 3e-4 && c.optimizer.weight_decay == 0.1);
    assert_true(c.optimizer.beta1 == 0.9 && c.optimizer.beta2 == 0.999 && c.optimizer.eps == 1e-8);
    assert_int_equal(c.scheduler.kind, MZ_SCHED_WARMUP_DECAY);
    assert_int_equal(c.scheduler.warmup_num_steps, 100);
    assert_int_equal(c.scheduler.total_num_steps, 5000);
    assert_true(c.scheduler.warmup_min_lr == 0 && c.scheduler.warmup_max_lr < 0);
    assert_true(c.gradient_clipping == 1.0);
    assert_int_equal(c.steps_per_print, 2000);
}

/* "auto" without flags: what the Trainer takes; an unknown number of steps stays open. */
static void automatic_without_flags(void **state)
{
    mz_config c;
    mz_config_defaults flags;
    (void)state;
    mz_config_defaults_init(&flags);
    flags.hidden_size = 64;
    assert_int_equal(load(blog, &flags, 1, &c), MZ_OK);
    assert_int_equal(c.train_batch_size, 8);
    assert_true(c.optimizer.lr == 5e-5 && c.optimizer.weight_decay == 0);
    assert_int_equal(c.scheduler.warmup_num_steps, 0);
    assert_int_equal(c.scheduler.total_num_steps, -1);
}

#define HEAD "{\"train_batch_size\": 1, "

/* A schedule's end that the file leaves out is the flag's, and open without one. */
static void total_steps_left_out(void **state)
{
    static const char *const text =
        HEAD "\"scheduler\": {\"type\": \"WarmupDecayLR\", \"params\": {\"warmup_num_steps\": 3}}}";
    mz_config c;
    mz_config_defaults flags;
    (void)state;
    mz_config_defaults_init(&flags);
    assert_int_equal(load(text, &flags, 1, &c), MZ_OK);
    assert_int_equal(c.scheduler.total_num_steps, -1);
    flags.total_steps = 77;
    assert_int_equal(load(text, &flags, 1, &c), MZ_OK);
    assert_int_equal(c.scheduler.total_num_steps, 77);
}

static void no_file(void **state)
{
    mz_config c;
    mz_config_defaults flags;
    (void)state;
    mz_config_defaults_init(&flags);
    flags.mixed_precision = "bf16";
    flags.zero_stage = 2;
    flags.learning_rate = 1e-3;
    flags.seed = INT64_MAX;
    flags.gradient_checkpointing = 1;
    flags.recompute_cheap = 1;
    flags.tf32 = 1;
    assert_int_equal(mz_config_load(NULL, &flags, 3, &c), MZ_OK);
    assert_int_equal(c.train_batch_size, 24);
    assert_int_equal(c.dtype, MZ_BF16);
    assert_int_equal(c.zero.stage, 2);
    assert_false(c.zero.overlap_comm);
    assert_true(c.gradient_clipping == 1.0 && c.optimizer.lr == 1e-3);
    assert_int_equal(c.scheduler.kind, MZ_SCHED_CONSTANT);
    assert_int_equal(c.scheduler.last_batch_iteration, -1);
    assert_true(c.seed == (uint64_t)INT64_MAX);
    assert_int_equal(c.activation_checkpointing_every, 1);
    assert_true(c.recompute_cheap);
    assert_true(c.tf32);
    assert_int_equal(c.zero.reduce_bucket_size, 500000000);
    assert_true(c.zero.stage3_model_persistence_threshold == INT64_MAX);
    assert_true(c.comm_timeout_seconds == 1800);
}

static void batch_arithmetic(void **state)
{
    static const struct {
        const char *text;
        int ranks;
        int64_t train, micro, steps;
    } cases[] = {
        {"{\"train_batch_size\": 32}", 4, 32, 8, 1},
        {"{\"train_micro_batch_size_per_gpu\": 3}", 4, 12, 3, 1},
        {"{\"train_batch_size\": 32, \"gradient_accumulation_steps\": 2}", 4, 32, 4, 2},
        {"{\"train_batch_size\": 32, \"train_micro_batch_size_per_gpu\": 2}", 4, 32, 2, 4},
        {"{\"train_micro_batch_size_per_gpu\": 2, \"gradient_accumulation_steps\": 5}", 3, 30, 2, 5},
        {"{\"train_batch_size\": 30, \"train_micro_batch_size_per_gpu\": 2, \"gradient_accumulation_steps\": 5}", 3,
         30, 2, 5},
        {"{\"train_batch_size\": 3.2e1}", 1, 32, 32, 1},
        {"{\"train_batch_size\": \"auto\", \"train_micro_batch_size_per_gpu\": 6}", 2, 12, 6, 1},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mz_config c;
        assert_int_equal(load(cases[i].text, NULL, cases[i].ranks, &c), MZ_OK);
        assert_int_equal(c.train_batch_size, cases[i].train);
        assert_int_equal(c.micro_batch_size, cases[i].micro);
        assert_int_equal(c.gradient_accumulation_steps, cases[i].steps);
    }
}

static void optimizers(void **state)
{
    mz_config c;
    (void)state;
    assert_int_equal(load(HEAD "\"optimizer\": {\"type\": \"Adam\"}}", NULL, 1, &c), MZ_OK);
    assert_int_equal(c.optimizer.kind, 0); /* Adam is AdamW unless adam_w_mode is false */
    assert_true(c.optimizer.lr == 1e-3);
    assert_int_equal(
        load(HEAD
             "\"optimizer\": {\"type\": \"adam\", \"params\": {\"adam_w_mode\": false, \"betas\": [0.8, 0.9]}}}",
             NULL, 1, &c),
        MZ_OK);
    assert_int_equal(c.optimizer.kind, 1);
    assert_true(c.optimizer.beta1 == 0.8 && c.optimizer.beta2 == 0.9);
    assert_int_equal(
        load(HEAD "\"optimizer\": {\"type\": \"SGD\", \"params\": {\"momentum\": 0.9, \"nesterov\": true}}}", NULL,
             1, &c),
        MZ_OK);
    assert_int_equal(c.optimizer.kind, 2);
    assert_true(c.optimizer.momentum == 0.9 && c.optimizer.nesterov);
    assert_int_equal(load(HEAD "\"optimizer\": {\"type\": \"Adagrad\"}}", NULL, 1, &c), MZ_OK);
    assert_true(c.optimizer.kind == 3 && c.optimizer.lr == 1e-2 && c.optimizer.eps == 1e-10);
    assert_int_equal(load(HEAD "\"optimizer\": {\"type\": \"Lion\", \"params\": {\"lr\": 1e-4}}}", NULL, 1, &c),
                     MZ_OK);
    assert_true(c.optimizer.kind == 4 && c.optimizer.lr == 1e-4);
}

static void without_masters(void **state)
{
    static const char text[] = HEAD "\"bf16\": {\"enabled\": true, \"bf16_master_weights_and_grads\": true,"
                                    "\"bf16_optimizer_states\": \"true\"}}";
    mz_config c;
    mz_config_defaults flags;
    (void)state;
    assert_int_equal(load(HEAD "\"bf16\": {\"enabled\": true}}", NULL, 1, &c), MZ_OK);
    assert_false(c.bf16_master_weights_and_grads || c.bf16_optimizer_states || c.stochastic_rounding);
    assert_int_equal(load(text, NULL, 1, &c), MZ_OK);
    assert_true(c.bf16_master_weights_and_grads && c.bf16_optimizer_states && !c.stochastic_rounding);
    assert_int_equal(c.grad_accum_dtype, MZ_BF16);
    mz_config_defaults_init(&flags);
    flags.stochastic_rounding = 1;
    assert_int_equal(load(text, &flags, 1, &c), MZ_OK);
    assert_true(c.stochastic_rounding);
}

static void deprecated_names(void **state)
{
    static const struct {
        const char *text, *warning;
    } cases[] = {
        {HEAD "\"zero_optimization\": true}", "ds.json:1: zero_optimization: true or false is deprecated"},
        {HEAD "\n\"zero_optimization\": {\"stage\": 2,\n\"cpu_offload\": \"true\"}}",
         "ds.json:3: zero_optimization.cpu_offload"},
        {HEAD "\"bfloat16\": {\"enabled\": true}}", "bfloat16: deprecated; use bf16"},
        {HEAD "\"zero_optimization\": {\"stage3_gather_fp16_weights_on_model_save\": true}}",
         "deprecated; use zero_opt"},
        {HEAD "\"aio\": {\"thread_count\": 1}}", "use aio.intra_op_parallelism"},
    };
    mz_config c[5];
    char log[2048];
    (void)state;
    mz_config_defaults flags;
    mz_config_defaults_init(&flags);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(load_text("ds.json", cases[i].text, &flags, 1, &c[i], log, sizeof log), MZ_OK);
        if (!strstr(log, cases[i].warning))
            print_error("\"%s\" is not in: %s\n", cases[i].warning, log);
        assert_non_null(strstr(log, cases[i].warning));
    }
    assert_int_equal(c[0].zero.stage, 1);
    assert_int_equal(c[1].zero.offload_optimizer.device, MZ_OFFLOAD_CPU);
    assert_int_equal(c[2].dtype, MZ_BF16);
    assert_true(c[3].zero.stage3_gather_16bit_weights_on_model_save);
}

static void warnings(void **state)
{
    static const struct {
        const char *text, *warning; /* NULL: none */
    } cases[] = {
        {"{\n\"train_batch_size\": 1,\n\"gradient_cliping\": 1}",
         "ds.json:3: gradient_cliping: unknown key, ignored; did you mean"},
        {HEAD "\"my_own_thing\": 1}", "my_own_thing: unknown key, ignored\n"},
        {HEAD "\"sparse_gradients\": true}", "true is accepted and has no effect: gradients of embeddings"},
        {HEAD "\"sparse_gradients\": false}", NULL},
        {HEAD "\"wandb\": {\"enabled\": true}}", "wandb: a block is accepted and has no effect"},
        {HEAD "\"wandb\": {\"enabled\": false}}", NULL},
        {HEAD "\"elasticity\": {\"enabled\": false}}", NULL},
        {HEAD "\"amp\": {\"enabled\": \"false\"}}", NULL},
        {HEAD "\"zero_optimization\": {\"stage\": 2, \"offload_param\": {\"device\": \"cpu\"}}}",
         "no effect at stage 2"},
        {HEAD "\"activation_checkpointing\": {\"number_checkpoints\": 4}}", "--gradient-checkpointing"},
        {HEAD "\"tensorboard\": {\"output_path\": \"auto\"}}", NULL},
        {HEAD "\"zero_optimization\": {\"zero_hpz_partition_size\": 1, \"leaf_module\": null}}", NULL},
        {HEAD "\"zero_optimization\": {\"stage\": 2, \"zero_quantized_weights\": true}}",
         "zero_quantized_weights: no effect at stage 2: it needs stage 3"},
        {HEAD "\"bf16\": {\"bf16_master_weights_and_grads\": true, \"bf16_optimizer_states\": true}}",
         "bf16_master_weights_and_grads: no effect: bf16 is not enabled"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mz_config c;
        char log[2048];
        mz_config_defaults flags;
        mz_config_defaults_init(&flags);
        assert_int_equal(load_text("ds.json", cases[i].text, &flags, 1, &c, log, sizeof log), MZ_OK);
        if (cases[i].warning ? !strstr(log, cases[i].warning) : *log != '\0')
            print_error("case %zu: expected %s, logged %s\n", i, cases[i].warning ? cases[i].warning : "nothing",
                        log);
        assert_true(cases[i].warning ? strstr(log, cases[i].warning) != NULL : *log == '\0');
    }
}

static void offload_and_zeropp(void **state)
{
    mz_config c;
    (void)state;
    assert_int_equal(
        load("{\"train_batch_size\": 4, \"zero_optimization\": {\"stage\": 3, \"zero_hpz_partition_size\": 2,"
             "\"zero_quantized_weights\": true, \"mics_shard_size\": 4,"
             "\"offload_param\": {\"device\": \"nvme\", \"nvme_path\": \"/local\", \"buffer_count\": 6, "
             "\"pin_memory\": false},"
             "\"offload_optimizer\": {\"device\": \"cpu\", \"pipeline_read\": true, \"ratio\": 0.5}}}",
             NULL, 4, &c),
        MZ_OK);
    assert_int_equal(c.zero.offload_param.device, MZ_OFFLOAD_NVME);
    assert_string_equal(c.zero.offload_param.nvme_path, "/local");
    assert_int_equal(c.zero.offload_param.buffer_count, 6);
    assert_false(c.zero.offload_param.pin_memory);
    assert_int_equal(c.zero.offload_optimizer.device, MZ_OFFLOAD_CPU);
    assert_int_equal(c.zero.offload_optimizer.buffer_count, 4);
    assert_true(c.zero.offload_optimizer.pipeline_read && c.zero.offload_optimizer.ratio == 0.5);
    assert_true(c.zero.zero_hpz_partition_size == 2 && c.zero.mics_shard_size == 4 &&
                c.zero.zero_quantized_weights);
}

static const char accelerate[] = "compute_environment: LOCAL_MACHINE\n"
                                 "debug: false\n"
                                 "deepspeed_config:\n"
                                 "  deepspeed_multinode_launcher: standard\n"
                                 "  gradient_accumulation_steps: 4\n"
                                 "  gradient_clipping: 0.5\n"
                                 "  offload_optimizer_device: cpu\n"
                                 "  offload_optimizer_nvme_path: none\n"
                                 "  offload_param_device: none\n"
                                 "  zero3_init_flag: true\n"
                                 "  zero3_save_16bit_model: true\n"
                                 "  zero_stage: 3\n"
                                 "distributed_type: DEEPSPEED\n"
                                 "downcast_bf16: 'no'\n"
                                 "mixed_precision: bf16\n"
                                 "num_machines: 2\n"
                                 "num_processes: 8\n"
                                 "use_cpu: false\n";

static void accelerate_file(void **state)
{
    mz_config c;
    mz_config_defaults flags;
    char log[2048];
    (void)state;
    mz_config_defaults_init(&flags);
    flags.micro_batch_size = 2;
    assert_int_equal(load_text("accelerate.yml", accelerate, &flags, 3, &c, log, sizeof log), MZ_OK);
    assert_int_equal(c.zero.stage, 3);
    assert_int_equal(c.train_batch_size, 24);
    assert_true(c.gradient_clipping == 0.5);
    assert_int_equal(c.zero.offload_optimizer.device, MZ_OFFLOAD_CPU);
    assert_int_equal(c.zero.offload_param.device, MZ_OFFLOAD_NONE);
    assert_true(c.zero.stage3_gather_16bit_weights_on_model_save);
    assert_int_equal(c.dtype, MZ_BF16);
    assert_non_null(strstr(log, "launcher"));
    assert_int_equal(
        load_text("a.yaml", "distributed_type: MULTI_GPU\nmixed_precision: no\n", &flags, 2, &c, log, sizeof log),
        MZ_OK);
    assert_true(c.zero.stage == 0 && c.dtype == MZ_F32);
    assert_int_equal(
        load_text("a.yaml", "deepspeed_config: {gradient_clipping: 2}\n", &flags, 2, &c, log, sizeof log), MZ_OK);
    assert_int_equal(c.zero.stage, 2);
}

/* The JSON file lies beside the YAML file that names it. */
static void accelerate_with_json(void **state)
{
    char folder[] = "/tmp/mpizero-config-XXXXXX", yaml[256], json[256];
    mz_config c;
    mz_config_defaults flags;
    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(yaml, sizeof yaml, "%s/a.yaml", folder);
    snprintf(json, sizeof json, "%s/zero.json", folder);
    FILE *file = fopen(yaml, "w");
    fputs("deepspeed_config:\n  deepspeed_config_file: zero.json\n  zero3_init_flag: true\nmixed_precision: bf16\n",
          file);
    fclose(file);
    file = fopen(json, "w");
    fputs("{\n\"train_batch_size\": 2,\n\"bf16\": {\"enabled\": \"auto\"},\n\"zero_optimization\": {\"stage\": 1}}",
          file);
    fclose(file);
    mz_config_defaults_init(&flags);
    assert_int_equal(mz_config_load(yaml, &flags, 1, &c), MZ_OK);
    assert_true(c.zero.stage == 1 && c.dtype == MZ_BF16 && c.train_batch_size == 2);
    flags.zero_stage = 2;
    assert_int_equal(mz_config_load(yaml, &flags, 1, &c), MZ_ERR_CONFIG);
    assert_non_null(strstr(mz_last_error(), "zero.json:4: zero_optimization.stage"));
    remove(yaml);
    remove(json);
    rmdir(folder);
}

/* The resolved configuration as a file resolves to itself. */
static void round_trip(void **state)
{
    static const char *const texts[] = {
        HEAD "\"scheduler\": {\"type\": \"WarmupDecayLR\", \"params\": {\"warmup_max_lr\": \"auto\", "
             "\"total_num_steps\": 9}}}",
        HEAD "\"gradient_allreduce_op\": \"sum\", \"communication_data_type\": \"bf16\", \"steps_per_print\": 5}",
        HEAD "\"bf16\": {\"enabled\": true}, \"data_types\": {\"grad_accum_dtype\": \"fp32\"}, \"optimizer\": "
             "{\"type\": \"Adam\","
             "\"params\": {\"adam_w_mode\": false, \"lr\": 0.1}}, \"tensorboard\": {\"enabled\": true, "
             "\"output_path\": \"a \\\"b\\\"\"}}",
        HEAD "\"optimizer\": {\"type\": \"SGD\", \"params\": {\"momentum\": 0.7}}, \"scheduler\": {\"type\": "
             "\"LRRangeTest\"}}",
        HEAD
        "\"scheduler\": {\"type\": \"OneCycle\", \"params\": {\"cycle_min_lr\": 1e-4, \"cycle_max_lr\": 1e-3}},"
        "\"zero_optimization\": {\"stage\": 3, \"offload_param\": {\"device\": \"cpu\"}}, \"checkpoint\": "
        "{\"tag_validation\": \"FAIL\"}}",
        HEAD "\"scheduler\": {\"type\": \"WarmupCosineLR\", \"params\": {\"total_num_steps\": \"auto\", "
             "\"warmup_type\": \"linear\"}},"
             "\"fp16\": {\"enabled\": true, \"loss_scale\": 128}, \"mpizero\": {\"seed\": 7, "
             "\"activation_checkpointing_every\": 2}}",
    };
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        mz_config first, second;
        assert_int_equal(load(texts[i], NULL, 1, &first), MZ_OK);
        char *text = mz_config_to_json(&first);
        assert_non_null(text);
        assert_int_equal(load(text, NULL, 1, &second), MZ_OK);
        char *again = mz_config_to_json(&second);
        assert_string_equal(text, again);
        free(text);
        free(again);
        assert_int_equal(memcmp(&first.zero, &second.zero, sizeof first.zero), 0);
        assert_int_equal(first.scheduler.kind, second.scheduler.kind);
        assert_int_equal(first.communication_data_type, second.communication_data_type);
        assert_int_equal(first.dtype, second.dtype);
    }
}

/* Each allocation fails once: an error, no crash, no leak. */
static void allocation_failures(void **state)
{
    mz_config c;
    char log[2048];
    (void)state;
    mz_config_defaults none, flags = blog_flags();
    mz_config_defaults_init(&none);
    for (int form = 0; form < 2; form++) {
        mz_status status = MZ_ERR_MEMORY;
        for (long n = 1; status != MZ_OK && n < 500; n++) {
            mz_memory_fail_at(n);
            status = form == 0 ? load_text("ds.json", blog, &flags, 1, &c, log, sizeof log)
                               : load_text("a.yaml", accelerate, &none, 1, &c, log, sizeof log);
            mz_memory_fail_at(0);
            assert_true(status == MZ_OK || status == MZ_ERR_MEMORY);
        }
        assert_int_equal(status, MZ_OK);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(automatic_values),
        cmocka_unit_test(automatic_without_flags),
        cmocka_unit_test(total_steps_left_out),
        cmocka_unit_test(no_file),
        cmocka_unit_test(batch_arithmetic),
        cmocka_unit_test(optimizers),
        cmocka_unit_test(without_masters),
        cmocka_unit_test(deprecated_names),
        cmocka_unit_test(warnings),
        cmocka_unit_test(offload_and_zeropp),
        cmocka_unit_test(accelerate_file),
        cmocka_unit_test(accelerate_with_json),
        cmocka_unit_test(round_trip),
        cmocka_unit_test(allocation_failures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
