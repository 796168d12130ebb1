#include "model/gpt2.h"

#include "core/error.h"
#include "tensor/select.h"

/* Memory for one chunk of logits in the loss: as much as a block's inner layer, whose gradient will lie there in
 * the backward pass anyway, but not so little that the products get thin. */
#define MIN_LOGITS_BYTES ((size_t)64 << 20)
#define IGNORED_LABEL    (-100)

/* Takes the tensor that the unit before left. */
static mz_tensor *take_state(const mz_unit_call *call)
{
    mz_tensor *x = call->state[0];
    call->state[0] = NULL;
    return x;
}

/* ---- embedding ---- */

mz_status mz_gpt2_embedding_forward(const mz_unit_call *call)
{
    const mz_gpt2_embedding *self = call->self;
    mz_tensor *ids = call->inputs[MZ_INPUT_IDS], *x;
    if (!ids || mz_tensor_n_dims(ids) != 2)
        return mz_fail(MZ_ERR_ARGUMENT, "gpt2: expected token ids [B, T] in the batch");
    mz_status status = mz_embedding(call->tape, ids, call->params[MZ_GPT2_WTE], call->params[MZ_GPT2_WPE],
                                    call->inputs[MZ_INPUT_POSITIONS], call->position_offset, &x);
    if (status != MZ_OK)
        return status;
    status = mz_dropout_op(call->tape, x, self->dropout, NULL, &call->state[0]);
    mz_tensor_release(x);
    return status;
}

/* ---- block ---- */

/* h = ln_1(x); *y = c_proj(attention(c_attn(h))) */
static mz_status attention(const mz_unit_call *call, mz_tensor *x, mz_tensor **y)
{
    const mz_gpt2_block *self = call->self;
    mz_tape *tape = call->tape;
    mz_param *const *p = call->params;
    mz_tensor *h = NULL, *qkv = NULL, *o = NULL;
    const mz_attention_options options = {.heads = self->heads,
                                          .scale = self->scale,
                                          .causal = true,
                                          .dropout = self->attn_dropout,
                                          .key_mask = call->inputs[MZ_INPUT_MASK],
                                          .cache = call->cache,
                                          .layer = self->layer};
    mz_status status =
        mz_layer_norm(tape, x, NULL, p[MZ_GPT2_LN_1_WEIGHT], p[MZ_GPT2_LN_1_BIAS], self->eps, NULL, &h);
    if (status == MZ_OK)
        status =
            mz_linear(tape, h, p[MZ_GPT2_ATTN_WEIGHT], p[MZ_GPT2_ATTN_BIAS], MZ_WEIGHT_IN_OUT, MZ_ACT_NONE, &qkv);
    mz_tensor_release(h);
    if (status == MZ_OK)
        status = mz_attention_fused(tape, qkv, &options, &o);
    mz_tensor_release(qkv);
    if (status == MZ_OK)
        status = mz_linear(tape, o, p[MZ_GPT2_ATTN_PROJ_WEIGHT], p[MZ_GPT2_ATTN_PROJ_BIAS], MZ_WEIGHT_IN_OUT,
                           MZ_ACT_NONE, y);
    mz_tensor_release(o);
    return status;
}

/* *sum = x + dropout(branch), *h = ln_2(*sum); without dropout the two are one kernel. */
static mz_status join(const mz_unit_call *call, mz_tensor *branch, mz_tensor *x, mz_tensor **sum, mz_tensor **h)
{
    const mz_gpt2_block *self = call->self;
    mz_param *weight = call->params[MZ_GPT2_LN_2_WEIGHT], *bias = call->params[MZ_GPT2_LN_2_BIAS];
    if (!call->training || self->resid_dropout == 0.0f)
        return mz_layer_norm(call->tape, branch, x, weight, bias, self->eps, sum, h);
    mz_status status = mz_dropout_op(call->tape, branch, self->resid_dropout, x, sum);
    if (status != MZ_OK)
        return status;
    return mz_layer_norm(call->tape, *sum, NULL, weight, bias, self->eps, NULL, h);
}

mz_status mz_gpt2_block_forward(const mz_unit_call *call)
{
    const mz_gpt2_block *self = call->self;
    mz_tape *tape = call->tape;
    mz_param *const *p = call->params;
    mz_tensor *x = take_state(call), *branch = NULL, *sum = NULL, *h = NULL, *inner = NULL, *out = NULL;

    mz_status status = attention(call, x, &branch);
    if (status == MZ_OK)
        status = join(call, branch, x, &sum, &h);
    mz_tensor_release(branch);
    mz_tensor_release(x);
    if (status == MZ_OK)
        status = mz_linear(tape, h, p[MZ_GPT2_FC_WEIGHT], p[MZ_GPT2_FC_BIAS], MZ_WEIGHT_IN_OUT, self->activation,
                           &inner);
    mz_tensor_release(h);
    if (status == MZ_OK)
        status = mz_linear(tape, inner, p[MZ_GPT2_MLP_PROJ_WEIGHT], p[MZ_GPT2_MLP_PROJ_BIAS], MZ_WEIGHT_IN_OUT,
                           MZ_ACT_NONE, &out);
    mz_tensor_release(inner);
    if (status == MZ_OK)
        status = mz_dropout_op(tape, out, self->resid_dropout, sum, &call->state[0]);
    mz_tensor_release(out);
    mz_tensor_release(sum);
    return status;
}

/* ---- head ---- */

static mz_status loss(const mz_unit_call *call, mz_tensor *h, mz_param *weight)
{
    mz_tensor *labels = call->inputs[MZ_INPUT_LABELS];
    if (!labels)
        return mz_fail(MZ_ERR_ARGUMENT, "gpt2: expected labels [B, T] in the batch");
    size_t bytes = 4 * (size_t)mz_tensor_numel(h) * mz_dtype_size(mz_tensor_dtype(h));
    if (bytes < MIN_LOGITS_BYTES)
        bytes = MIN_LOGITS_BYTES;
    return mz_linear_cross_entropy(call->tape, h, weight, labels, IGNORED_LABEL, bytes, &call->state[0]);
}

mz_status mz_gpt2_head_forward(const mz_unit_call *call)
{
    const mz_gpt2_head *self = call->self;
    mz_tape *tape = call->tape;
    mz_param *weight = self->tied ? call->shared[0] : call->params[MZ_GPT2_LM_HEAD];
    mz_tensor *x = take_state(call), *h = NULL;
    mz_status status = MZ_OK;
    if (call->goal == MZ_GOAL_LOGITS && call->last_position_only) {
        mz_tensor *last = NULL;
        status = mz_select_last_position(tape, x, &last);
        mz_tensor_release(x);
        x = last;
    }
    if (status == MZ_OK)
        status = mz_layer_norm(tape, x, NULL, call->params[MZ_GPT2_LN_F_WEIGHT], call->params[MZ_GPT2_LN_F_BIAS],
                               self->eps, NULL, &h);
    mz_tensor_release(x);
    if (status == MZ_OK && call->goal == MZ_GOAL_LOSS)
        status = loss(call, h, weight);
    else if (status == MZ_OK)
        status = mz_linear(tape, h, weight, NULL, MZ_WEIGHT_OUT_IN, MZ_ACT_NONE, &call->state[0]);
    mz_tensor_release(h);
    return status;
}
