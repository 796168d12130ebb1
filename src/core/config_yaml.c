/* An Accelerate configuration (the YAML file that `accelerate config` writes), translated into DeepSpeed's
 * form. Lines are kept, so that messages name the YAML file's own keys. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <yaml.h>

#include "core/config_internal.h"
#include "core/error.h"
#include "core/file.h"
#include "core/log.h"
#include "core/memory.h"
#include "core/nearest.h"

#define BLOCK "deepspeed_config"

typedef enum use { TO_KEY, LAUNCHER, SPECIAL, UNUSED } use;

/* Keys of the file. */
static const struct yaml_key {
    const char *name; /* dotted */
    use use;
    const char *path; /* TO_KEY: in DeepSpeed's form; UNUSED: why */
} yaml_keys[] = {
    {"compute_environment", UNUSED, NULL},
    {"debug", UNUSED, NULL},
    {"distributed_type", SPECIAL, NULL},
    {"downcast_bf16", UNUSED, NULL},
    {"dynamo_config", UNUSED, "kernels are compiled ahead of time"},
    {"enable_cpu_affinity", LAUNCHER, NULL},
    {"fsdp_config", UNUSED, "sharding is set in " BLOCK},
    {"gpu_ids", LAUNCHER, NULL},
    {"machine_rank", LAUNCHER, NULL},
    {"main_process_ip", LAUNCHER, NULL},
    {"main_process_port", LAUNCHER, NULL},
    {"main_training_function", UNUSED, NULL},
    {"megatron_lm_config", UNUSED, "sharding is set in " BLOCK},
    {"mixed_precision", SPECIAL, NULL},
    {"mpirun_config", LAUNCHER, NULL},
    {"num_machines", LAUNCHER, NULL},
    {"num_processes", LAUNCHER, NULL},
    {"parallelism_config", UNUSED, "sharding is set in " BLOCK},
    {"rdzv_backend", LAUNCHER, NULL},
    {"same_network", LAUNCHER, NULL},
    {"tpu_env", UNUSED, NULL},
    {"tpu_use_cluster", UNUSED, NULL},
    {"tpu_use_sudo", UNUSED, NULL},
    {"use_cpu", UNUSED, "--device says where to train"},
    {BLOCK, SPECIAL, NULL},
    {BLOCK ".deepspeed_config_file", SPECIAL, NULL},
    {BLOCK ".deepspeed_exclusion_filter", LAUNCHER, NULL},
    {BLOCK ".deepspeed_hostfile", LAUNCHER, NULL},
    {BLOCK ".deepspeed_inclusion_filter", LAUNCHER, NULL},
    {BLOCK ".deepspeed_moe_layer_cls_names", UNUSED, "parameters are gathered by unit"},
    {BLOCK ".deepspeed_multinode_launcher", LAUNCHER, NULL},
    {BLOCK ".gradient_accumulation_steps", TO_KEY, "gradient_accumulation_steps"},
    {BLOCK ".gradient_clipping", TO_KEY, "gradient_clipping"},
    {BLOCK ".offload_optimizer_device", TO_KEY, "zero_optimization.offload_optimizer.device"},
    {BLOCK ".offload_optimizer_nvme_path", TO_KEY, "zero_optimization.offload_optimizer.nvme_path"},
    {BLOCK ".offload_param_device", TO_KEY, "zero_optimization.offload_param.device"},
    {BLOCK ".offload_param_nvme_path", TO_KEY, "zero_optimization.offload_param.nvme_path"},
    {BLOCK ".zero3_init_flag", UNUSED, NULL},
    {BLOCK ".zero3_save_16bit_model", TO_KEY, "zero_optimization.stage3_gather_16bit_weights_on_model_save"},
    {BLOCK ".zero_stage", TO_KEY, "zero_optimization.stage"},
};
enum { N_YAML_KEYS = sizeof yaml_keys / sizeof yaml_keys[0] };

typedef struct translation {
    const char *name; /* of the file */
    yaml_document_t document;
    mz_config_source *source;
    char *config_file;     /* deepspeed_config_file; NULL: none */
    const char *first_key; /* the first TO_KEY entry, and its line */
    int first_key_line;
    bool launcher_noted;
} translation;

