#include "tests/tensor/gradient_cases.h"

static mz_status linear_out_in(bench *b, mz_tensor **y)
{
    return mz_linear(b->r.tape, b->x[0], &b->p[0], &b->p[1], MZ_WEIGHT_OUT_IN, b->act, y);
}

static mz_status linear_in_out(bench *b, mz_tensor **y)
{
    return mz_linear(b->r.tape, b->x[0], &b->p[0], &b->p[1], MZ_WEIGHT_IN_OUT, b->act, y);
}

static mz_status linear_no_bias(bench *b, mz_tensor **y)
{
    return mz_linear(b->r.tape, b->x[0], &b->p[0], NULL, MZ_WEIGHT_OUT_IN, b->act, y);
}

/* The activation's derivative is multiplied in by the second product. */
static mz_status perceptron(bench *b, mz_tensor **y)
{
    mz_tensor *h;
    mz_status status = mz_linear(b->r.tape, b->x[0], &b->p[0], &b->p[1], MZ_WEIGHT_IN_OUT, b->act, &h);
    if (status != MZ_OK)
        return status;
    status = mz_linear(b->r.tape, h, &b->p[2], NULL, MZ_WEIGHT_OUT_IN, MZ_ACT_NONE, y);
    mz_tensor_release(h);
    return status;
}

/* Here it may not be: h has another reader. The same weight serves twice. */
static mz_status perceptron_with_skip(bench *b, mz_tensor **y)
{
    mz_tape *tape = b->r.tape;
    mz_tensor *h, *a = NULL, *c = NULL;
    mz_status status = mz_linear(tape, b->x[0], &b->p[0], &b->p[1], MZ_WEIGHT_IN_OUT, b->act, &h);
    if (status == MZ_OK)
        status = mz_linear(tape, h, &b->p[2], NULL, MZ_WEIGHT_OUT_IN, MZ_ACT_NONE, &a);
    if (status == MZ_OK)
        status = mz_linear(tape, h, &b->p[2], NULL, MZ_WEIGHT_OUT_IN, MZ_ACT_TANH, &c);
    mz_tensor_release(h);
    if (status == MZ_OK)
        status = mz_add(tape, a, c, y);
    mz_tensor_release(a);
    mz_tensor_release(c);
    return status;
}

/* As in a transformer's block: the norm's and the activation's outputs can be computed again. */
static mz_status block_like(bench *b, mz_tensor **y)
{
    mz_tape *tape = b->r.tape;
    mz_tensor *h, *inner = NULL, *out = NULL;
    mz_status status = mz_layer_norm(tape, b->x[0], NULL, &b->p[0], &b->p[3], 1e-3f, NULL, &h);
    if (status == MZ_OK)
        status = mz_linear(tape, h, &b->p[1], NULL, MZ_WEIGHT_IN_OUT, b->act, &inner);
    mz_tensor_release(h);
    if (status == MZ_OK)
        status = mz_linear(tape, inner, &b->p[2], NULL, MZ_WEIGHT_OUT_IN, MZ_ACT_NONE, &out);
    mz_tensor_release(inner);
    if (status == MZ_OK)
        status = mz_dropout_op(tape, out, 0.3f, b->x[0], y);
    mz_tensor_release(out);
    return status;
}

static mz_status activate_linear(bench *b, mz_tensor **y)
{
    mz_tensor *h;
    mz_status status = mz_activate(b->r.tape, b->x[0], b->act, &h);
    if (status != MZ_OK)
        return status;
    status = mz_linear(b->r.tape, h, &b->p[0], NULL, MZ_WEIGHT_OUT_IN, MZ_ACT_NONE, y);
    mz_tensor_release(h);
    return status;
}

static mz_status layer_norm(bench *b, mz_tensor **y)
{
    return mz_layer_norm(b->r.tape, b->x[0], NULL, &b->p[0], &b->p[1], 1e-3f, NULL, y);
}

static mz_status layer_norm_residual(bench *b, mz_tensor **y)
{
    mz_tensor *sum, *n;
    mz_status status = mz_layer_norm(b->r.tape, b->x[0], b->x[1], &b->p[0], &b->p[1], 1e-3f, &sum, &n);
    if (status != MZ_OK)
        return status;
    status = mz_mul(b->r.tape, sum, n, y);
    mz_tensor_release(sum);
    mz_tensor_release(n);
    return status;
}

static mz_status layer_norm_sum_unused(bench *b, mz_tensor **y)
{
    mz_tensor *sum;
    mz_status status = mz_layer_norm(b->r.tape, b->x[0], b->x[1], &b->p[0], &b->p[1], 1e-3f, &sum, y);
    if (status == MZ_OK)
        mz_tensor_release(sum);
    return status;
}

