/* y = activation(x W + b). */
#include "tensor/node.h"

#include "core/error.h"

enum { X = 0, PRE = 1 };       /* saved */
enum { WEIGHT = 0, BIAS = 1 }; /* params */

typedef struct linear_dims {
    int64_t rows, in, out;
} linear_dims;

static linear_dims dims_of(const mz_tensor *x, const mz_param *weight, mz_weight_layout layout)
{
    bool out_in = layout == MZ_WEIGHT_OUT_IN;
    return (linear_dims){.rows = mz_tensor_rows(x),
                         .in = weight->spec.shape[out_in ? 1 : 0],
                         .out = weight->spec.shape[out_in ? 0 : 1]};
}

/* ---- forward ---- */

static mz_status check(const mz_tape *tape, mz_tensor *x, const mz_param *weight, const mz_param *bias,
                       mz_weight_layout layout, mz_activation activation)
{
    mz_status status = mz_tensor_need(x, "linear: x", tape->options.dtype);
    if (status != MZ_OK)
        return status;
    if (x->n_dims < 1)
        return mz_fail(MZ_ERR_ARGUMENT, "linear: expected x with at least one dimension, found a scalar");
    if (activation < 0 || activation >= MZ_N_ACTIVATIONS)
        return mz_fail(MZ_ERR_ARGUMENT, "linear: unknown activation %d", (int)activation);
    int64_t in = mz_tensor_dim(x, -1);
    bool out_in = layout == MZ_WEIGHT_OUT_IN;
    status = mz_param_check(tape, weight, "linear: weight", 2, out_in ? -1 : in, out_in ? in : -1);
    if (status == MZ_OK && bias)
        status = mz_param_check(tape, bias, "linear: bias", 1, dims_of(x, weight, layout).out, -1);
    return status;
}

static mz_status run_forward(mz_tape *tape, const mz_tensor *x, const mz_param *weight, const mz_param *bias,
                             mz_weight_layout layout, mz_activation activation, mz_tensor *pre, mz_tensor *y)
{
    linear_dims d = dims_of(x, weight, layout);
    bool out_in = layout == MZ_WEIGHT_OUT_IN;
    mz_matmul_args args = {.m = d.rows,
                           .n = d.out,
                           .k = d.in,
                           .batch = 1,
                           .trans_b = out_in,
                           .a = x->data,
                           .b = weight->data,
                           .c = y->data,
                           .lda = d.in,
                           .ldb = out_in ? d.in : d.out,
                           .ldc = d.out,
                           .dtype = x->dtype,
                           .dtype_c = y->dtype,
                           .alpha = 1.0f,
                           .activation = activation,
                           .bias = bias ? bias->data : NULL,
                           .aux = pre ? pre->data : NULL};
    args.epilogue = activation != MZ_ACT_NONE ? MZ_EPI_ACT : bias ? MZ_EPI_BIAS : MZ_EPI_NONE;
    return mz_tape_kernels(tape)->matmul(&args, tape->options.stream);
}

/* ---- again ---- */

/* x as it was, for the caller to release: saved, or computed again by the operation that made it. */
static mz_status input_again(mz_tape *tape, const mz_node *node, mz_tensor **x)
{
    int producer = node->op.linear.x_producer;
    if (producer < 0) {
        *x = node->saved[X];
        mz_tensor_retain(*x);
        return MZ_OK;
    }
    mz_status status = mz_tensor_like(tape, node->inputs[0], -1, x);
    if (status != MZ_OK)
        return status;
    status = tape->nodes[producer].again(tape, &tape->nodes[producer], *x);
    if (status != MZ_OK)
        mz_tensor_drop(x);
    return status;
}

static mz_status activation_again(mz_tape *tape, const mz_node *node, mz_tensor *y)
{
    mz_activation_args args = {.n = y->numel,
                               .activation = node->op.linear.activation,
                               .x = node->saved[PRE]->data,
                               .y = y->data,
                               .dtype = y->dtype};
    return mz_tape_kernels(tape)->activation(&args, tape->options.stream);
}

static mz_status product_again(mz_tape *tape, const mz_node *node, mz_tensor *y)
{
    mz_tensor *x;
    mz_status status = input_again(tape, node, &x);
    if (status != MZ_OK)
        return status;
    status = run_forward(tape, x, node->params[WEIGHT], node->params[BIAS], node->op.linear.layout, MZ_ACT_NONE,
                         NULL, y);
    mz_tensor_release(x);
    return status;
}