static mz_status fail_at(const translation *t, int line, const char *key, const char *text)
{
    return mz_fail(MZ_ERR_CONFIG, "%s:%d: %s: %s", t->name, line, key, text);
}

/* A scalar's value: plain ones are typed as YAML does, quoted ones are strings. */
static json_t *scalar_value(const yaml_node_t *node)
{
    const char *text = (const char *)node->data.scalar.value;
    if (node->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
        return json_string(text);
    if (*text == '\0' || strcmp(text, "~") == 0 || strcasecmp(text, "null") == 0)
        return json_null();
    if (strcasecmp(text, "true") == 0 || strcasecmp(text, "yes") == 0 || strcasecmp(text, "on") == 0)
        return json_true();
    if (strcasecmp(text, "false") == 0 || strcasecmp(text, "no") == 0 || strcasecmp(text, "off") == 0)
        return json_false();
    char *end;
    long long integer = strtoll(text, &end, 10);
    if (*end == '\0')
        return json_integer(integer);
    double real = strtod(text, &end);
    return *end == '\0' && isfinite(real) ? json_real(real) : json_string(text);
}

static mz_status add_line(translation *t, const char *path, const char *shown, int line)
{
    mz_config_source *source = t->source;
    mz_config_line *lines = mz_realloc(source->lines, (size_t)(source->n_lines + 1) * sizeof *lines);
    if (!lines)
        return MZ_ERR_MEMORY;
    source->lines = lines;
    lines[source->n_lines] = (mz_config_line){.path = mz_strdup(path), .shown = mz_strdup(shown), .line = line};
    const mz_config_line *added = &lines[source->n_lines++];
    return added->path && added->shown ? MZ_OK : MZ_ERR_MEMORY;
}

static mz_status take_key(translation *t, const struct yaml_key *key, const yaml_node_t *node, int line)
{
    bool is_path = strstr(key->name, "_nvme_path") != NULL;
    const char *text = (const char *)node->data.scalar.value;
    if (node->type != YAML_SCALAR_NODE)
        return fail_at(t, line, key->name, "expected a single value, found a block or a list; correct it");
    if (is_path && strcasecmp(text, "none") == 0)
        return MZ_OK;
    if (!t->first_key) {
        t->first_key = key->name;
        t->first_key_line = line;
    }
    json_t *value = scalar_value(node);
    if (json_is_null(value)) {
        json_decref(value);
        return MZ_OK;
    }
    if (!mz_config_put(t->source->json.root, key->path, value))
        return mz_fail(MZ_ERR_MEMORY, "no memory for the configuration");
    return add_line(t, key->path, key->name, line);
}

/* Whether another distributed type can be trained as plain data parallelism. */
static mz_status check_type(const translation *t, const char *text, int line)
{
    if (mz_config_word_index("DEEPSPEED|NO|MULTI_GPU|MULTI_CPU", text) >= 0)
        return MZ_OK;
    return mz_fail(
        MZ_ERR_CONFIG,
        "%s:%d: distributed_type: expected DEEPSPEED, MULTI_GPU, MULTI_CPU or NO, found \"%s\"; use DEEPSPEED with "
        "a deepspeed_config block (zero_stage: 3 shards as FSDP does)",
        t->name, line, text);
}

static mz_status take_mapping(translation *t, const yaml_node_t *mapping, const char *prefix);

static mz_status take_special(translation *t, const struct yaml_key *key, yaml_node_t *node, int line)
{
    const char *text = node->type == YAML_SCALAR_NODE ? (const char *)node->data.scalar.value : "";
    if (strcmp(key->name, BLOCK) == 0) {
        if (node->type == YAML_MAPPING_NODE)
            return take_mapping(t, node, BLOCK ".");
        return *text == '\0' ? MZ_OK
                             : fail_at(t, line, BLOCK, "expected a block of keys, found a value; indent its keys");
    }
    if (node->type != YAML_SCALAR_NODE)
        return fail_at(t, line, key->name, "expected a single value, found a block or a list; correct it");
    if (strcmp(key->name, "distributed_type") == 0)
        return check_type(t, text, line);
    char **copy = strcmp(key->name, "mixed_precision") == 0 ? &t->source->mixed_precision : &t->config_file;
    if (copy == &t->source->mixed_precision) {
        if (strcasecmp(text, "false") == 0)
            text = "no"; /* what an unquoted no is to YAML */
        if (mz_config_word_index("no|fp16|bf16", text) < 0)
            return mz_fail(MZ_ERR_CONFIG,
                           "%s:%d: mixed_precision: expected no, fp16 or bf16, found \"%s\"; change it to one "
                           "of them",
                           t->name, line, text);
    }
    *copy = mz_strdup(text);
    return *copy ? MZ_OK : MZ_ERR_MEMORY;
}

static mz_status unknown(const translation *t, const char *name, const char *prefix, int line)
{
    mz_nearest nearest;
    size_t n = strlen(prefix);
    mz_nearest_init(&nearest, name + n);
    for (int i = 0; i < N_YAML_KEYS; i++)
        if (strncmp(yaml_keys[i].name, prefix, n) == 0 && !strchr(yaml_keys[i].name + n, '.'))
            mz_nearest_offer(&nearest, yaml_keys[i].name + n);
    char text[256];
    snprintf(text, sizeof text, "%s%s%s", nearest.best ? "; did you mean \"" : "", nearest.best ? nearest.best : "",
             nearest.best ? "\"?" : "");
    if (!*prefix)
        return mz_fail(MZ_ERR_CONFIG,
                       "%s:%d: %s: expected a key of Accelerate, found an unknown one%s Correct or remove it",
                       t->name, line, name, nearest.best ? text : ".");
    mz_warn_once(name, "%s:%d: %s: unknown key, ignored%s", t->name, line, name, text);
    return MZ_OK;
}

static mz_status take_pair(translation *t, const char *name, const char *prefix, yaml_node_t *node, int line)
{
    for (int i = 0; i < N_YAML_KEYS; i++) {
        const struct yaml_key *key = &yaml_keys[i];
        if (strcmp(key->name, name) != 0)
            continue;
        switch (key->use) {
        case TO_KEY:
            return take_key(t, key, node, line);
        case SPECIAL:
            return take_special(t, key, node, line);
        case LAUNCHER:
            if (!t->launcher_noted)
                mz_log_root(MZ_LOG_INFO, "%s:%d: %s and its like are decided by the job's launcher (srun, mpirun)",
                            t->name, line, name);
            t->launcher_noted = true;
            return MZ_OK;
        default:
            if (key->path && !(node->type == YAML_MAPPING_NODE &&
                               node->data.mapping.pairs.start == node->data.mapping.pairs.top))
                mz_warn_once(name, "%s:%d: %s is accepted and has no effect: %s", t->name, line, name, key->path);
            return MZ_OK;
        }
    }
    return unknown(t, name, prefix, line);
}

static bool appears_before(translation *t, const yaml_node_t *mapping, const yaml_node_pair_t *pair,
                           const char *key)
{
    for (const yaml_node_pair_t *p = mapping->data.mapping.pairs.start; p < pair; p++) {
        const yaml_node_t *other = yaml_document_get_node(&t->document, p->key);
        if (other->type == YAML_SCALAR_NODE && strcmp((const char *)other->data.scalar.value, key) == 0)
            return true;
    }
    return false;
}

static mz_status take_mapping(translation *t, const yaml_node_t *mapping, const char *prefix)
{
    for (yaml_node_pair_t *pair = mapping->data.mapping.pairs.start; pair < mapping->data.mapping.pairs.top;
         pair++) {
        const yaml_node_t *key = yaml_document_get_node(&t->document, pair->key);
        int line = (int)key->start_mark.line + 1;
        char name[256];
        if (key->type != YAML_SCALAR_NODE)
            return fail_at(t, line, "the file",
                           "expected a name before the colon, found a block or a list; correct it");
        snprintf(name, sizeof name, "%s%s", prefix, (const char *)key->data.scalar.value);
        if (appears_before(t, mapping, pair, (const char *)key->data.scalar.value))
            return fail_at(t, line, name, "expected each key once, found it a second time; remove one of them");
        mz_status status = take_pair(t, name, prefix, yaml_document_get_node(&t->document, pair->value), line);
        if (status != MZ_OK)
            return status;
    }
    return MZ_OK;
}

/* What Accelerate's plugin fills in where the file is silent. */
static mz_status add_automatic(translation *t, bool deepspeed)
{
    static const char *const keys[] = {"train_batch_size", "train_micro_batch_size_per_gpu",
                                       "gradient_accumulation_steps"};
    json_t *root = t->source->json.root;
    bool good = true;
    for (int i = 0; i < 3; i++)
        if (!json_object_get(root, keys[i]))
            good = good && mz_config_put(root, keys[i], json_string("auto"));
    if (deepspeed && !json_object_get(json_object_get(root, "zero_optimization"), "stage"))
        good = good && mz_config_put(root, "zero_optimization.stage", json_string("auto"));
    return good ? MZ_OK : mz_fail(MZ_ERR_MEMORY, "no memory for the configuration");
}

/* Reads the JSON file that the YAML file names, instead of the YAML file's own keys. */
static mz_status open_config_file(translation *t)
{
    if (t->first_key)
        return mz_fail(MZ_ERR_CONFIG,
                       "%s:%d: %s: expected no such key beside deepspeed_config_file, found one; set it in "
                       "%s instead",
                       t->name, t->first_key_line, t->first_key, t->config_file);
    const char *slash = strrchr(t->name, '/');
    char *path = NULL;
    if (slash && t->config_file[0] != '/') {
        path = mz_strprintf("%.*s/%s", (int)(slash - t->name), t->name, t->config_file);
        if (!path)
            return MZ_ERR_MEMORY;
    }
    char *precision = t->source->mixed_precision;
    t->source->mixed_precision = NULL;
    mz_config_source_close(t->source); /* the YAML file's tree and lines */
    t->source->mixed_precision = precision;
    mz_status status = mz_json_read(path ? path : t->config_file, &t->source->json);
    mz_free(path);
    return status;
}

static mz_status translate(translation *t)
{
    yaml_node_t *root = yaml_document_get_root_node(&t->document);
    if (!root || root->type != YAML_MAPPING_NODE)
        return mz_fail(MZ_ERR_CONFIG,
                       "%s:1: the file: expected lines of \"key: value\", found something else; see "
                       "docs/CONFIG.md",
                       t->name);
    t->source->json.root = json_object();
    t->source->json.name = mz_strdup(t->name);
    if (!t->source->json.root || !t->source->json.name || add_line(t, "", "", 0) != MZ_OK)
        return MZ_ERR_MEMORY;
    mz_status status = take_mapping(t, root, "");
    if (status != MZ_OK)
        return status;
    bool deepspeed = false;
    for (yaml_node_pair_t *pair = root->data.mapping.pairs.start; pair < root->data.mapping.pairs.top; pair++) {
        const yaml_node_t *key = yaml_document_get_node(&t->document, pair->key);
        deepspeed = deepspeed || strcmp((const char *)key->data.scalar.value, BLOCK) == 0;
    }
    if (t->config_file)
        return open_config_file(t);
    return add_automatic(t, deepspeed);
}

mz_status mz_config_yaml_open(const char *path, mz_config_source *source)
{
    char *text;
    size_t bytes;
    yaml_parser_t parser;
    translation t = {.name = path, .source = source};
    mz_status status = mz_file_read(path, &text, &bytes);
    if (status != MZ_OK)
        return status;
    if (!yaml_parser_initialize(&parser)) {
        mz_free(text);
        return mz_fail(MZ_ERR_MEMORY, "no memory to read %s", path);
    }
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, bytes);
    if (yaml_parser_load(&parser, &t.document)) {
        status = translate(&t);
        yaml_document_delete(&t.document);
    } else {
        status = mz_fail(MZ_ERR_CONFIG, "%s:%d: the file: expected YAML, found an error: %s; correct the line",
                         path, (int)parser.problem_mark.line + 1, parser.problem ? parser.problem : "unreadable");
    }
    yaml_parser_delete(&parser);
    mz_free(t.config_file);
    mz_free(text);
    return status;
}