static mz_status layer_norm_only_sum(bench *b, mz_tensor **y)
{
    mz_tensor *n;
    mz_status status = mz_layer_norm(b->r.tape, b->x[0], b->x[1], &b->p[0], &b->p[1], 1e-3f, y, &n);
    if (status == MZ_OK)
        mz_tensor_release(n);
    return status;
}

static const int32_t token_ids[] = {4, 0, 2, 4, 4, 1};
static const int32_t position_ids[] = {0, 1, 2, 1, 0, 3};

static mz_status embed(bench *b, bool with_positions, bool with_ids, int64_t offset, mz_tensor **y)
{
    const int64_t shape[] = {2, 3};
    mz_tensor *ids = rig_ids(&b->r, 2, shape, token_ids);
    mz_tensor *positions = with_ids ? rig_ids(&b->r, 2, shape, position_ids) : NULL;
    mz_status status =
        mz_embedding(b->r.tape, ids, &b->p[0], with_positions ? &b->p[1] : NULL, positions, offset, y);
    mz_tensor_release(ids);
    mz_tensor_release(positions);
    return status;
}

static mz_status embedding(bench *b, mz_tensor **y)
{
    return embed(b, false, false, 0, y);
}

static mz_status embedding_positions(bench *b, mz_tensor **y)
{
    return embed(b, true, false, 1, y);
}

static mz_status embedding_position_ids(bench *b, mz_tensor **y)
{
    return embed(b, true, true, 0, y);
}

static const uint8_t key_mask[] = {1, 0, 1, 1, 1, 1, 1, 1, 0, 1};

static mz_status fused(bench *b, bool causal, bool masked, float dropout, float scale, mz_tensor **y)
{
    mz_tensor *mask = NULL;
    const int64_t shape[] = {b->x[0]->shape[0], b->x[0]->shape[1]};
    if (masked)
        rig_ok(mz_tensor_borrow(b->r.tape, MZ_U8, 2, shape, (void *)key_mask, &mask), "mask");
    const mz_attention_options options = {
        .heads = 2, .causal = causal, .dropout = dropout, .scale = scale, .key_mask = mask};
    mz_status status = mz_attention_fused(b->r.tape, b->x[0], &options, y);
    mz_tensor_release(mask);
    return status;
}

static mz_status attention_causal(bench *b, mz_tensor **y)
{
    return fused(b, true, false, 0.0f, 0.0f, y);
}

static mz_status attention_masked(bench *b, mz_tensor **y)
{
    return fused(b, false, true, 0.0f, 0.7f, y);
}

static mz_status attention_dropout(bench *b, mz_tensor **y)
{
    return fused(b, true, true, 0.3f, 0.0f, y);
}

static mz_status attention_apart(bench *b, mz_tensor **y)
{
    const mz_attention_options options = {.heads = 3, .causal = true};
    return mz_attention(b->r.tape, b->x[0], b->x[1], b->x[2], &options, y);
}

static mz_status attention_of_itself(bench *b, mz_tensor **y)
{
    const mz_attention_options options = {.heads = 1, .dropout = 0.2f};
    return mz_attention(b->r.tape, b->x[0], b->x[0], b->x[0], &options, y);
}

static mz_status dropout(bench *b, mz_tensor **y)
{
    return mz_dropout_op(b->r.tape, b->x[0], 0.4f, NULL, y);
}

static mz_status dropout_residual(bench *b, mz_tensor **y)
{
    return mz_dropout_op(b->r.tape, b->x[0], 0.4f, b->x[1], y);
}

static mz_status dropout_none(bench *b, mz_tensor **y)
{
    return mz_dropout_op(b->r.tape, b->x[0], 0.0f, b->x[1], y);
}

static mz_status add(bench *b, mz_tensor **y)
{
    return mz_add(b->r.tape, b->x[0], b->x[1], y);
}

static mz_status add_to_itself(bench *b, mz_tensor **y)
{
    return mz_add(b->r.tape, b->x[0], b->x[0], y);
}

/* Both adds share gradients with their inputs; every one of them is added to later. */
static mz_status add_chain(bench *b, mz_tensor **y)
{
    mz_tape *tape = b->r.tape;
    mz_tensor *s, *t = NULL, *u = NULL;
    mz_status status = mz_add(tape, b->x[0], b->x[1], &s);
    if (status == MZ_OK)
        status = mz_add(tape, s, b->x[0], &t);
    if (status == MZ_OK)
        status = mz_mul(tape, t, s, &u);
    if (status == MZ_OK)
        status = mz_add(tape, u, t, y);
    mz_tensor_release(s);
    mz_tensor_release(t);
    mz_tensor_release(u);
    return status;
}