/* ---- backward ---- */

/* *dy becomes the gradient of the pre-activation. */
static mz_status undo_activation(mz_tape *tape, mz_node *node, mz_tensor **dy)
{
    mz_tensor *pre = node->saved[PRE], *dpre;
    if (!pre || node->outputs[0]->grad_is_pre)
        return MZ_OK;
    mz_status status = mz_grad_writable(tape, *dy, &dpre);
    if (status != MZ_OK)
        return status;
    mz_activation_grad_args args = {.n = dpre->numel,
                                    .activation = node->op.linear.activation,
                                    .dy = (*dy)->data,
                                    .x = pre->data,
                                    .dx = dpre->data,
                                    .dtype = dpre->dtype};
    status = mz_tape_kernels(tape)->activation_grad(&args, tape->options.stream);
    mz_tensor_release(*dy);
    *dy = dpre;
    return status;
}

static mz_status bias_gradient(mz_tape *tape, mz_param *bias, const mz_tensor *dy, int64_t out)
{
    bool accumulate;
    mz_status status = mz_param_want_grad(tape, bias, &accumulate);
    if (status != MZ_OK)
        return status;
    mz_column_sum_args args = {.rows = dy->numel / out,
                               .cols = out,
                               .x = dy->data,
                               .dtype = dy->dtype,
                               .out = bias->grad,
                               .dtype_out = bias->grad_dtype,
                               .accumulate = accumulate};
    status = mz_tape_kernels(tape)->column_sum(&args, tape->options.stream);
    if (status == MZ_OK)
        bias->grad_written = true;
    return status;
}

/* dW is dy^T x or x^T dy by its layout; the bias's gradient is summed on the way when it can be. */
static mz_status weight_gradient(mz_tape *tape, const mz_node *node, const mz_tensor *dy)
{
    mz_param *weight = node->params[WEIGHT], *bias = node->params[BIAS];
    linear_dims d = dims_of(node->inputs[0], weight, node->op.linear.layout);
    bool out_in = node->op.linear.layout == MZ_WEIGHT_OUT_IN;
    bool with_bias = bias && bias->trainable;
    if (!weight->trainable)
        return with_bias ? bias_gradient(tape, bias, dy, d.out) : MZ_OK;
    if (with_bias && bias->grad_dtype != weight->grad_dtype) {
        mz_status bias_status = bias_gradient(tape, bias, dy, d.out);
        if (bias_status != MZ_OK)
            return bias_status;
        with_bias = false;
    }
    mz_matmul_args args = {.m = out_in ? d.out : d.in,
                           .n = out_in ? d.in : d.out,
                           .k = d.rows,
                           .batch = 1,
                           .trans_a = true,
                           .lda = out_in ? d.out : d.in,
                           .ldb = out_in ? d.in : d.out,
                           .ldc = out_in ? d.in : d.out,
                           .dtype = dy->dtype,
                           .dtype_c = weight->grad_dtype,
                           .alpha = 1.0f};
    mz_status status = mz_param_want_grad(tape, weight, &args.accumulate);
    if (status == MZ_OK && with_bias)
        status = mz_param_want_grad(tape, bias, &args.accumulate_bias_grad);
    mz_tensor *x = NULL;
    if (status == MZ_OK)
        status = input_again(tape, node, &x);
    if (status != MZ_OK)
        return status;
    args.a = out_in ? dy->data : x->data;
    args.b = out_in ? x->data : dy->data;
    args.c = weight->grad;
    if (with_bias) {
        args.epilogue = out_in ? MZ_EPI_BGRAD_A : MZ_EPI_BGRAD_B;
        args.bias_grad = bias->grad;
    }
    status = mz_tape_kernels(tape)->matmul(&args, tape->options.stream);
    mz_tensor_release(x);
    if (status != MZ_OK)
        return status;
    weight->grad_written = true;
    if (with_bias)
        bias->grad_written = true;
    return MZ_OK;
}

/* What x was before its activation, when a linear operation made it so. */
static const mz_tensor *pre_activation(const mz_tape *tape, const mz_tensor *x)
{
    const mz_node *producer = x->producer >= 0 ? &tape->nodes[x->producer] : NULL;
    return producer && producer->again == activation_again ? producer->saved[PRE] : NULL;
}

/* dx = dy W^T. Where x is an activation's output that only this operation read, that activation's derivative is
 * multiplied in by the same kernel; where x has a gradient already, the product is added to it in place. */
