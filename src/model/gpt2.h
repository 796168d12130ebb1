/* GPT-2 (Radford et al. 2019) exactly as transformers' GPT2LMHeadModel computes it: settings from its config.json
 * and the forward functions of its units. */
#ifndef MZ_MODEL_GPT2_H
#define MZ_MODEL_GPT2_H

#include "core/json.h"
#include "mpizero/model.h"

typedef struct mz_gpt2_config {
    int64_t vocab, n_positions, n_embd, n_layer, n_head, n_inner;
    mz_activation activation;
    double resid_pdrop, embd_pdrop, attn_pdrop;
    double layer_norm_epsilon, initializer_range;
    bool scale_attn_weights, scale_attn_by_inverse_layer_idx, tie_word_embeddings;
    int64_t bos_id, eos_id, pad_id; /* -1: none */
} mz_gpt2_config;

/* Errors: MZ_ERR_MODEL for values that make no sense, MZ_ERR_UNSUPPORTED for settings not built here; both name the
 * key. */
mz_status mz_gpt2_config_read(const mz_json *json, mz_gpt2_config *config);

/* What each unit carries as its own settings. */
typedef struct mz_gpt2_embedding {
    float dropout;
} mz_gpt2_embedding;

typedef struct mz_gpt2_block {
    int layer;
    int64_t heads;
    mz_activation activation;
    float eps, scale, attn_dropout, resid_dropout;
} mz_gpt2_block;

typedef struct mz_gpt2_head {
    float eps;
    bool tied;
} mz_gpt2_head;

/* Parameters of a block, in order. */
enum {
    MZ_GPT2_LN_1_WEIGHT,
    MZ_GPT2_LN_1_BIAS,
    MZ_GPT2_ATTN_WEIGHT,
    MZ_GPT2_ATTN_BIAS,
    MZ_GPT2_ATTN_PROJ_WEIGHT,
    MZ_GPT2_ATTN_PROJ_BIAS,
    MZ_GPT2_LN_2_WEIGHT,
    MZ_GPT2_LN_2_BIAS,
    MZ_GPT2_FC_WEIGHT,
    MZ_GPT2_FC_BIAS,
    MZ_GPT2_MLP_PROJ_WEIGHT,
    MZ_GPT2_MLP_PROJ_BIAS,
    MZ_GPT2_BLOCK_PARAMS
};
/* Of the embedding unit, and of the head. */
enum { MZ_GPT2_WTE, MZ_GPT2_WPE, MZ_GPT2_EMBEDDING_PARAMS };
enum { MZ_GPT2_LN_F_WEIGHT, MZ_GPT2_LN_F_BIAS, MZ_GPT2_LM_HEAD, MZ_GPT2_HEAD_PARAMS };

mz_status mz_gpt2_embedding_forward(const mz_unit_call *call);
mz_status mz_gpt2_block_forward(const mz_unit_call *call);
mz_status mz_gpt2_head_forward(const mz_unit_call *call);

#endif