static mz_status mul(bench *b, mz_tensor **y)
{
    return mz_mul(b->r.tape, b->x[0], b->x[1], y);
}

static mz_status square(bench *b, mz_tensor **y)
{
    return mz_mul(b->r.tape, b->x[0], b->x[0], y);
}

static mz_status scale(bench *b, mz_tensor **y)
{
    return mz_scale(b->r.tape, b->x[0], -1.7f, y);
}

static mz_status activate(bench *b, mz_tensor **y)
{
    return mz_activate(b->r.tape, b->x[0], b->act, y);
}

static mz_status reshape(bench *b, mz_tensor **y)
{
    const int64_t there[] = {-1, 5}, back[] = {5, 3, -1};
    mz_tensor *v, *w;
    mz_status status = mz_reshape(b->r.tape, b->x[0], 2, there, &v);
    if (status != MZ_OK)
        return status;
    status = mz_scale(b->r.tape, v, 2.0f, &w);
    mz_tensor_release(v);
    if (status != MZ_OK)
        return status;
    status = mz_reshape(b->r.tape, w, 3, back, y);
    mz_tensor_release(w);
    return status;
}

/* The view's reader and the tensor's own reader both send gradients. */
static mz_status reshape_and_whole(bench *b, mz_tensor **y)
{
    const int64_t flat[] = {30};
    mz_tensor *v, *w = NULL, *z = NULL;
    mz_status status = mz_reshape(b->r.tape, b->x[0], 1, flat, &v);
    if (status == MZ_OK)
        status = mz_reshape(b->r.tape, b->x[1], 1, flat, &w);
    if (status == MZ_OK)
        status = mz_mul(b->r.tape, v, w, &z);
    mz_tensor_release(v);
    mz_tensor_release(w);
    if (status == MZ_OK)
        status = mz_reshape(b->r.tape, z, 3, b->x[0]->shape, &v);
    mz_tensor_release(z);
    if (status != MZ_OK)
        return status;
    status = mz_add(b->r.tape, v, b->x[0], y);
    mz_tensor_release(v);
    return status;
}

static const int32_t labels[] = {3, -100, 0, 6, 6, -100};

static mz_status cross_entropy(bench *b, mz_tensor **y)
{
    mz_tensor *l = rig_ids(&b->r, 2, (const int64_t[]){2, 3}, labels);
    mz_status status = mz_cross_entropy(b->r.tape, b->x[0], l, -100, y);
    mz_tensor_release(l);
    return status;
}

/* The logits are the tape's alone by the time of the backward pass, and are written over. */
static mz_status cross_entropy_in_place(bench *b, mz_tensor **y)
{
    mz_tensor *logits, *l = rig_ids(&b->r, 2, (const int64_t[]){2, 3}, labels);
    mz_status status = mz_scale(b->r.tape, b->x[0], 1.5f, &logits);
    if (status != MZ_OK)
        return status;
    status = mz_cross_entropy(b->r.tape, logits, l, -100, y);
    mz_tensor_release(logits);
    mz_tensor_release(l);
    return status;
}

static mz_status linear_loss(bench *b, size_t bytes, mz_tensor **y)
{
    mz_tensor *l = rig_ids(&b->r, 2, (const int64_t[]){2, 3}, labels);
    mz_status status = mz_linear_cross_entropy(b->r.tape, b->x[0], &b->p[0], l, -100, bytes, y);
    mz_tensor_release(l);
    return status;
}

static mz_status linear_loss_by_row(bench *b, mz_tensor **y)
{
    return linear_loss(b, 1, y);
}

static mz_status linear_loss_by_four(bench *b, mz_tensor **y)
{
    return linear_loss(b, 4 * 64 * sizeof(float), y);
}

static mz_status linear_loss_at_once(bench *b, mz_tensor **y)
{
    return linear_loss(b, (size_t)1 << 20, y);
}

static mz_status mse(bench *b, mz_tensor **y)
{
    mz_tensor *target;
    rig_ok(mz_tensor_create(b->r.tape, MZ_F32, b->x[0]->n_dims, b->x[0]->shape, &target), "target");
    rig_fill(mz_tensor_data(target), mz_tensor_numel(target), 99, 1.0f);
    mz_status status = mz_mse_loss(b->r.tape, b->x[0], target, y);
    mz_tensor_release(target);
    return status;
}

