/* Life of tensors and of the gradients on them. */
#include "tensor/node.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/error.h"
#include "core/memory.h"
#include "tensor/slab.h"

/* Keeps products of a shape's dimensions and byte counts far from overflow. */
#define MAX_ELEMENTS ((int64_t)1 << 56)

/* ---- structs ---- */

static mz_status shape_numel(int n_dims, const int64_t *shape, int64_t *numel)
{
    int64_t n = 1;
    if (n_dims < 0 || n_dims > MZ_MAX_DIMS)
        return mz_fail(MZ_ERR_ARGUMENT, "tensor: expected at most %d dimensions, found %d", MZ_MAX_DIMS, n_dims);
    for (int i = 0; i < n_dims; i++) {
        if (shape[i] < 0 || (shape[i] > 0 && n > MAX_ELEMENTS / shape[i]))
            return mz_fail(MZ_ERR_ARGUMENT, "tensor: dimension %d is %" PRId64, i, shape[i]);
        n *= shape[i];
    }
    *numel = n;
    return MZ_OK;
}

static mz_status take_struct(mz_tape *tape, mz_dtype dtype, int n_dims, const int64_t *shape, mz_tensor **out)
{
    int64_t numel = 0;
    mz_status status = shape_numel(n_dims, shape, &numel);
    if (status == MZ_OK && !tape->spare)
        status = mz_tensor_slab_grow(tape);
    if (status != MZ_OK)
        return status;
    mz_tensor *t = tape->spare;
    tape->spare = t->next;
    *t = (mz_tensor){.n_refs = 1, .dtype = dtype, .n_dims = n_dims, .numel = numel, .tape = tape, .producer = -1};
    for (int i = 0; i < n_dims; i++)
        t->shape[i] = shape[i];
    t->next = tape->live;
    if (t->next)
        t->next->prev = t;
    tape->live = t;
    *out = t;
    return MZ_OK;
}

static void give_struct_back(mz_tensor *t)
{
    mz_tape *tape = t->tape;
    mz_tensor_drop(&t->grad);
    if (t->prev)
        t->prev->next = t->next;
    else
        tape->live = t->next;
    if (t->next)
        t->next->prev = t->prev;
    t->next = tape->spare;
    tape->spare = t;
}

mz_status mz_tensor_create(mz_tape *tape, mz_dtype dtype, int n_dims, const int64_t *shape, mz_tensor **tensor)
{
    mz_tensor *t;
    mz_status status = take_struct(tape, dtype, n_dims, shape, &t);
    if (status != MZ_OK)
        return status;
    status = mz_arena_alloc(tape->options.arena, (size_t)t->numel * mz_dtype_size(dtype), &t->data);
    if (status != MZ_OK) {
        t->data = NULL;
        mz_tensor_release(t);
        return status;
    }
    t->owned = true;
    *tensor = t;
    return MZ_OK;
}

mz_status mz_tensor_borrow(mz_tape *tape, mz_dtype dtype, int n_dims, const int64_t *shape, void *data,
                           mz_tensor **tensor)
{
    mz_status status = take_struct(tape, dtype, n_dims, shape, tensor);
    if (status == MZ_OK)
        (*tensor)->data = data;
    return status;
}

mz_status mz_tensor_like(mz_tape *tape, const mz_tensor *x, int64_t last, mz_tensor **y)
{
    int64_t shape[MZ_MAX_DIMS];
    memcpy(shape, x->shape, sizeof shape);
    if (last >= 0 && x->n_dims > 0)
        shape[x->n_dims - 1] = last;
    return mz_tensor_create(tape, x->dtype, x->n_dims, shape, y);
}

mz_status mz_tensor_view(mz_tape *tape, mz_tensor *x, int n_dims, const int64_t *shape, mz_tensor **view)
{
    mz_tensor *v;
    mz_status status = take_struct(tape, x->dtype, n_dims, shape, &v);
    if (status != MZ_OK)
        return status;
    v->data = x->data;
    v->base = x->base ? x->base : x;
    mz_tensor_retain(v->base);
    *view = v;
    return MZ_OK;
}

