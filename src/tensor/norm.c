/* Layer normalisation, with the residual addition in front of it. */
#include "tensor/node.h"

#include "core/error.h"

enum { NORMALISED = 0, MEAN = 1, RSTD = 2 }; /* saved */
enum { WEIGHT = 0, BIAS = 1 };               /* params */
enum { Y = 0, SUM = 1 };                     /* outputs */

static mz_status norm_again(mz_tape *tape, const mz_node *node, mz_tensor *y)
{
    mz_layer_norm_args args = {.rows = mz_tensor_rows(y),
                               .cols = mz_tensor_dim(y, -1),
                               .eps = node->op.eps,
                               .x = node->saved[NORMALISED]->data,
                               .weight = node->params[WEIGHT]->data,
                               .bias = node->params[BIAS]->data,
                               .y = y->data,
                               .dtype = y->dtype};
    return mz_tape_kernels(tape)->layer_norm(&args, tape->options.stream);
}

/* Where one parameter's gradient goes; of a parameter that is not trained, to memory that is dropped. */
static mz_status param_target(mz_tape *tape, mz_param *param, bool *accumulate, void **memory, mz_tensor **scratch)
{
    mz_status status;
    *accumulate = false;
    if (param->trainable) {
        status = mz_param_want_grad(tape, param, accumulate);
        *memory = param->grad;
        return status;
    }
    status = mz_tensor_create(tape, param->grad_dtype, 1, &param->numel, scratch);
    if (status == MZ_OK)
        *memory = (*scratch)->data;
    return status;
}

/* The gradient that reaches the sum besides the normalisation's own is added by the kernel, in place when it can
 * be. x and residual then share one gradient tensor. Without a residual, what x has as its gradient already is
 * added in the same way. */
static mz_status run_backward(mz_tape *tape, mz_node *node, const mz_tensor *dy, mz_tensor *dsum, mz_tensor **dx)
{
    const mz_tensor *x = node->saved[NORMALISED];
    mz_tensor *scratch[2] = {NULL, NULL};
    mz_layer_norm_grad_args args = {.rows = mz_tensor_rows(x),
                                    .cols = mz_tensor_dim(x, -1),
                                    .dy = dy->data,
                                    .x = x->data,
                                    .weight = node->params[WEIGHT]->data,
                                    .dresidual = dsum ? dsum->data : NULL,
                                    .mean = node->saved[MEAN]->data,
                                    .rstd = node->saved[RSTD]->data,
                                    .dtype = x->dtype,
                                    .dtype_grad = node->params[WEIGHT]->grad_dtype};
    mz_status status =
        param_target(tape, node->params[WEIGHT], &args.accumulate_dweight, &args.dweight, &scratch[WEIGHT]);
    if (status == MZ_OK)
        status = param_target(tape, node->params[BIAS], &args.accumulate_dbias, &args.dbias, &scratch[BIAS]);
    if (status == MZ_OK)
        status = dsum ? mz_grad_writable(tape, dsum, dx) : mz_tensor_like(tape, x, -1, dx);
    if (status == MZ_OK) {
        args.dx = (*dx)->data;
        status = mz_tape_kernels(tape)->layer_norm_grad(&args, tape->options.stream);
        if (status != MZ_OK)
            mz_tensor_drop(dx);
    }
    for (int i = 0; i < 2; i++) {
        if (status == MZ_OK && node->params[i]->trainable)
            node->params[i]->grad_written = true;
        mz_tensor_release(scratch[i]);
    }
    return status;
}

static mz_status layer_norm_backward(mz_tape *tape, mz_node *node)
{
    mz_tensor *dx = NULL;
    mz_tensor *dy = mz_grad_take(node->outputs[Y]);
    mz_tensor *x = node->inputs[0], *dsum = NULL;
    mz_status status = MZ_OK;
    if (node->outputs[SUM])
        dsum = mz_grad_take(node->outputs[SUM]);
    else if (dy && x->grad && !x->keep_grad)
        dsum = mz_grad_take(x);
    if (dy) {
        status = run_backward(tape, node, dy, dsum, &dx);
    } else {
        dx = dsum;
        dsum = NULL;
    }
    mz_tensor_release(dy);
    mz_tensor_release(dsum);
    if (status == MZ_OK && node->inputs[1]) {
        mz_tensor_retain(dx);
        status = mz_grad_give(tape, node->inputs[1], dx);
    }
    if (status == MZ_OK)
        status = mz_grad_give(tape, x, dx);
    else
        mz_tensor_release(dx);
    return status;
}

