/* Softmax attention, self or cross, with a key-value cache for generation. */
#include "tensor/node.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "core/error.h"
#include "tensor/kv_cache.h"

enum { Q, K, V, O, LSE, MASK }; /* saved; q, k and v side by side lie in Q */

/* ---- forward ---- */

static mz_status check_options(const mz_attention_options *options, int64_t batch, int64_t t_k, int64_t features)
{
    if (options->heads < 1 || features % options->heads != 0)
        return mz_fail(MZ_ERR_ARGUMENT, "attention: %" PRId64 " features cannot be split over %" PRId64 " heads",
                       features, options->heads);
    if (!(options->dropout >= 0.0f && options->dropout < 1.0f))
        return mz_fail(MZ_ERR_ARGUMENT, "attention: expected dropout in [0, 1), found %g",
                       (double)options->dropout);
    if (!options->key_mask)
        return MZ_OK;
    mz_status status = mz_tensor_need(options->key_mask, "attention: key mask", MZ_U8);
    if (status == MZ_OK && options->key_mask->numel != batch * t_k)
        status = mz_fail(MZ_ERR_ARGUMENT, "attention: expected a key mask of [%" PRId64 ", %" PRId64 "], found %s",
                         batch, t_k, mz_tensor_shape(options->key_mask).s);
    return status;
}

/* Everything but the strides of q, k and v. */
static void fill_shape(mz_tape *tape, const mz_attention_options *options, int64_t batch, int64_t t_q, int64_t t_k,
                       int64_t features, mz_attention_shape *shape)
{
    int64_t head_size = features / options->heads;
    *shape = (mz_attention_shape){.batch = batch,
                                  .heads = options->heads,
                                  .t_q = t_q,
                                  .t_k = t_k,
                                  .head_size = head_size,
                                  .q_head = head_size,
                                  .k_head = head_size,
                                  .v_head = head_size,
                                  .o_batch = t_q * features,
                                  .o_token = features,
                                  .o_head = head_size,
                                  .scale = options->scale != 0.0f ? options->scale : 1.0f / sqrtf((float)head_size),
                                  .causal = options->causal,
                                  .key_mask = options->key_mask ? options->key_mask->data : NULL,
                                  .dtype = tape->options.dtype};
    mz_tape_dropout(tape, options->dropout, options->heads * t_q * t_k, &shape->dropout);
}

static mz_status run_forward(mz_tape *tape, const mz_attention_args *proto, bool tracks, mz_tensor **o,
                             mz_tensor **lse)
{
    mz_attention_args args = *proto;
    const mz_attention_shape *s = &args.shape;
    mz_status status =
        mz_tensor_create(tape, s->dtype, 3, (const int64_t[]){s->batch, s->t_q, s->heads * s->head_size}, o);
    if (status == MZ_OK && tracks)
        status = mz_tensor_create(tape, MZ_F32, 3, (const int64_t[]){s->batch, s->heads, s->t_q}, lse);
    if (status == MZ_OK) {
        args.o = (*o)->data;
        args.lse = tracks ? (*lse)->data : NULL;
        status = mz_tape_kernels(tape)->attention(&args, tape->options.stream);
    }
    if (status != MZ_OK) {
        mz_tensor_drop(o);
        mz_tensor_drop(lse);
    }
    return status;
}

/* ---- backward ---- */

static mz_status run_backward(mz_tape *tape, const mz_node *node, const mz_tensor *d_o,
                              mz_attention_grad_args *args)
{
    const mz_kernels *kernels = mz_tape_kernels(tape);
    mz_tensor *workspace = NULL;
    args->shape = node->op.attention;
    args->o = node->saved[O]->data;
    args->d_o = d_o->data;
    args->lse = node->saved[LSE]->data;
    args->workspace_bytes = kernels->attention_grad_workspace(&args->shape);
    if (args->workspace_bytes > 0) {
        int64_t bytes = (int64_t)args->workspace_bytes;
        mz_status status = mz_tensor_create(tape, MZ_U8, 1, &bytes, &workspace);
        if (status != MZ_OK)
            return status;
        args->workspace = workspace->data;
    }
    mz_status status = kernels->attention_grad(args, tape->options.stream);
    mz_tensor_release(workspace);
    return status;
}