static mz_status input_gradient(mz_tape *tape, const mz_node *node, const mz_tensor *dy)
{
    const mz_param *weight = node->params[WEIGHT];
    mz_tensor *x = node->inputs[0], *dx;
    linear_dims d = dims_of(x, weight, node->op.linear.layout);
    bool out_in = node->op.linear.layout == MZ_WEIGHT_OUT_IN;
    const mz_tensor *pre = pre_activation(tape, x);
    bool fuse = pre && x->n_consumers == 1 && !x->grad && !x->keep_grad;
    bool add = x->grad && mz_tensor_is_sole(x->grad);
    if (add) {
        dx = x->grad;
    } else {
        mz_status status = mz_tensor_like(tape, x, -1, &dx);
        if (status != MZ_OK)
            return status;
    }
    mz_matmul_args args = {.m = d.rows,
                           .n = d.in,
                           .k = d.out,
                           .batch = 1,
                           .trans_b = !out_in,
                           .a = dy->data,
                           .b = weight->data,
                           .c = dx->data,
                           .lda = d.out,
                           .ldb = out_in ? d.in : d.out,
                           .ldc = d.in,
                           .dtype = dy->dtype,
                           .dtype_c = dx->dtype,
                           .alpha = 1.0f,
                           .accumulate = add};
    if (fuse) {
        args.epilogue = MZ_EPI_DACT;
        args.activation = tape->nodes[x->producer].op.linear.activation;
        args.aux = pre->data;
    }
    mz_status status = mz_tape_kernels(tape)->matmul(&args, tape->options.stream);
    if (add)
        return status;
    if (status != MZ_OK) {
        mz_tensor_release(dx);
        return status;
    }
    x->grad_is_pre = fuse;
    return mz_grad_give(tape, x, dx);
}

static mz_status linear_backward(mz_tape *tape, mz_node *node)
{
    mz_tensor *dy = mz_grad_take(node->outputs[0]);
    mz_status status = undo_activation(tape, node, &dy);
    mz_tensor_drop(&node->saved[PRE]);
    if (status == MZ_OK)
        status = weight_gradient(tape, node, dy);
    mz_tensor_drop(&node->saved[X]);
    if (status == MZ_OK && node->inputs[0]->needs_grad)
        status = input_gradient(tape, node, dy);
    mz_tensor_release(dy);
    return status;
}

mz_status mz_linear(mz_tape *tape, mz_tensor *x, mz_param *weight, mz_param *bias, mz_weight_layout layout,
                    mz_activation activation, mz_tensor **out)
{
    mz_tensor *y = NULL, *pre = NULL;
    mz_status status = check(tape, x, weight, bias, layout, activation);
    if (status != MZ_OK)
        return status;
    mz_param *params[] = {weight, bias};
    bool tracks = mz_tape_tracks(tape, (const mz_tensor *const[]){x}, 1, params, 2);
    bool active = activation != MZ_ACT_NONE, defer = tracks && tape->deferring && !active;
    linear_dims d = dims_of(x, weight, layout);
    if (tracks)
        status = mz_tape_reserve(tape);
    if (status == MZ_OK)
        status = defer ? mz_tensor_defer(tape, x, d.out, &y) : mz_tensor_like(tape, x, d.out, &y);
    if (status == MZ_OK && tracks && active)
        status = mz_tensor_like(tape, y, -1, &pre);
    if (status == MZ_OK && !defer)
        status = run_forward(tape, x, weight, bias, layout, activation, pre, y);
    if (status != MZ_OK)
        goto out;
    if (tracks) {
        int x_producer = mz_tape_cheap_producer(tape, x);
        bool save_x = x_producer < 0 && (weight->trainable || defer);
        mz_tape_push(tape, &(mz_node){.backward = linear_backward,
                                      .again = active  ? activation_again
                                               : defer ? product_again
                                                       : NULL,
                                      .cheap = active ? MZ_CHEAP_ACTIVATION : MZ_NOT_CHEAP,
                                      .inputs = {x},
                                      .outputs = {y},
                                      .saved = {[X] = save_x ? x : NULL, [PRE] = pre},
                                      .params = {[WEIGHT] = weight, [BIAS] = bias},
                                      .op.linear = {layout, activation, x_producer}});
    }
    *out = y;
    y = NULL;
out:
    mz_tensor_release(pre);
    mz_tensor_release(y);
    return status;
}
