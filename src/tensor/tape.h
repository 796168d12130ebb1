/* The tape's inside: what operations and the unit runner use. Users see include/mpizero/{tensor,nn}.h. */
#ifndef MZ_TENSOR_TAPE_H
#define MZ_TENSOR_TAPE_H

#include <limits.h>

#include "device/arena.h"
#include "device/device.h"
#include "kernels/kernels.h"
#include "mpizero/model.h"
#include "mpizero/tensor.h"

/* A tensor has two counts. References keep its data; links (from the nodes that made or used it) keep only the
 * struct, so that a gradient can still find its way through a tensor whose memory is long reused. */
struct mz_tensor {
    int n_refs;
    int n_links;
    int n_consumers; /* recorded operations that took it as an input */
    mz_dtype dtype;
    int n_dims;
    int64_t shape[MZ_MAX_DIMS];
    int64_t numel;
    void *data;       /* device memory; NULL once the last reference is gone */
    bool owned;       /* data was cut from the tape's arena; else it is a view's or somebody else's */
    bool deferred;    /* its producer computes it when somebody reads it */
    int producer;     /* node of the tape that can compute it (again); -1: none */
    mz_tape *tape;    /* on whose list it is */
    mz_tensor *base;  /* a view's owner of memory (retained), else NULL */
    mz_tensor *grad;  /* during backward; same number of elements and dtype; owned reference */
    bool grad_is_pre; /* of y = activation(pre) by mz_linear: grad is already that of pre */
    bool needs_grad;  /* something upstream has parameters or keep_grad */
    bool keep_grad;
    bool is_loss;           /* a loss: its gradient is implied */
    mz_tensor *next, *prev; /* the tape's list of live tensors */
};

/* A parameter at run time. `data` is valid between the engine's fetch and release of its unit. */
struct mz_param {
    mz_param_spec spec; /* shallow copy: the strings belong to the model */
    int unit;
    int64_t numel;
    mz_dtype dtype; /* of data */
    mz_dtype grad_dtype;
    void *data;        /* device memory, numel elements; NULL while not gathered */
    void *grad;        /* device memory, numel elements; NULL while there is no buffer for it */
    bool grad_written; /* grad holds a sum already: add to it; otherwise overwrite */
    bool trainable;
    int64_t rows; /* of a matrix: data and grad have memory for so many, and zeros in those beyond its shape; 0: it
                   * has none beyond. Whoever writes the gradient may write zeros there. */
};

/* Asked by an operation that is about to write a parameter's gradient: must see that param->grad is valid.
 * Called in forward too (fused losses form gradients there). */
typedef mz_status (*mz_grad_request)(void *context, mz_param *param);

/* Outputs that are computed again in the backward pass rather than kept: those of activation functions in the first
 * `activations` units, those of layer norms in the first `norms`. All of them are a third of a transformer's memory,
 * for about 2 % more work; per byte, activation functions cost less. */
typedef struct mz_recompute {
    int activations, norms;
} mz_recompute;
#define MZ_RECOMPUTE_ALL ((mz_recompute){INT_MAX, INT_MAX})

typedef struct mz_tape_options {
    mz_device *device;            /* borrowed */
    mz_stream *stream;            /* compute stream, borrowed */
    mz_arena *arena;              /* borrowed */
    mz_dtype dtype;               /* of activations */
    mz_grad_request grad_request; /* NULL: parameters' grad pointers are always valid */
    void *grad_context;
    const mz_rng_state *rng;  /* device memory; NULL: no dropout */
    const float *loss_weight; /* device scalar: multiplies the losses; NULL: 1 */
    const float *grad_weight; /* device scalar: loss_weight times the loss scale; NULL: 1 */
    mz_recompute recompute;
} mz_tape_options;

mz_status mz_tape_create(const mz_tape_options *options, mz_tape **tape);
void mz_tape_destroy(mz_tape *tape);

/* Drops all nodes and all tensors of this tape: end of a micro-batch. */
void mz_tape_reset(mz_tape *tape);

/* recording: nodes are pushed (training). training: dropout is active. Both false at first. */
void mz_tape_set_mode(mz_tape *tape, bool recording, bool training);
bool mz_tape_recording(const mz_tape *tape);
/* While a unit is recomputed: operations that can put their work off until somebody reads their output, so that the
 * unit's last products, which no gradient needs, are never formed. */
void mz_tape_set_deferring(mz_tape *tape, bool deferring);

/* Samples of the micro-batch, so that dropout knows whose elements it draws for, also in a tensor that was
 * reshaped. 0: a tensor's first dimension counts them. */
void mz_tape_set_samples(mz_tape *tape, int64_t n_samples);

/* Random sites are (name, operation's index since this call), so that recomputing a unit draws alike. The name is
 * borrowed until the next call. */
void mz_tape_begin_unit(mz_tape *tape, int unit, const char *unit_name);

/* A mark on the tape, and the backward walk from the end down to it. Nodes are popped as they run and
 * their saved tensors released. The seed gradient of a loss tensor is implied (losses are already
 * weighted by grad_weight); other tensors start from the grads that were put on them. */
int mz_tape_mark(const mz_tape *tape);
mz_status mz_tape_backward(mz_tape *tape, int mark);

/* New tensor with undefined contents from the arena. */
mz_status mz_tensor_create(mz_tape *tape, mz_dtype dtype, int n_dims, const int64_t *shape, mz_tensor **tensor);
/* A tensor over memory that somebody else owns (batch inputs). Never frees it; one reference. */
mz_status mz_tensor_borrow(mz_tape *tape, mz_dtype dtype, int n_dims, const int64_t *shape, void *data,
                           mz_tensor **tensor);
/* Moves the gradient of `from` onto `to` (same shape): a recomputed unit's outputs take over the gradients
 * of those that the next unit saw. */
void mz_tensor_move_grad(mz_tensor *from, mz_tensor *to);

#endif
