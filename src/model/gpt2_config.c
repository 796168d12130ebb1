#include "model/gpt2.h"

#include <inttypes.h>
#include <string.h>

#include "model/hf.h"

#define MAX_SIZE ((int64_t)1 << 31)

/* A size under GPT-2's own name or the one that transformers maps to it; both may stand there. */
typedef struct size_key {
    const char *key, *other;
    size_t offset;
} size_key;

static mz_status read_sizes(const mz_json *json, mz_gpt2_config *config)
{
    static const size_key keys[] = {
        {"vocab_size", NULL, offsetof(mz_gpt2_config, vocab)},
        {"n_positions", "max_position_embeddings", offsetof(mz_gpt2_config, n_positions)},
        {"n_embd", "hidden_size", offsetof(mz_gpt2_config, n_embd)},
        {"n_layer", "num_hidden_layers", offsetof(mz_gpt2_config, n_layer)},
        {"n_head", "num_attention_heads", offsetof(mz_gpt2_config, n_head)},
        {"n_inner", NULL, offsetof(mz_gpt2_config, n_inner)},
    };
    mz_status status = MZ_OK;
    for (size_t i = 0; i < sizeof keys / sizeof keys[0] && status == MZ_OK; i++) {
        int64_t *value = (int64_t *)((char *)config + keys[i].offset);
        if (keys[i].other)
            status = mz_hf_int(json, keys[i].other, 1, MAX_SIZE, value);
        if (status == MZ_OK)
            status = mz_hf_int(json, keys[i].key, 1, MAX_SIZE, value);
    }
    if (status != MZ_OK)
        return status;
    if (config->n_embd % config->n_head != 0)
        return mz_hf_fail(json, MZ_ERR_MODEL, "n_head",
                          "expected a divisor of n_embd (%" PRId64 "), found %" PRId64, config->n_embd,
                          config->n_head);
    if (config->n_inner == 0)
        config->n_inner = 4 * config->n_embd;
    return MZ_OK;
}

static mz_status read_activation(const mz_json *json, mz_activation *activation)
{
    static const struct {
        const char *name;
        mz_activation activation;
    } known[] = {
        {"gelu_new", MZ_ACT_GELU_TANH},
        {"gelu_pytorch_tanh", MZ_ACT_GELU_TANH},
        {"gelu_fast", MZ_ACT_GELU_TANH},
        {"gelu", MZ_ACT_GELU_ERF},
        {"gelu_python", MZ_ACT_GELU_ERF},
        {"relu", MZ_ACT_RELU},
        {"silu", MZ_ACT_SILU},
        {"swish", MZ_ACT_SILU},
        {"tanh", MZ_ACT_TANH},
        {"sigmoid", MZ_ACT_SIGMOID},
        {"linear", MZ_ACT_NONE},
    };
    const char *name = "gelu_new";
    mz_status status = mz_hf_string(json, "activation_function", &name);
    if (status != MZ_OK)
        return status;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(known[i].name, name) == 0) {
            *activation = known[i].activation;
            return MZ_OK;
        }
    }
    return mz_hf_fail(
        json, MZ_ERR_UNSUPPORTED, "activation_function",
        "\"%.60s\" is not supported; \"gelu_new\", \"gelu\", \"gelu_pytorch_tanh\", \"relu\", \"silu\", "
        "\"tanh\", \"sigmoid\" and \"linear\" are",
        name);
}

static mz_status read_numbers(const mz_json *json, mz_gpt2_config *config)
{
    static const struct {
        const char *key;
        double max;
        size_t offset;
    } keys[] = {
        {"resid_pdrop", 0.999, offsetof(mz_gpt2_config, resid_pdrop)},
        {"embd_pdrop", 0.999, offsetof(mz_gpt2_config, embd_pdrop)},
        {"attn_pdrop", 0.999, offsetof(mz_gpt2_config, attn_pdrop)},
        {"layer_norm_epsilon", 1.0, offsetof(mz_gpt2_config, layer_norm_epsilon)},
        {"initializer_range", 100.0, offsetof(mz_gpt2_config, initializer_range)},
    };
    mz_status status = MZ_OK;
    for (size_t i = 0; i < sizeof keys / sizeof keys[0] && status == MZ_OK; i++)
        status = mz_hf_float(json, keys[i].key, 0.0, keys[i].max, (double *)((char *)config + keys[i].offset));
    return status;
}

static mz_status read_token(const mz_json *json, const char *key, int64_t *value)
{
    if (json_is_array(json_object_get(json->root, key)))
        return MZ_OK; /* several ends: a matter for generation's own settings */
    return mz_hf_int(json, key, -1, MAX_SIZE, value);
}

/* Settings whose other values would be another model. */
static mz_status refuse_unsupported(const mz_json *json)
{
    mz_status status = mz_hf_bool_only(json, "add_cross_attention", false);
    if (status != MZ_OK)
        return status;
    if (json_object_size(json_object_get(json->root, "pruned_heads")) > 0)
        return mz_hf_fail(json, MZ_ERR_UNSUPPORTED, "pruned_heads", "pruned heads are not supported");
    if (json_object_size(json_object_get(json->root, "quantization_config")) > 0)
        return mz_hf_fail(json, MZ_ERR_UNSUPPORTED, "quantization_config",
                          "quantised weights are not supported; use the model's 16-bit or fp32 weights");
    const json_t *architectures = json_object_get(json->root, "architectures");
    const char *name = json_string_value(json_array_get(architectures, 0));
    if (name && strcmp(name, "GPT2LMHeadModel") != 0 && strcmp(name, "GPT2Model") != 0)
        return mz_hf_fail(json, MZ_ERR_UNSUPPORTED, "architectures",
                          "expected \"GPT2LMHeadModel\" or \"GPT2Model\", found \"%.60s\"", name);
    return MZ_OK;
}

mz_status mz_gpt2_config_read(const mz_json *json, mz_gpt2_config *config)
{
    *config = (mz_gpt2_config){.vocab = 50257,
                               .n_positions = 1024,
                               .n_embd = 768,
                               .n_layer = 12,
                               .n_head = 12,
                               .activation = MZ_ACT_GELU_TANH,
                               .resid_pdrop = 0.1,
                               .embd_pdrop = 0.1,
                               .attn_pdrop = 0.1,
                               .layer_norm_epsilon = 1e-5,
                               .initializer_range = 0.02,
                               .scale_attn_weights = true,
                               .tie_word_embeddings = true,
                               .bos_id = 50256,
                               .eos_id = 50256,
                               .pad_id = -1};
    mz_status status = refuse_unsupported(json);
    if (status == MZ_OK)
        status = read_sizes(json, config);
    if (status == MZ_OK)
        status = read_activation(json, &config->activation);
    if (status == MZ_OK)
        status = read_numbers(json, config);
    if (status == MZ_OK)
        status = mz_hf_bool(json, "scale_attn_weights", &config->scale_attn_weights);
    if (status == MZ_OK)
        status = mz_hf_bool(json, "scale_attn_by_inverse_layer_idx", &config->scale_attn_by_inverse_layer_idx);
    if (status == MZ_OK)
        status = mz_hf_bool(json, "tie_word_embeddings", &config->tie_word_embeddings);
    if (status == MZ_OK)
        status = read_token(json, "bos_token_id", &config->bos_id);
    if (status == MZ_OK)
        status = read_token(json, "eos_token_id", &config->eos_id);
    if (status == MZ_OK)
        status = read_token(json, "pad_token_id", &config->pad_id);
    return status;
}