static mz_status fused_backward(mz_tape *tape, mz_node *node)
{
    mz_tensor *qkv = node->saved[Q], *dqkv = NULL;
    mz_tensor *d_o = mz_grad_take(node->outputs[0]);
    mz_status status = mz_tensor_like(tape, qkv, -1, &dqkv);
    if (status == MZ_OK) {
        size_t bytes = (size_t)(qkv->shape[2] / 3) * mz_dtype_size(qkv->dtype);
        const char *q = qkv->data;
        char *dq = dqkv->data;
        mz_attention_grad_args args = {
            .q = q, .k = q + bytes, .v = q + 2 * bytes, .dq = dq, .dk = dq + bytes, .dv = dq + 2 * bytes};
        status = run_backward(tape, node, d_o, &args);
    }
    mz_tensor_release(d_o);
    if (status == MZ_OK)
        return mz_grad_give(tape, node->inputs[0], dqkv);
    mz_tensor_release(dqkv);
    return status;
}

static mz_status apart_backward(mz_tape *tape, mz_node *node)
{
    mz_tensor *grads[3] = {NULL, NULL, NULL};
    mz_tensor *d_o = mz_grad_take(node->outputs[0]);
    mz_status status = MZ_OK;
    for (int i = 0; i < 3 && status == MZ_OK; i++)
        status = mz_tensor_like(tape, node->saved[i], -1, &grads[i]);
    if (status == MZ_OK) {
        mz_attention_grad_args args = {.q = node->saved[Q]->data,
                                       .k = node->saved[K]->data,
                                       .v = node->saved[V]->data,
                                       .dq = grads[Q]->data,
                                       .dk = grads[K]->data,
                                       .dv = grads[V]->data};
        status = run_backward(tape, node, d_o, &args);
    }
    mz_tensor_release(d_o);
    for (int i = 0; i < 3; i++) {
        if (status == MZ_OK)
            status = mz_grad_give(tape, node->inputs[i], grads[i]);
        else
            mz_tensor_release(grads[i]);
    }
    return status;
}

/* ---- operations ---- */

/* Appends this pass's keys and values and makes the arguments read the cache. */
static mz_status use_cache(mz_tape *tape, const mz_attention_options *options, int64_t n, int64_t row_stride,
                           mz_attention_args *args)
{
    mz_kv_cache *cache = options->cache;
    mz_attention_shape *s = &args->shape;
    int64_t features = s->heads * s->head_size;
    if (tape->recording)
        return mz_fail(MZ_ERR_ARGUMENT, "attention: a key-value cache has no gradients; it is for generation");
    if (cache->batch != s->batch || cache->features != features || cache->dtype != s->dtype)
        return mz_fail(MZ_ERR_ARGUMENT,
                       "attention: expected a cache of [%" PRId64 ", .., %" PRId64 "] %s, found [%" PRId64
                       ", .., %" PRId64 "] %s",
                       s->batch, features, mz_dtype_name(s->dtype), cache->batch, cache->features,
                       mz_dtype_name(cache->dtype));
    mz_status status =
        mz_kv_cache_append(cache, tape->options.stream, options->layer, args->k, args->v, n, row_stride);
    if (status != MZ_OK)
        return status;
    args->k = mz_kv_cache_keys(cache, options->layer);
    args->v = mz_kv_cache_values(cache, options->layer);
    s->k_batch = s->v_batch = cache->capacity * features;
    s->k_token = s->v_token = features;
    return MZ_OK;
}

