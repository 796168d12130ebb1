/* Views: the same memory under another shape, and one position of each sample. */
#include "tensor/node.h"
#include "tensor/select.h"

#include <inttypes.h>
#include <string.h>

#include "core/error.h"

static mz_status reshape_backward(mz_tape *tape, mz_node *node)
{
    mz_tensor *x = node->inputs[0], *dx;
    mz_tensor *dy = mz_grad_take(node->outputs[0]);
    mz_status status = mz_tensor_view(tape, dy, x->n_dims, x->shape, &dx);
    mz_tensor_release(dy);
    return status == MZ_OK ? mz_grad_give(tape, x, dx) : status;
}

/* Puts the missing dimension in the place of a -1. */
static mz_status resolve(const mz_tensor *x, int n_dims, const int64_t *wanted, int64_t *shape)
{
    int64_t known = 1;
    int open = -1;
    mz_tensor text = {.n_dims = n_dims};
    if (n_dims < 0 || n_dims > MZ_MAX_DIMS)
        return mz_fail(MZ_ERR_ARGUMENT, "reshape: expected at most %d dimensions, found %d", MZ_MAX_DIMS, n_dims);
    for (int i = 0; i < n_dims; i++) {
        text.shape[i] = shape[i] = wanted[i];
        if (wanted[i] == -1 && open < 0)
            open = i;
        else if (wanted[i] < 0 || (wanted[i] > 0 && known > x->numel / wanted[i]))
            known = -1;
        else if (known >= 0)
            known *= wanted[i];
    }
    if (open >= 0 && known > 0 && x->numel % known == 0) {
        shape[open] = x->numel / known;
        known = x->numel;
    }
    if (known != x->numel)
        return mz_fail(MZ_ERR_ARGUMENT, "reshape: %s does not fit into %s", mz_tensor_shape(x).s,
                       mz_tensor_shape(&text).s);
    return MZ_OK;
}

mz_status mz_reshape(mz_tape *tape, mz_tensor *x, int n_dims, const int64_t *shape, mz_tensor **out)
{
    int64_t full[MZ_MAX_DIMS];
    mz_status status = x ? mz_tensor_need(x, "reshape", x->dtype) : mz_tensor_need(x, "reshape", MZ_F32);
    if (status == MZ_OK)
        status = resolve(x, n_dims, shape, full);
    if (status != MZ_OK)
        return status;
    bool tracks = mz_tape_tracks(tape, (const mz_tensor *const[]){x}, 1, NULL, 0);
    if (tracks)
        status = mz_tape_reserve(tape);
    if (status == MZ_OK)
        status = mz_tensor_view(tape, x, n_dims, full, out);
    if (status == MZ_OK && tracks)
        mz_tape_push(tape, &(mz_node){.backward = reshape_backward, .inputs = {x}, .outputs = {*out}});
    return status;
}

mz_status mz_select_last_position(mz_tape *tape, mz_tensor *x, mz_tensor **out)
{
    mz_tensor *y;
    mz_status status = mz_tensor_need(x, "last position: x", tape->options.dtype);
    if (status == MZ_OK && (x->n_dims != 3 || x->shape[1] < 1))
        status = mz_fail(MZ_ERR_ARGUMENT, "last position: expected [B, T, D], found %s", mz_tensor_shape(x).s);
    if (status == MZ_OK && mz_tape_tracks(tape, (const mz_tensor *const[]){x}, 1, NULL, 0))
        status = mz_fail(MZ_ERR_ARGUMENT, "last position: has no gradient; it is for generation");
    if (status != MZ_OK)
        return status;
    int64_t t = x->shape[1], d = x->shape[2];
    status = mz_tensor_create(tape, x->dtype, 3, (const int64_t[]){x->shape[0], 1, d}, &y);
    if (status != MZ_OK)
        return status;
    size_t row = (size_t)d * mz_dtype_size(x->dtype);
    status = tape->options.device->ops->copy_2d(tape->options.stream, y->data, row,
                                                (const char *)x->data + (size_t)(t - 1) * row, (size_t)t * row, row,
                                                (size_t)x->shape[0]);
    if (status == MZ_OK)
        *out = y;
    else
        mz_tensor_release(y);
    return status;
}
