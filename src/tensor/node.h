/* What operations share: nodes of the tape, gradients on their way, shape checks. Private to src/tensor. */
#ifndef MZ_TENSOR_NODE_H
#define MZ_TENSOR_NODE_H

#include "tensor/tape.h"

enum { MZ_NODE_INPUTS = 3, MZ_NODE_OUTPUTS = 2, MZ_NODE_SAVED = 6, MZ_NODE_PARAMS = 2 };

typedef struct mz_node mz_node;

/* Adds this operation's contributions to the gradients of its inputs and parameters. It takes the gradients of
 * its outputs off them and may release what it saved as soon as it is done with it. */
typedef mz_status (*mz_backward_fn)(mz_tape *tape, mz_node *node);

/* Computes the node's outputs[0] into y, which has memory, from what the node saved. */
typedef mz_status (*mz_again_fn)(mz_tape *tape, const mz_node *node, mz_tensor *y);

typedef enum mz_cheap { MZ_NOT_CHEAP = 0, MZ_CHEAP_ACTIVATION, MZ_CHEAP_NORM } mz_cheap;

struct mz_node {
    mz_backward_fn backward;
    mz_again_fn again;                   /* NULL: its output cannot be put off or computed again */
    mz_cheap cheap;                      /* `again` costs little beside a matrix product */
    bool saved_for_again;                /* what is saved serves `again` alone, and is dropped after it */
    mz_tensor *inputs[MZ_NODE_INPUTS];   /* linked */
    mz_tensor *outputs[MZ_NODE_OUTPUTS]; /* linked */
    mz_tensor *saved[MZ_NODE_SAVED];     /* referenced */
    mz_param *params[MZ_NODE_PARAMS];
    union { /* the operation's own settings */
        struct {
            mz_weight_layout layout;
            mz_activation activation;
            int x_producer; /* x is not saved: that node computes it again; -1: it is saved */
        } linear;
        float eps;
        mz_activation activation;
        mz_attention_shape attention;
        mz_dropout dropout;
        float factor;
        int32_t ignore_index;
        struct {
            int64_t period, position_offset;
        } embedding;
    } op;
};

struct mz_tape {
    mz_tape_options options;
    bool recording, training;
    const char *unit;    /* borrowed */
    int unit_number;
    uint32_t n_sites;    /* random operations since begin_unit */
    int unit_first_node; /* where the unit\'s nodes begin */
    bool deferring;
    int64_t n_samples; /* of the micro-batch; 0: not known */
    mz_node *nodes;    /* a stack */
    int n_nodes, node_capacity;
    mz_tensor *live;  /* all tensors whose struct is in use */
    mz_tensor *spare; /* structs to use again */
    struct mz_tensor_slab *slabs;
    float *constants; /* device memory: a one, and a scalar that is written and never read */
};

static inline const mz_kernels *mz_tape_kernels(const mz_tape *tape)
{
    return tape->options.device->ops->kernels;
}

/* ---- tape ---- */

/* Whether an operation over these (any may be NULL) must be recorded. */
bool mz_tape_tracks(const mz_tape *tape, const mz_tensor *const *inputs, int n_inputs, mz_param *const *params,
                    int n_params);
/* Room for one more node, so that mz_tape_push cannot fail. */
mz_status mz_tape_reserve(mz_tape *tape);
/* Pushes a node described by *node: links inputs and outputs, retains what is saved, marks the outputs as needing
 * gradients and, when it has `again`, outputs[0] as its product. Call mz_tape_reserve first. */
void mz_tape_push(mz_tape *tape, const mz_node *node);
/* The node of this unit that can cheaply compute x again, when the tape wants that rather than keeping x; else -1.
 */
int mz_tape_cheap_producer(const mz_tape *tape, const mz_tensor *x);
/* The next random site of this unit. */
uint32_t mz_tape_next_site(mz_tape *tape);
/* Fills `dropout` for a tensor of n_samples x sample_elements; p becomes 0 when dropout is not active. */
void mz_tape_dropout(mz_tape *tape, float p, int64_t sample_elements, mz_dropout *dropout);
const float *mz_tape_loss_weight(const mz_tape *tape);
const float *mz_tape_grad_weight(const mz_tape *tape);
float *mz_tape_discard(const mz_tape *tape); /* device scalar to write what nobody reads */

/* ---- parameters ---- */

/* Checks that a parameter is there and has this shape; `what` names operation and argument in the message. */
mz_status mz_param_check(const mz_tape *tape, const mz_param *param, const char *what, int n_dims, int64_t d0,
                         int64_t d1);
/* Makes the parameter's gradient writable. *accumulate: it holds a sum already. The caller sets
 * param->grad_written once it has written. */
mz_status mz_param_want_grad(mz_tape *tape, mz_param *param, bool *accumulate);

/* ---- tensors ---- */

/* x's shape with another last dimension; last < 0 keeps it. */
mz_status mz_tensor_like(mz_tape *tape, const mz_tensor *x, int64_t last, mz_tensor **y);
/* A view of all of x under another shape (same number of elements). Not recorded. */
mz_status mz_tensor_view(mz_tape *tape, mz_tensor *x, int n_dims, const int64_t *shape, mz_tensor **view);
/* Like x, but without memory: its producer computes it when it is needed. last as in mz_tensor_like. */
mz_status mz_tensor_defer(mz_tape *tape, const mz_tensor *x, int64_t last, mz_tensor **y);
/* Does what was put off. */
mz_status mz_tensor_compute(mz_tensor *tensor);
void mz_tensor_link(mz_tensor *tensor);
void mz_tensor_unlink(mz_tensor *tensor); /* NULL is legal */
/* Releases *tensor and clears it. */
void mz_tensor_drop(mz_tensor **tensor);
/* Whether the single reference to the memory is the caller's, so that it may be written over. */
bool mz_tensor_is_sole(const mz_tensor *tensor);
int64_t mz_tensor_rows(const mz_tensor *tensor); /* numel / last dimension */
bool mz_tensor_same_shape(const mz_tensor *a, const mz_tensor *b);

/* "[2, 3, 4]" for messages. */
typedef struct mz_shape_text {
    char s[96];
} mz_shape_text;
mz_shape_text mz_tensor_shape(const mz_tensor *tensor);
/* Checks an operation's tensor argument: there, of this dtype, its data not yet gone. _same: and b like a. */
mz_status mz_tensor_check(const mz_tensor *tensor, const char *what, mz_dtype dtype);
mz_status mz_tensor_check_same(const mz_tensor *a, const mz_tensor *b, const char *what);
/* The same, and does what was put off, so that the data can be read. */
mz_status mz_tensor_need(mz_tensor *tensor, const char *what, mz_dtype dtype);
mz_status mz_tensor_need_same(const mz_tensor *a, mz_tensor *b, const char *what);

/* ---- gradients ---- */

/* Takes the gradient off an output; the caller owns the reference. NULL: none reached it. */
mz_tensor *mz_grad_take(mz_tensor *output);
/* Adds `grad` to the tensor's gradient and takes over the reference, also on failure. Adds in place where one of
 * the two is not shared; a tensor that needs no gradient drops it. */
mz_status mz_grad_give(mz_tape *tape, mz_tensor *tensor, mz_tensor *grad);
/* A gradient to write over: `grad` itself when it is not shared, else a new tensor like it. The caller owns it. */
mz_status mz_grad_writable(mz_tape *tape, mz_tensor *grad, mz_tensor **out);

#endif
