#include "model/gpt2.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/memory.h"
#include "model/hf.h"
#include "model/model.h"

#define PREFIX "transformer."

/* ---- units ---- */

static mz_param_spec matrix(const char *name, int64_t rows, int64_t cols, double deviation)
{
    return (mz_param_spec){
        .name = name, .n_dims = 2, .shape = {rows, cols}, .init = MZ_INIT_NORMAL, .init_scale = (float)deviation};
}

static mz_param_spec vector(const char *name, int64_t n, mz_init_kind init)
{
    return (mz_param_spec){.name = name, .n_dims = 1, .shape = {n}, .init = init};
}

static mz_status add_embedding(mz_model *model, const mz_gpt2_config *c)
{
    const mz_gpt2_embedding self = {.dropout = (float)c->embd_pdrop};
    const mz_param_spec params[MZ_GPT2_EMBEDDING_PARAMS] = {
        [MZ_GPT2_WTE] = matrix(PREFIX "wte.weight", c->vocab, c->n_embd, c->initializer_range),
        [MZ_GPT2_WPE] = matrix(PREFIX "wpe.weight", c->n_positions, c->n_embd, c->initializer_range),
    };
    return mz_model_add_unit(model, &(mz_unit_spec){.name = PREFIX "wte_wpe",
                                                    .params = params,
                                                    .n_params = MZ_GPT2_EMBEDDING_PARAMS,
                                                    .forward = mz_gpt2_embedding_forward,
                                                    .self = &self,
                                                    .self_bytes = sizeof self,
                                                    .replayable = true});
}

/* The projections back into the residual stream start smaller, by the number of additions to it. */
static void block_params(const mz_gpt2_config *c, mz_param_spec params[MZ_GPT2_BLOCK_PARAMS])
{
    int64_t d = c->n_embd, inner = c->n_inner;
    double deviation = c->initializer_range, projected = deviation / sqrt(2.0 * (double)c->n_layer);
    params[MZ_GPT2_LN_1_WEIGHT] = vector("ln_1.weight", d, MZ_INIT_ONES);
    params[MZ_GPT2_LN_1_BIAS] = vector("ln_1.bias", d, MZ_INIT_ZEROS);
    params[MZ_GPT2_ATTN_WEIGHT] = matrix("attn.c_attn.weight", d, 3 * d, deviation);
    params[MZ_GPT2_ATTN_BIAS] = vector("attn.c_attn.bias", 3 * d, MZ_INIT_ZEROS);
    params[MZ_GPT2_ATTN_PROJ_WEIGHT] = matrix("attn.c_proj.weight", d, d, projected);
    params[MZ_GPT2_ATTN_PROJ_BIAS] = vector("attn.c_proj.bias", d, MZ_INIT_ZEROS);
    params[MZ_GPT2_LN_2_WEIGHT] = vector("ln_2.weight", d, MZ_INIT_ONES);
    params[MZ_GPT2_LN_2_BIAS] = vector("ln_2.bias", d, MZ_INIT_ZEROS);
    params[MZ_GPT2_FC_WEIGHT] = matrix("mlp.c_fc.weight", d, inner, deviation);
    params[MZ_GPT2_FC_BIAS] = vector("mlp.c_fc.bias", inner, MZ_INIT_ZEROS);
    params[MZ_GPT2_MLP_PROJ_WEIGHT] = matrix("mlp.c_proj.weight", inner, d, projected);
    params[MZ_GPT2_MLP_PROJ_BIAS] = vector("mlp.c_proj.bias", d, MZ_INIT_ZEROS);
}

static mz_status add_block(mz_model *model, const mz_gpt2_config *c, int layer)
{
    mz_param_spec params[MZ_GPT2_BLOCK_PARAMS];
    char unit[40], names[MZ_GPT2_BLOCK_PARAMS][64];
    double scale = c->scale_attn_weights ? 1.0 / sqrt((double)(c->n_embd / c->n_head)) : 1.0;
    if (c->scale_attn_by_inverse_layer_idx)
        scale /= layer + 1;
    const mz_gpt2_block self = {.layer = layer,
                                .heads = c->n_head,
                                .activation = c->activation,
                                .eps = (float)c->layer_norm_epsilon,
                                .scale = (float)scale,
                                .attn_dropout = (float)c->attn_pdrop,
                                .resid_dropout = (float)c->resid_pdrop};
    snprintf(unit, sizeof unit, PREFIX "h.%d", layer);
    block_params(c, params);
    for (int i = 0; i < MZ_GPT2_BLOCK_PARAMS; i++) {
        snprintf(names[i], sizeof names[i], "%s.%s", unit, params[i].name);
        params[i].name = names[i];
    }
    return mz_model_add_unit(model, &(mz_unit_spec){.name = unit,
                                                    .params = params,
                                                    .n_params = MZ_GPT2_BLOCK_PARAMS,
                                                    .forward = mz_gpt2_block_forward,
                                                    .self = &self,
                                                    .self_bytes = sizeof self,
                                                    .recomputable = true,
                                                    .replayable = true});
}