static mz_status two_losses(bench *b, mz_tensor **y)
{
    mz_tensor *l1, *l2;
    mz_status status = cross_entropy(b, &l1);
    if (status != MZ_OK)
        return status;
    status = mse(b, &l2);
    if (status == MZ_OK)
        status = mz_add(b->r.tape, l1, l2, y);
    mz_tensor_release(l1);
    mz_tensor_release(l2);
    return status;
}

const grad_case gradient_cases[] = {
    {"layer_norm", layer_norm, {{2, 3, 7}}, {{7}, {7}}, false},
    {"layer_norm of one column", layer_norm, {{3, 1}}, {{1}, {1}}, false},
    {"layer_norm with residual", layer_norm_residual, {{3, 5}, {3, 5}}, {{5}, {5}}, false},
    {"layer_norm, sum unused", layer_norm_sum_unused, {{3, 5}, {3, 5}}, {{5}, {5}}, false},
    {"layer_norm, only sum used", layer_norm_only_sum, {{3, 5}, {3, 5}}, {{5}, {5}}, false},
    {"embedding", embedding, {{0}}, {{5, 3}}, false},
    {"embedding with positions", embedding_positions, {{0}}, {{5, 3}, {4, 3}}, false},
    {"embedding with position ids", embedding_position_ids, {{0}}, {{5, 3}, {4, 3}}, false},
    {"attention, causal", attention_causal, {{2, 5, 18}}, {{0}}, false},
    {"attention, masked", attention_masked, {{2, 5, 18}}, {{0}}, false},
    {"attention with dropout", attention_dropout, {{2, 5, 18}}, {{0}}, false},
    {"attention over one token", attention_causal, {{1, 1, 6}}, {{0}}, false},
    {"attention, q k v apart", attention_apart, {{2, 2, 9}, {2, 4, 9}, {2, 4, 9}}, {{0}}, false},
    {"attention of one tensor", attention_of_itself, {{1, 4, 5}}, {{0}}, false},
    {"dropout", dropout, {{3, 11}}, {{0}}, false},
    {"dropout with residual", dropout_residual, {{3, 11}, {3, 11}}, {{0}}, false},
    {"dropout off, with residual", dropout_none, {{3, 3}, {3, 3}}, {{0}}, false},
    {"add", add, {{2, 3}, {2, 3}}, {{0}}, false},
    {"add x to x", add_to_itself, {{7}}, {{0}}, false},
    {"chain of adds", add_chain, {{2, 5}, {2, 5}}, {{0}}, false},
    {"mul", mul, {{2, 3}, {2, 3}}, {{0}}, false},
    {"square", square, {{5}}, {{0}}, false},
    {"scale", scale, {{5}}, {{0}}, false},
    {"reshape", reshape, {{5, 3, 2}}, {{0}}, false},
    {"reshape beside the whole", reshape_and_whole, {{5, 3, 2}, {5, 3, 2}}, {{0}}, false},
    {"cross_entropy", cross_entropy, {{2, 3, 7}}, {{0}}, true},
    {"cross_entropy in place", cross_entropy_in_place, {{2, 3, 7}}, {{0}}, true},
    {"linear_cross_entropy, row by row", linear_loss_by_row, {{2, 3, 5}}, {{7, 5}}, true},
    {"linear_cross_entropy, in two chunks", linear_loss_by_four, {{2, 3, 5}}, {{7, 5}}, true},
    {"linear_cross_entropy, at once", linear_loss_at_once, {{2, 3, 5}}, {{7, 5}}, true},
    {"mse_loss", mse, {{2, 9}}, {{0}}, true},
    {"sum of losses", two_losses, {{2, 3, 7}}, {{0}}, true},
    {NULL, NULL, {{0}}, {{0}}, false},
};

const grad_case gradient_cases_activated[] = {
    {"norm, then perceptron, then add", block_like, {{3, 5}}, {{5}, {5, 4}, {5, 4}, {5}}, false},
    {"activation, then linear", activate_linear, {{3, 5}}, {{4, 5}}, false},
    {"linear [out, in]", linear_out_in, {{2, 3, 5}}, {{4, 5}, {4}}, false},
    {"linear [in, out]", linear_in_out, {{3, 5}}, {{5, 7}, {7}}, false},
    {"linear of one vector", linear_in_out, {{5}}, {{5, 1}, {1}}, false},
    {"linear without bias", linear_no_bias, {{3, 5}}, {{4, 5}}, false},
    {"perceptron", perceptron, {{3, 5}}, {{5, 7}, {7}, {2, 7}}, false},
    {"perceptron with skip", perceptron_with_skip, {{3, 5}}, {{5, 7}, {7}, {2, 7}}, false},
    {"activate", activate, {{3, 5}}, {{0}}, false},
    {NULL, NULL, {{0}}, {{0}}, false},
};