mz_status mz_attention_fused(mz_tape *tape, mz_tensor *qkv, const mz_attention_options *options, mz_tensor **out)
{
    mz_status status = mz_tensor_need(qkv, "attention: qkv", tape->options.dtype);
    if (status != MZ_OK)
        return status;
    if (qkv->n_dims != 3 || qkv->shape[2] % 3 != 0)
        return mz_fail(MZ_ERR_ARGUMENT, "attention: expected qkv of [B, T, 3 * D], found %s",
                       mz_tensor_shape(qkv).s);
    int64_t batch = qkv->shape[0], t_q = qkv->shape[1], features = qkv->shape[2] / 3;
    int64_t t_k = t_q + (options->cache ? mz_kv_cache_length(options->cache) : 0);
    status = check_options(options, batch, t_k, features);
    if (status != MZ_OK)
        return status;
    bool tracks = mz_tape_tracks(tape, (const mz_tensor *const[]){qkv}, 1, NULL, 0);
    if (tracks && (status = mz_tape_reserve(tape)) != MZ_OK)
        return status;

    size_t bytes = (size_t)features * mz_dtype_size(qkv->dtype);
    const char *q = qkv->data;
    mz_attention_args args = {.q = q, .k = q + bytes, .v = q + 2 * bytes};
    mz_attention_shape *s = &args.shape;
    fill_shape(tape, options, batch, t_q, t_k, features, s);
    s->q_batch = s->k_batch = s->v_batch = t_q * 3 * features;
    s->q_token = s->k_token = s->v_token = 3 * features;
    if (options->cache && (status = use_cache(tape, options, t_q, 3 * features, &args)) != MZ_OK)
        return status;

    mz_tensor *o = NULL, *lse = NULL;
    status = run_forward(tape, &args, tracks, &o, &lse);
    if (status != MZ_OK)
        return status;
    if (tracks)
        mz_tape_push(tape, &(mz_node){.backward = fused_backward,
                                      .inputs = {qkv},
                                      .outputs = {o},
                                      .saved = {[LSE] = lse, [MASK] = options->key_mask, [O] = o, [Q] = qkv},
                                      .op.attention = args.shape});
    mz_tensor_release(lse);
    *out = o;
    return MZ_OK;
}

static mz_status check_apart(const mz_tape *tape, mz_tensor *q, mz_tensor *k, mz_tensor *v)
{
    mz_status status = mz_tensor_need(q, "attention: q", tape->options.dtype);
    if (status == MZ_OK)
        status = mz_tensor_need(k, "attention: k", tape->options.dtype);
    if (status == MZ_OK)
        status = mz_tensor_need_same(k, v, "attention: k and v");
    if (status == MZ_OK &&
        (q->n_dims != 3 || k->n_dims != 3 || q->shape[0] != k->shape[0] || q->shape[2] != k->shape[2]))
        status =
            mz_fail(MZ_ERR_ARGUMENT, "attention: expected q of [B, T_q, D] and k of [B, T_k, D], found %s and %s",
                    mz_tensor_shape(q).s, mz_tensor_shape(k).s);
    return status;
}

mz_status mz_attention(mz_tape *tape, mz_tensor *q, mz_tensor *k, mz_tensor *v, const mz_attention_options *options,
                       mz_tensor **out)
{
    mz_status status = check_apart(tape, q, k, v);
    if (status != MZ_OK)
        return status;
    int64_t batch = q->shape[0], t_q = q->shape[1], features = q->shape[2];
    int64_t t_k = k->shape[1] + (options->cache ? mz_kv_cache_length(options->cache) : 0);
    status = check_options(options, batch, t_k, features);
    if (status != MZ_OK)
        return status;
    bool tracks = mz_tape_tracks(tape, (const mz_tensor *const[]){q, k, v}, 3, NULL, 0);
    if (tracks && (status = mz_tape_reserve(tape)) != MZ_OK)
        return status;

    mz_attention_args args = {.q = q->data, .k = k->data, .v = v->data};
    mz_attention_shape *s = &args.shape;
    fill_shape(tape, options, batch, t_q, t_k, features, s);
    s->q_batch = t_q * features;
    s->k_batch = s->v_batch = k->shape[1] * features;
    s->q_token = s->k_token = s->v_token = features;
    if (options->cache && (status = use_cache(tape, options, k->shape[1], features, &args)) != MZ_OK)
        return status;

    mz_tensor *o = NULL, *lse = NULL;
    status = run_forward(tape, &args, tracks, &o, &lse);
    if (status != MZ_OK)
        return status;
    if (tracks)
        mz_tape_push(tape, &(mz_node){.backward = apart_backward,
                                      .inputs = {q, k, v},
                                      .outputs = {o},
                                      .saved = {q, k, v, o, lse, options->key_mask},
                                      .op.attention = args.shape});
    mz_tensor_release(lse);
    *out = o;
    return MZ_OK;
}
