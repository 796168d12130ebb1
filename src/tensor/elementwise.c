/* Operations element by element, and the same memory under another shape. */
#include "tensor/node.h"

#include <inttypes.h>

#include "core/error.h"

/* A loss's gradient is implied, so only sums of losses keep their meaning. */
static mz_status refuse_loss(const mz_tensor *x, const char *op)
{
    return x->is_loss ? mz_fail(MZ_ERR_ARGUMENT,
                                "%s: a loss can only be added to another; weight it in the tape's "
                                "loss and gradient weights",
                                op)
                      : MZ_OK;
}

static mz_status check_one(mz_tensor *x, const char *op)
{
    mz_status status = x ? MZ_OK : mz_fail(MZ_ERR_ARGUMENT, "%s: expected a tensor, found none", op);
    if (status == MZ_OK)
        status = mz_tensor_need(x, op, x->dtype);
    return status == MZ_OK ? refuse_loss(x, op) : status;
}

/* ---- add ---- */

static mz_status run_add(mz_tape *tape, const mz_tensor *a, float alpha, const mz_tensor *b, mz_tensor *y)
{
    mz_add_args args = {.n = y->numel,
                        .alpha = alpha,
                        .beta = 1.0f,
                        .a = a->data,
                        .b = b ? b->data : NULL,
                        .y = y->data,
                        .dtype = y->dtype};
    return mz_tape_kernels(tape)->add(&args, tape->options.stream);
}

static mz_status add_again(mz_tape *tape, const mz_node *node, mz_tensor *y)
{
    mz_status status = mz_tensor_compute(node->saved[0]);
    if (status == MZ_OK)
        status = mz_tensor_compute(node->saved[1]);
    return status == MZ_OK ? run_add(tape, node->saved[0], 1.0f, node->saved[1], y) : status;
}

/* Both inputs share one gradient tensor; whoever adds to it first makes a copy. */
static mz_status add_backward(mz_tape *tape, mz_node *node)
{
    mz_tensor *dy = mz_grad_take(node->outputs[0]);
    if (!dy)
        return MZ_OK; /* a sum of losses */
    mz_tensor_retain(dy);
    mz_status status = mz_grad_give(tape, node->inputs[0], dy);
    if (status == MZ_OK)
        return mz_grad_give(tape, node->inputs[1], dy);
    mz_tensor_release(dy);
    return status;
}

mz_status mz_add(mz_tape *tape, mz_tensor *a, mz_tensor *b, mz_tensor **out)
{
    mz_tensor *y;
    mz_status status = a ? mz_tensor_check(a, "add", a->dtype) : mz_tensor_check(a, "add", tape->options.dtype);
    if (status == MZ_OK)
        status = mz_tensor_check_same(a, b, "add");
    if (status == MZ_OK && a->is_loss != b->is_loss)
        status = refuse_loss(a->is_loss ? a : b, "add");
    if (status != MZ_OK)
        return status;
    bool tracks = mz_tape_tracks(tape, (const mz_tensor *const[]){a, b}, 2, NULL, 0);
    bool defer = tracks && tape->deferring && !a->is_loss;
    if (tracks)
        status = mz_tape_reserve(tape);
    if (status == MZ_OK && !defer)
        status = mz_tensor_compute(a);
    if (status == MZ_OK && !defer)
        status = mz_tensor_compute(b);
    if (status == MZ_OK)
        status = defer ? mz_tensor_defer(tape, a, -1, &y) : mz_tensor_like(tape, a, -1, &y);
    if (status != MZ_OK)
        return status;
    if (!defer && (status = run_add(tape, a, 1.0f, b, y)) != MZ_OK) {
        mz_tensor_release(y);
        return status;
    }
    y->is_loss = a->is_loss;
    if (tracks)
        mz_tape_push(tape, &(mz_node){.backward = add_backward,
                                      .again = defer ? add_again : NULL,
                                      .saved_for_again = true,
                                      .inputs = {a, b},
                                      .outputs = {y},
                                      .saved = {defer ? a : NULL, defer ? b : NULL}});
    *out = y;
    return MZ_OK;
}

/* ---- multiply ---- */

static mz_status run_mul(mz_tape *tape, const mz_tensor *a, const mz_tensor *b, mz_tensor *y)
{
    mz_mul_args args = {.n = y->numel, .a = a->data, .b = b->data, .y = y->data, .dtype = y->dtype};
    return mz_tape_kernels(tape)->mul(&args, tape->options.stream);
}

static mz_status mul_backward(mz_tape *tape, mz_node *node)
{
    mz_tensor *dy = mz_grad_take(node->outputs[0]);
    mz_status status = MZ_OK;
    for (int i = 0; i < 2 && status == MZ_OK; i++) {
        mz_tensor *dx;
        if (!node->inputs[i]->needs_grad)
            continue;
        status = i == 1 ? mz_grad_writable(tape, dy, &dx) : mz_tensor_like(tape, dy, -1, &dx);
        if (status != MZ_OK)
            break;
        status = run_mul(tape, dy, node->saved[1 - i], dx);
        if (i == 1)
            mz_tensor_drop(&dy);
        if (status == MZ_OK)
            status = mz_grad_give(tape, node->inputs[i], dx);
        else
            mz_tensor_release(dx);
    }
    mz_tensor_release(dy);
    return status;
}