mz_status mz_tensor_defer(mz_tape *tape, const mz_tensor *x, int64_t last, mz_tensor **y)
{
    int64_t shape[MZ_MAX_DIMS];
    memcpy(shape, x->shape, sizeof shape);
    if (last >= 0 && x->n_dims > 0)
        shape[x->n_dims - 1] = last;
    mz_status status = take_struct(tape, x->dtype, x->n_dims, shape, y);
    if (status == MZ_OK)
        (*y)->deferred = true;
    return status;
}

mz_status mz_tensor_compute(mz_tensor *t)
{
    if (!t->deferred)
        return MZ_OK;
    mz_tape *tape = t->tape;
    mz_node *node = &tape->nodes[t->producer];
    mz_status status = mz_arena_alloc(tape->options.arena, (size_t)t->numel * mz_dtype_size(t->dtype), &t->data);
    if (status != MZ_OK) {
        t->data = NULL;
        return status;
    }
    t->owned = true;
    t->deferred = false;
    status = node->again(tape, node, t);
    for (int i = 0; i < MZ_NODE_SAVED && node->saved_for_again; i++)
        mz_tensor_drop(&node->saved[i]);
    return status;
}

/* ---- references ---- */

void mz_tensor_retain(mz_tensor *tensor)
{
    tensor->n_refs++;
}

void mz_tensor_release(mz_tensor *t)
{
    if (!t || --t->n_refs > 0)
        return;
    if (t->owned)
        mz_arena_free(t->tape->options.arena, t->data);
    t->owned = false;
    t->data = NULL;
    mz_tensor_drop(&t->base);
    if (t->n_links == 0)
        give_struct_back(t);
}

void mz_tensor_drop(mz_tensor **tensor)
{
    mz_tensor *t = *tensor;
    *tensor = NULL;
    mz_tensor_release(t);
}

void mz_tensor_link(mz_tensor *tensor)
{
    tensor->n_links++;
}

void mz_tensor_unlink(mz_tensor *t)
{
    if (!t || --t->n_links > 0 || t->n_refs > 0)
        return;
    give_struct_back(t);
}

bool mz_tensor_is_sole(const mz_tensor *t)
{
    if (t->base)
        return t->n_refs == 1 && t->base->n_refs == 1 && t->base->owned;
    return t->n_refs == 1 && t->owned;
}

/* ---- facts ---- */

mz_dtype mz_tensor_dtype(const mz_tensor *tensor)
{
    return tensor->dtype;
}

int mz_tensor_n_dims(const mz_tensor *tensor)
{
    return tensor->n_dims;
}

int64_t mz_tensor_dim(const mz_tensor *tensor, int i)
{
    if (i < 0)
        i += tensor->n_dims;
    return i >= 0 && i < tensor->n_dims ? tensor->shape[i] : 1;
}

int64_t mz_tensor_numel(const mz_tensor *tensor)
{
    return tensor->numel;
}

void *mz_tensor_data(const mz_tensor *tensor)
{
    if (tensor->deferred && mz_tensor_compute((mz_tensor *)tensor) != MZ_OK)
        return NULL;
    return tensor->data;
}

int64_t mz_tensor_rows(const mz_tensor *tensor)
{
    int64_t cols = mz_tensor_dim(tensor, -1);
    return cols > 0 ? tensor->numel / cols : 0;
}

bool mz_tensor_same_shape(const mz_tensor *a, const mz_tensor *b)
{
    return a->n_dims == b->n_dims && memcmp(a->shape, b->shape, (size_t)a->n_dims * sizeof a->shape[0]) == 0;
}

mz_shape_text mz_tensor_shape(const mz_tensor *tensor)
{
    mz_shape_text text = {"["};
    size_t used = 1;
    for (int i = 0; i < tensor->n_dims; i++)
        used +=
            (size_t)snprintf(text.s + used, sizeof text.s - used, "%s%" PRId64, i ? ", " : "", tensor->shape[i]);
    snprintf(text.s + used, sizeof text.s - used, "]");
    return text;
}