static mz_status add_head(mz_model *model, const mz_gpt2_config *c)
{
    static const char *const tied_to[] = {PREFIX "wte.weight"};
    const mz_gpt2_head self = {.eps = (float)c->layer_norm_epsilon, .tied = c->tie_word_embeddings};
    const mz_param_spec params[MZ_GPT2_HEAD_PARAMS] = {
        [MZ_GPT2_LN_F_WEIGHT] = vector(PREFIX "ln_f.weight", c->n_embd, MZ_INIT_ONES),
        [MZ_GPT2_LN_F_BIAS] = vector(PREFIX "ln_f.bias", c->n_embd, MZ_INIT_ZEROS),
        [MZ_GPT2_LM_HEAD] = matrix("lm_head.weight", c->vocab, c->n_embd, c->initializer_range),
    };
    return mz_model_add_unit(model, &(mz_unit_spec){.name = "lm_head",
                                                    .params = params,
                                                    .n_params = self.tied ? MZ_GPT2_LM_HEAD : MZ_GPT2_HEAD_PARAMS,
                                                    .uses = tied_to,
                                                    .n_uses = self.tied ? 1 : 0,
                                                    .forward = mz_gpt2_head_forward,
                                                    .self = &self,
                                                    .self_bytes = sizeof self,
                                                    .replayable = true});
}

/* ---- model ---- */

/* config.json as it is to be written: what is loaded and saved here is the model with its head. */
static char *config_text(const mz_json *json)
{
    json_t *config = json_copy(json->root);
    json_t *architectures = json_pack("[s]", "GPT2LMHeadModel");
    char *text = NULL;
    if (config && architectures && json_object_set(config, "architectures", architectures) == 0)
        text = json_dumps(config, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
    json_decref(architectures);
    json_decref(config);
    return text;
}

static mz_status set_info(mz_model *model, const mz_gpt2_config *c, const mz_json *json)
{
    char *text = config_text(json);
    if (!text)
        return mz_fail(MZ_ERR_MEMORY, "%s: no memory for a copy of the configuration", json->name);
    mz_status status = mz_model_set_info(model, &(mz_model_info){.family = mz_family_gpt2.model_type,
                                                                 .config_json = text,
                                                                 .vocab = c->vocab,
                                                                 .max_positions = c->n_positions,
                                                                 .hidden = c->n_embd,
                                                                 .layers = c->n_layer,
                                                                 .heads = c->n_head,
                                                                 .head_size = c->n_embd / c->n_head,
                                                                 .bos_id = (int32_t)c->bos_id,
                                                                 .eos_id = (int32_t)c->eos_id,
                                                                 .pad_id = (int32_t)c->pad_id});
    free(text);
    return status;
}

static mz_status build(const mz_json *json, mz_model **out)
{
    mz_gpt2_config config;
    mz_model *model = NULL;
    mz_status status = mz_gpt2_config_read(json, &config);
    if (status == MZ_OK)
        status = mz_model_create(mz_family_gpt2.model_type, &model);
    if (status == MZ_OK)
        status = set_info(model, &config, json);
    if (status == MZ_OK)
        status = add_embedding(model, &config);
    for (int layer = 0; layer < config.n_layer && status == MZ_OK; layer++)
        status = add_block(model, &config, layer);
    if (status == MZ_OK)
        status = add_head(model, &config);
    if (status != MZ_OK) {
        mz_model_destroy(model);
        return status;
    }
    *out = model;
    return MZ_OK;
}

/* ---- weights ---- */

/* Files of GPT2Model, such as OpenAI's, leave the prefix out. A tied weight may stand under its other name. */
static int weight_aliases(const mz_model *model, const char *name, const char *aliases[MZ_MAX_WEIGHT_ALIASES])
{
    int n = 0, index;
    if (strncmp(name, PREFIX, strlen(PREFIX)) == 0)
        aliases[n++] = name + strlen(PREFIX);
    if (strcmp(name, PREFIX "wte.weight") == 0 && mz_model_find_param(model, "lm_head.weight", &index) < 0)
        aliases[n++] = "lm_head.weight";
    return n;
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* Causal masks that were saved as buffers, and the tied head. */
static bool weight_ignored(const mz_model *model, const char *file_name)
{
    int index;
    if (ends_with(file_name, ".attn.bias") || ends_with(file_name, ".attn.masked_bias"))
        return true;
    return strcmp(file_name, "lm_head.weight") == 0 && mz_model_find_param(model, file_name, &index) < 0;
}

const mz_model_family mz_family_gpt2 = {
    .model_type = "gpt2",
    .build = build,
    .weight_aliases = weight_aliases,
    .weight_ignored = weight_ignored,
};