mz_status mz_mul(mz_tape *tape, mz_tensor *a, mz_tensor *b, mz_tensor **out)
{
    mz_tensor *y;
    mz_status status = check_one(a, "mul");
    if (status == MZ_OK)
        status = mz_tensor_need_same(a, b, "mul");
    if (status != MZ_OK)
        return status;
    bool tracks = mz_tape_tracks(tape, (const mz_tensor *const[]){a, b}, 2, NULL, 0);
    if (tracks)
        status = mz_tape_reserve(tape);
    if (status == MZ_OK)
        status = mz_tensor_like(tape, a, -1, &y);
    if (status != MZ_OK)
        return status;
    status = run_mul(tape, a, b, y);
    if (status != MZ_OK) {
        mz_tensor_release(y);
        return status;
    }
    if (tracks)
        mz_tape_push(tape, &(mz_node){.backward = mul_backward, .inputs = {a, b}, .outputs = {y}, .saved = {a, b}});
    *out = y;
    return MZ_OK;
}

/* ---- scale ---- */

static mz_status scale_backward(mz_tape *tape, mz_node *node)
{
    mz_tensor *dx, *dy = mz_grad_take(node->outputs[0]);
    mz_status status = mz_grad_writable(tape, dy, &dx);
    if (status == MZ_OK) {
        status = run_add(tape, dy, node->op.factor, NULL, dx);
        if (status == MZ_OK)
            status = mz_grad_give(tape, node->inputs[0], dx);
        else
            mz_tensor_release(dx);
    }
    mz_tensor_release(dy);
    return status;
}

mz_status mz_scale(mz_tape *tape, mz_tensor *x, float factor, mz_tensor **out)
{
    mz_tensor *y;
    mz_status status = check_one(x, "scale");
    if (status != MZ_OK)
        return status;
    bool tracks = mz_tape_tracks(tape, (const mz_tensor *const[]){x}, 1, NULL, 0);
    if (tracks)
        status = mz_tape_reserve(tape);
    if (status == MZ_OK)
        status = mz_tensor_like(tape, x, -1, &y);
    if (status != MZ_OK)
        return status;
    status = run_add(tape, x, factor, NULL, y);
    if (status != MZ_OK) {
        mz_tensor_release(y);
        return status;
    }
    if (tracks)
        mz_tape_push(tape,
                     &(mz_node){.backward = scale_backward, .inputs = {x}, .outputs = {y}, .op.factor = factor});
    *out = y;
    return MZ_OK;
}

/* ---- activations ---- */

static mz_status activate_again(mz_tape *tape, const mz_node *node, mz_tensor *y)
{
    mz_activation_args args = {.n = y->numel,
                               .activation = node->op.activation,
                               .x = node->saved[0]->data,
                               .y = y->data,
                               .dtype = y->dtype};
    return mz_tape_kernels(tape)->activation(&args, tape->options.stream);
}

static mz_status activate_backward(mz_tape *tape, mz_node *node)
{
    mz_tensor *dx, *dy = mz_grad_take(node->outputs[0]);
    mz_status status = mz_grad_writable(tape, dy, &dx);
    if (status == MZ_OK) {
        mz_activation_grad_args args = {.n = dx->numel,
                                        .activation = node->op.activation,
                                        .dy = dy->data,
                                        .x = node->saved[0]->data,
                                        .dx = dx->data,
                                        .dtype = dx->dtype};
        status = mz_tape_kernels(tape)->activation_grad(&args, tape->options.stream);
        if (status == MZ_OK)
            status = mz_grad_give(tape, node->inputs[0], dx);
        else
            mz_tensor_release(dx);
    }
    mz_tensor_release(dy);
    return status;
}

mz_status mz_activate(mz_tape *tape, mz_tensor *x, mz_activation activation, mz_tensor **out)
{
    mz_tensor *y;
    mz_status status = check_one(x, "activate");
    if (status == MZ_OK && (activation < 0 || activation >= MZ_N_ACTIVATIONS))
        status = mz_fail(MZ_ERR_ARGUMENT, "activate: unknown activation %d", (int)activation);
    if (status != MZ_OK)
        return status;
    bool tracks = mz_tape_tracks(tape, (const mz_tensor *const[]){x}, 1, NULL, 0);
    if (tracks)
        status = mz_tape_reserve(tape);
    if (status == MZ_OK)
        status = mz_tensor_like(tape, x, -1, &y);
    if (status != MZ_OK)
        return status;
    mz_activation_args args = {
        .n = x->numel, .activation = activation, .x = x->data, .y = y->data, .dtype = x->dtype};
    status = mz_tape_kernels(tape)->activation(&args, tape->options.stream);
    if (status != MZ_OK) {
        mz_tensor_release(y);
        return status;
    }
    if (tracks)
        mz_tape_push(tape, &(mz_node){.backward = activate_backward,
                                      .again = activate_again,
                                      .cheap = MZ_CHEAP_ACTIVATION,
                                      .inputs = {x},
                                      .outputs = {y},
                                      .saved = {x},
                                      .op.activation = activation});
    *out = y;
    return MZ_OK;
}
