/* Dropout with a residual addition. The mask is drawn again in the backward pass, never stored. */
#include "tensor/node.h"

#include "core/error.h"

static mz_status run_dropout(mz_tape *tape, const mz_dropout *dropout, const mz_tensor *x,
                             const mz_tensor *residual, mz_tensor *y)
{
    mz_dropout_args args = {.n = y->numel,
                            .dropout = *dropout,
                            .x = x->data,
                            .residual = residual ? residual->data : NULL,
                            .y = y->data,
                            .dtype = y->dtype};
    return mz_tape_kernels(tape)->dropout(&args, tape->options.stream);
}

static mz_status dropout_again(mz_tape *tape, const mz_node *node, mz_tensor *y)
{
    mz_tensor *x = node->saved[0], *residual = node->saved[1];
    mz_status status = mz_tensor_compute(x);
    if (status == MZ_OK && residual)
        status = mz_tensor_compute(residual);
    return status == MZ_OK ? run_dropout(tape, &node->op.dropout, x, residual, y) : status;
}

static mz_status dropout_backward(mz_tape *tape, mz_node *node)
{
    mz_tensor *x = node->inputs[0], *residual = node->inputs[1], *dx;
    mz_tensor *dy = mz_grad_take(node->outputs[0]);
    mz_status status = MZ_OK;
    if (residual && residual->needs_grad) {
        mz_tensor_retain(dy); /* so it is shared, and dx gets memory of its own */
        status = mz_grad_give(tape, residual, dy);
    }
    if (status == MZ_OK && x->needs_grad)
        status = mz_grad_writable(tape, dy, &dx);
    if (status == MZ_OK && x->needs_grad) {
        status = run_dropout(tape, &node->op.dropout, dy, NULL, dx);
        if (status == MZ_OK)
            status = mz_grad_give(tape, x, dx);
        else
            mz_tensor_release(dx);
    }
    mz_tensor_release(dy);
    return status;
}

static int64_t sample_elements(const mz_tape *tape, const mz_tensor *x)
{
    int64_t samples = tape->n_samples;
    if (samples < 1 || x->numel % samples != 0)
        samples = x->n_dims > 0 ? x->shape[0] : 1;
    return samples > 0 ? x->numel / samples : 0;
}

mz_status mz_dropout_op(mz_tape *tape, mz_tensor *x, float p, mz_tensor *residual, mz_tensor **out)
{
    mz_dropout dropout;
    mz_tensor *y;
    mz_status status = mz_tensor_check(x, "dropout: x", tape->options.dtype);
    if (status == MZ_OK && residual)
        status = mz_tensor_check_same(x, residual, "dropout: x and residual");
    if (status == MZ_OK && !(p >= 0.0f && p < 1.0f))
        status = mz_fail(MZ_ERR_ARGUMENT, "dropout: expected a probability in [0, 1), found %g", (double)p);
    if (status != MZ_OK)
        return status;
    mz_tape_dropout(tape, p, sample_elements(tape, x), &dropout);
    if (dropout.p == 0.0f) {
        if (residual)
            return mz_add(tape, x, residual, out);
        mz_tensor_retain(x);
        *out = x;
        return MZ_OK;
    }
    bool tracks = mz_tape_tracks(tape, (const mz_tensor *const[]){x, residual}, 2, NULL, 0);
    bool defer = tracks && tape->deferring;
    if (tracks)
        status = mz_tape_reserve(tape);
    if (status == MZ_OK && !defer)
        status = mz_tensor_compute(x);
    if (status == MZ_OK && !defer && residual)
        status = mz_tensor_compute(residual);
    if (status == MZ_OK)
        status = defer ? mz_tensor_defer(tape, x, -1, &y) : mz_tensor_like(tape, x, -1, &y);
    if (status != MZ_OK)
        return status;
    if (!defer && (status = run_dropout(tape, &dropout, x, residual, y)) != MZ_OK) {
        mz_tensor_release(y);
        return status;
    }
    if (tracks)
        mz_tape_push(tape, &(mz_node){.backward = dropout_backward,
                                      .again = defer ? dropout_again : NULL,
                                      .saved_for_again = true,
                                      .saved = {defer ? x : NULL, defer ? residual : NULL},
                                      .inputs = {x, residual},
                                      .outputs = {y},
                                      .op.dropout = dropout});
    *out = y;
    return MZ_OK;
}