static mz_status check(const mz_tape *tape, mz_tensor *x, mz_tensor *residual, const mz_param *weight,
                       const mz_param *bias, mz_tensor **sum)
{
    mz_status status = mz_tensor_need(x, "layer_norm: x", tape->options.dtype);
    if (status == MZ_OK && x->n_dims < 1)
        status = mz_fail(MZ_ERR_ARGUMENT, "layer_norm: expected x with at least one dimension, found a scalar");
    if (status == MZ_OK && residual)
        status = mz_tensor_need_same(x, residual, "layer_norm: x and residual");
    if (status == MZ_OK && !residual != !sum)
        status = mz_fail(MZ_ERR_ARGUMENT, "layer_norm: residual and sum are given together or not at all");
    if (status == MZ_OK)
        status = mz_param_check(tape, weight, "layer_norm: weight", 1, mz_tensor_dim(x, -1), -1);
    if (status == MZ_OK)
        status = mz_param_check(tape, bias, "layer_norm: bias", 1, mz_tensor_dim(x, -1), -1);
    if (status == MZ_OK && weight == bias)
        status = mz_fail(MZ_ERR_ARGUMENT, "layer_norm: \"%s\" is both weight and bias; these are two parameters",
                         weight->spec.name);
    if (status == MZ_OK && weight->grad_dtype != bias->grad_dtype)
        status = mz_fail(MZ_ERR_ARGUMENT, "layer_norm: gradients of \"%s\" and \"%s\" differ in type",
                         weight->spec.name, bias->spec.name);
    return status;
}

mz_status mz_layer_norm(mz_tape *tape, mz_tensor *x, mz_tensor *residual, mz_param *weight, mz_param *bias,
                        float eps, mz_tensor **sum_out, mz_tensor **y_out)
{
    mz_tensor *y = NULL, *sum = NULL, *mean = NULL, *rstd = NULL;
    mz_status status = check(tape, x, residual, weight, bias, sum_out);
    if (status != MZ_OK)
        return status;
    bool tracks = mz_tape_tracks(tape, (const mz_tensor *const[]){x, residual}, 2, (mz_param *[]){weight, bias}, 2);
    int64_t rows = mz_tensor_rows(x);
    if (tracks)
        status = mz_tape_reserve(tape);
    if (status == MZ_OK && residual)
        status = mz_tensor_like(tape, x, -1, &sum);
    if (status == MZ_OK)
        status = mz_tensor_like(tape, x, -1, &y);
    if (status == MZ_OK && tracks)
        status = mz_tensor_create(tape, MZ_F32, 1, &rows, &mean);
    if (status == MZ_OK && tracks)
        status = mz_tensor_create(tape, MZ_F32, 1, &rows, &rstd);
    if (status != MZ_OK)
        goto out;
    mz_layer_norm_args args = {.rows = rows,
                               .cols = mz_tensor_dim(x, -1),
                               .eps = eps,
                               .x = x->data,
                               .residual = residual ? residual->data : NULL,
                               .weight = weight->data,
                               .bias = bias->data,
                               .sum = sum ? sum->data : NULL,
                               .y = y->data,
                               .mean = mean ? mean->data : NULL,
                               .rstd = rstd ? rstd->data : NULL,
                               .dtype = x->dtype};
    status = mz_tape_kernels(tape)->layer_norm(&args, tape->options.stream);
    if (status != MZ_OK)
        goto out;
    if (tracks)
        mz_tape_push(tape, &(mz_node){.backward = layer_norm_backward,
                                      .again = norm_again,
                                      .cheap = MZ_CHEAP_NORM,
                                      .inputs = {x, residual},
                                      .outputs = {[Y] = y, [SUM] = sum},
                                      .saved = {[NORMALISED] = sum ? sum : x, [MEAN] = mean, [RSTD] = rstd},
                                      .params = {[WEIGHT] = weight, [BIAS] = bias},
                                      .op.eps = eps});
    *y_out = y;
    if (sum)
        *sum_out = sum;
    y = sum = NULL;
out:
    mz_tensor_release(y);
    mz_tensor_release(sum);
    mz_tensor_release(mean);
    mz_tensor_release(rstd);
    return status;
}
