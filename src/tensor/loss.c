/* Losses over tensors that are there whole. Their gradients are formed in the backward pass, over the logits'
 * own memory where nobody else holds it. */
#include "tensor/node.h"

#include "core/error.h"
#include "tensor/scalar.h"

enum { X = 0, TARGET = 1 }; /* saved */

mz_status mz_scalar_zero(mz_tape *tape, mz_tensor **scalar)
{
    mz_tensor *s;
    mz_status status = mz_tensor_create(tape, MZ_F32, 0, NULL, &s);
    if (status != MZ_OK)
        return status;
    status = tape->options.device->ops->fill(tape->options.stream, s->data, 0, sizeof(float));
    if (status == MZ_OK)
        *scalar = s;
    else
        mz_tensor_release(s);
    return status;
}

static mz_status run_cross_entropy(mz_tape *tape, const mz_tensor *logits, const mz_tensor *labels,
                                   int32_t ignore_index, mz_tensor *dlogits, float *loss)
{
    mz_cross_entropy_args args = {.rows = mz_tensor_rows(logits),
                                  .vocab = mz_tensor_dim(logits, -1),
                                  .ld = mz_tensor_dim(logits, -1),
                                  .logits = logits->data,
                                  .labels = labels->data,
                                  .ignore_index = ignore_index,
                                  .loss_scale = mz_tape_loss_weight(tape),
                                  .grad_scale = mz_tape_grad_weight(tape),
                                  .dlogits = dlogits ? dlogits->data : NULL,
                                  .loss = loss,
                                  .dtype = logits->dtype};
    return mz_tape_kernels(tape)->cross_entropy(&args, tape->options.stream);
}

static mz_status run_mse(mz_tape *tape, const mz_tensor *x, const mz_tensor *target, mz_tensor *dx, float *loss)
{
    mz_mse_args args = {.n = x->numel,
                        .x = x->data,
                        .target = target->data,
                        .loss_scale = mz_tape_loss_weight(tape),
                        .grad_scale = mz_tape_grad_weight(tape),
                        .dx = dx ? dx->data : NULL,
                        .loss = loss,
                        .dtype = x->dtype};
    return mz_tape_kernels(tape)->mse(&args, tape->options.stream);
}

static mz_status cross_entropy_backward(mz_tape *tape, mz_node *node)
{
    mz_tensor *dx;
    mz_status status = mz_grad_writable(tape, node->saved[X], &dx);
    if (status != MZ_OK)
        return status;
    status = run_cross_entropy(tape, node->saved[X], node->saved[TARGET], node->op.ignore_index, dx,
                               mz_tape_discard(tape));
    mz_tensor_drop(&node->saved[X]);
    if (status == MZ_OK)
        return mz_grad_give(tape, node->inputs[0], dx);
    mz_tensor_release(dx);
    return status;
}

static mz_status mse_backward(mz_tape *tape, mz_node *node)
{
    mz_tensor *dx;
    mz_status status = mz_tensor_like(tape, node->saved[X], -1, &dx);
    if (status != MZ_OK)
        return status;
    status = run_mse(tape, node->saved[X], node->saved[TARGET], dx, mz_tape_discard(tape));
    if (status == MZ_OK)
        return mz_grad_give(tape, node->inputs[0], dx);
    mz_tensor_release(dx);
    return status;
}

/* Hands over the loss and, when the operation is tracked, its node. */
static void finish(mz_tape *tape, bool tracks, const mz_node *node, mz_tensor *loss, mz_tensor **out)
{
    loss->is_loss = true;
    if (tracks)
        mz_tape_push(tape, node);
    *out = loss;
}

mz_status mz_cross_entropy(mz_tape *tape, mz_tensor *logits, mz_tensor *labels, int32_t ignore_index,
                           mz_tensor **out)
{
    mz_tensor *loss;
    mz_status status = mz_tensor_need(logits, "cross_entropy: logits", tape->options.dtype);
    if (status == MZ_OK)
        status = mz_tensor_need(labels, "cross_entropy: labels", MZ_I32);
    if (status == MZ_OK && (logits->n_dims < 1 || labels->numel != mz_tensor_rows(logits)))
        status = mz_fail(MZ_ERR_ARGUMENT, "cross_entropy: expected one label per row of logits, found %s and %s",
                         mz_tensor_shape(labels).s, mz_tensor_shape(logits).s);
    if (status != MZ_OK)
        return status;
    bool tracks = mz_tape_tracks(tape, (const mz_tensor *const[]){logits}, 1, NULL, 0);
    if (tracks)
        status = mz_tape_reserve(tape);
    if (status == MZ_OK)
        status = mz_scalar_zero(tape, &loss);
    if (status != MZ_OK)
        return status;
    status = run_cross_entropy(tape, logits, labels, ignore_index, NULL, loss->data);
    if (status == MZ_OK)
        finish(tape, tracks,
               &(mz_node){.backward = cross_entropy_backward,
                          .inputs = {logits},
                          .outputs = {loss},
                          .saved = {[X] = logits, [TARGET] = labels},
                          .op.ignore_index = ignore_index},
               loss, out);
    else
        mz_tensor_release(loss);
    return status;
}

mz_status mz_mse_loss(mz_tape *tape, mz_tensor *x, mz_tensor *target, mz_tensor **out)
{
    mz_tensor *loss;
    mz_status status = mz_tensor_need(x, "mse_loss: x", tape->options.dtype);
    if (status == MZ_OK)
        status = mz_tensor_need_same(x, target, "mse_loss: x and target");
    if (status != MZ_OK)
        return status;
    bool tracks = mz_tape_tracks(tape, (const mz_tensor *const[]){x}, 1, NULL, 0);
    if (tracks)
        status = mz_tape_reserve(tape);
    if (status == MZ_OK)
        status = mz_scalar_zero(tape, &loss);
    if (status != MZ_OK)
        return status;
    status = run_mse(tape, x, target, NULL, loss->data);
    if (status == MZ_OK)
        finish(
            tape, tracks,
            &(mz_node){
                .backward = mse_backward, .inputs = {x}, .outputs = {loss}, .saved = {[X] = x, [TARGET] = target}},
            loss, out);
    else
        mz_tensor_release(loss);
    return status;
}