mz_status mz_tensor_check(const mz_tensor *tensor, const char *what, mz_dtype dtype)
{
    if (!tensor)
        return mz_fail(MZ_ERR_ARGUMENT, "%s: expected a tensor, found none", what);
    if (!tensor->data && !tensor->deferred && tensor->numel > 0)
        return mz_fail(MZ_ERR_ARGUMENT, "%s: the tensor %s was released already", what, mz_tensor_shape(tensor).s);
    if (tensor->dtype != dtype)
        return mz_fail(MZ_ERR_ARGUMENT, "%s: expected elements of type %s, found %s %s", what, mz_dtype_name(dtype),
                       mz_dtype_name(tensor->dtype), mz_tensor_shape(tensor).s);
    return MZ_OK;
}

mz_status mz_tensor_check_same(const mz_tensor *a, const mz_tensor *b, const char *what)
{
    mz_status status = mz_tensor_check(b, what, a->dtype);
    if (status == MZ_OK && !mz_tensor_same_shape(a, b))
        status = mz_fail(MZ_ERR_ARGUMENT, "%s: expected equal shapes, found %s and %s", what, mz_tensor_shape(a).s,
                         mz_tensor_shape(b).s);
    return status;
}

mz_status mz_tensor_need(mz_tensor *tensor, const char *what, mz_dtype dtype)
{
    mz_status status = mz_tensor_check(tensor, what, dtype);
    return status == MZ_OK ? mz_tensor_compute(tensor) : status;
}

mz_status mz_tensor_need_same(const mz_tensor *a, mz_tensor *b, const char *what)
{
    mz_status status = mz_tensor_check_same(a, b, what);
    return status == MZ_OK ? mz_tensor_compute(b) : status;
}

/* ---- gradients ---- */

void mz_tensor_keep_grad(mz_tensor *tensor)
{
    tensor->keep_grad = true;
    tensor->needs_grad = true;
}

mz_tensor *mz_tensor_grad(const mz_tensor *tensor)
{
    return tensor->grad;
}

void mz_tensor_move_grad(mz_tensor *from, mz_tensor *to)
{
    if (from == to)
        return;
    mz_tensor_drop(&to->grad);
    to->grad = from->grad;
    from->grad = NULL;
}

mz_tensor *mz_grad_take(mz_tensor *output)
{
    mz_tensor *grad = output->grad;
    if (grad && output->keep_grad)
        mz_tensor_retain(grad);
    else
        output->grad = NULL;
    return grad;
}

mz_status mz_grad_writable(mz_tape *tape, mz_tensor *grad, mz_tensor **out)
{
    if (!mz_tensor_is_sole(grad))
        return mz_tensor_like(tape, grad, -1, out);
    mz_tensor_retain(grad);
    *out = grad;
    return MZ_OK;
}

mz_status mz_grad_give(mz_tape *tape, mz_tensor *tensor, mz_tensor *grad)
{
    mz_status status = MZ_OK;
    mz_tensor *old = tensor->grad, *sum = NULL;
    if (!tensor->needs_grad)
        goto out;
    if (!old) {
        tensor->grad = grad;
        return MZ_OK;
    }
    if (mz_tensor_is_sole(old))
        sum = old;
    else if (mz_tensor_is_sole(grad))
        sum = grad;
    if (sum)
        mz_tensor_retain(sum);
    else if ((status = mz_tensor_like(tape, old, -1, &sum)) != MZ_OK)
        goto out;
    mz_add_args args = {.n = old->numel,
                        .alpha = 1.0f,
                        .beta = 1.0f,
                        .a = old->data,
                        .b = grad->data,
                        .y = sum->data,
                        .dtype = old->dtype};
    status = mz_tape_kernels(tape)->add(&args, tape->options.stream);
    mz_tensor_release(old);
    tensor->grad = sum;
out:
    mz_tensor_release(grad);
    return status;
}
