#include "tensor/node.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

#include "core/error.h"
#include "core/memory.h"
#include "core/rng.h"
#include "tensor/slab.h"

#define DISCARD_INDEX   16 /* floats: apart from the one, in a cache line of its own */
#define CONSTANTS_BYTES 128

/* ---- lifecycle ---- */

mz_status mz_tape_create(const mz_tape_options *options, mz_tape **out)
{
    static const float one = 1.0f;
    const mz_device_ops *ops = options->device->ops;
    mz_tape *tape = mz_calloc(1, sizeof *tape);
    if (!tape)
        return MZ_ERR_MEMORY;
    tape->options = *options;
    tape->unit = "";
    void *memory = NULL;
    mz_status status = ops->alloc(options->device, CONSTANTS_BYTES, &memory);
    tape->constants = memory;
    if (status == MZ_OK)
        status = ops->copy(options->stream, tape->constants, &one, sizeof one);
    if (status != MZ_OK) {
        mz_tape_destroy(tape);
        return status;
    }
    *out = tape;
    return MZ_OK;
}

void mz_tape_destroy(mz_tape *tape)
{
    if (!tape)
        return;
    mz_tape_reset(tape);
    mz_tensor_slab_free_all(tape);
    if (tape->constants)
        tape->options.device->ops->free(tape->options.device, tape->constants);
    mz_free(tape->nodes);
    mz_free(tape);
}

void mz_tape_reset(mz_tape *tape)
{
    tape->n_nodes = tape->unit_first_node = 0;
    for (mz_tensor *t = tape->live, *next; t; t = next) {
        next = t->next;
        if (t->owned)
            mz_arena_free(tape->options.arena, t->data);
        t->next = tape->spare;
        tape->spare = t;
    }
    tape->live = NULL;
}

void mz_tape_set_mode(mz_tape *tape, bool recording, bool training)
{
    tape->recording = recording;
    tape->training = training;
}

bool mz_tape_recording(const mz_tape *tape)
{
    return tape->recording;
}

void mz_tape_set_deferring(mz_tape *tape, bool deferring)
{
    tape->deferring = deferring;
}

/* ---- randomness and weights ---- */

void mz_tape_begin_unit(mz_tape *tape, int unit, const char *unit_name)
{
    tape->unit = unit_name;
    tape->unit_number = unit;
    tape->n_sites = 0;
    tape->unit_first_node = tape->n_nodes;
}

void mz_tape_set_samples(mz_tape *tape, int64_t n_samples)
{
    tape->n_samples = n_samples;
}

uint32_t mz_tape_next_site(mz_tape *tape)
{
    return mz_rng_site(tape->unit, tape->n_sites++);
}

void mz_tape_dropout(mz_tape *tape, float p, int64_t sample_elements, mz_dropout *dropout)
{
    /* The site is drawn even when unused, so that turning one dropout off does not shift the others. */
    uint32_t site = mz_tape_next_site(tape);
    bool active = tape->training && tape->options.rng && p > 0.0f;
    *dropout = (mz_dropout){
        .p = active ? p : 0.0f, .site = site, .sample_elements = sample_elements, .state = tape->options.rng};
}

const float *mz_tape_loss_weight(const mz_tape *tape)
{
    return tape->options.loss_weight ? tape->options.loss_weight : tape->constants;
}

const float *mz_tape_grad_weight(const mz_tape *tape)
{
    return tape->options.grad_weight ? tape->options.grad_weight : tape->constants;
}

float *mz_tape_discard(const mz_tape *tape)
{
    return tape->constants + DISCARD_INDEX;
}

/* ---- recording ---- */

bool mz_tape_tracks(const mz_tape *tape, const mz_tensor *const *inputs, int n_inputs, mz_param *const *params,
                    int n_params)
{
    if (!tape->recording)
        return false;
    for (int i = 0; i < n_inputs; i++)
        if (inputs[i] && inputs[i]->needs_grad)
            return true;
    for (int i = 0; i < n_params; i++)
        if (params[i] && params[i]->trainable)
            return true;
    return false;
}

mz_status mz_tape_reserve(mz_tape *tape)
{
    if (tape->n_nodes < tape->node_capacity)
        return MZ_OK;
    int capacity = tape->node_capacity ? 2 * tape->node_capacity : 64;
    mz_node *nodes = mz_realloc(tape->nodes, (size_t)capacity * sizeof *nodes);
    if (!nodes)
        return MZ_ERR_MEMORY;
    tape->nodes = nodes;
    tape->node_capacity = capacity;
    return MZ_OK;
}

void mz_tape_push(mz_tape *tape, const mz_node *node)
{
    assert(tape->n_nodes < tape->node_capacity);
    tape->nodes[tape->n_nodes++] = *node;
    for (int i = 0; i < MZ_NODE_INPUTS; i++) {
        if (node->inputs[i]) {
            mz_tensor_link(node->inputs[i]);
            node->inputs[i]->n_consumers++;
        }
    }
    for (int i = 0; i < MZ_NODE_OUTPUTS; i++) {
        if (node->outputs[i]) {
            mz_tensor_link(node->outputs[i]);
            node->outputs[i]->needs_grad = true;
        }
    }
    if (node->again)
        node->outputs[0]->producer = tape->n_nodes - 1;
    for (int i = 0; i < MZ_NODE_SAVED; i++)
        if (node->saved[i])
            mz_tensor_retain(node->saved[i]);
}

/* A node of another unit will not do: that unit's parameters may be elsewhere by the time of the backward pass. */
int mz_tape_cheap_producer(const mz_tape *tape, const mz_tensor *x)
{
    const mz_recompute *r = &tape->options.recompute;
    const int first_kept[] = {
        [MZ_NOT_CHEAP] = 0, [MZ_CHEAP_ACTIVATION] = r->activations, [MZ_CHEAP_NORM] = r->norms};
    if (!tape->recording || x->producer < tape->unit_first_node)
        return -1;
    return tape->unit_number < first_kept[tape->nodes[x->producer].cheap] ? x->producer : -1;
}

/* ---- backward ---- */

static void node_drop(mz_node *node)
{
    for (int i = 0; i < MZ_NODE_SAVED; i++)
        mz_tensor_drop(&node->saved[i]);
    for (int i = 0; i < MZ_NODE_OUTPUTS; i++) {
        if (node->outputs[i]) {
            node->outputs[i]->producer = -1;
            node->outputs[i]->deferred = false;
        }
        mz_tensor_unlink(node->outputs[i]);
    }
    for (int i = 0; i < MZ_NODE_INPUTS; i++)
        mz_tensor_unlink(node->inputs[i]);
}

static bool node_has_grad(const mz_node *node)
{
    for (int i = 0; i < MZ_NODE_OUTPUTS; i++)
        if (node->outputs[i] && (node->outputs[i]->grad || node->outputs[i]->is_loss))
            return true;
    return false;
}

int mz_tape_mark(const mz_tape *tape)
{
    return tape->n_nodes;
}

mz_status mz_tape_backward(mz_tape *tape, int mark)
{
    mz_status status = MZ_OK;
    while (status == MZ_OK && tape->n_nodes > mark) {
        mz_node *node = &tape->nodes[--tape->n_nodes]; /* stays in place: backward functions push nothing */
        if (node_has_grad(node))
            status = node->backward(tape, node);
        node_drop(node);
    }
    return status;
}

/* ---- parameters ---- */

mz_status mz_param_check(const mz_tape *tape, const mz_param *param, const char *what, int n_dims, int64_t d0,
                         int64_t d1)
{
    if (!param)
        return mz_fail(MZ_ERR_ARGUMENT, "%s: expected a parameter, found none", what);
    const mz_param_spec *spec = &param->spec;
    int64_t want[2] = {d0, d1};
    bool fits = spec->n_dims == n_dims;
    for (int i = 0; fits && i < n_dims; i++)
        fits = want[i] < 0 || spec->shape[i] == want[i];
    if (!fits) {
        mz_tensor found = {.n_dims = spec->n_dims}, expected = {.n_dims = n_dims, .shape = {d0, d1}};
        for (int i = 0; i < spec->n_dims; i++)
            found.shape[i] = spec->shape[i];
        return mz_fail(MZ_ERR_ARGUMENT, "%s \"%s\": expected shape %s (-1: any), found %s", what, spec->name,
                       mz_tensor_shape(&expected).s, mz_tensor_shape(&found).s);
    }
    if (param->dtype != tape->options.dtype)
        return mz_fail(MZ_ERR_ARGUMENT, "%s \"%s\": expected elements of type %s, found %s", what, spec->name,
                       mz_dtype_name(tape->options.dtype), mz_dtype_name(param->dtype));
    if (!param->data)
        return mz_fail(MZ_ERR_INTERNAL, "%s \"%s\": its values are not in memory", what, spec->name);
    return MZ_OK;
}

mz_status mz_param_want_grad(mz_tape *tape, mz_param *param, bool *accumulate)
{
    if (tape->options.grad_request) {
        mz_status status = tape->options.grad_request(tape->options.grad_context, param);
        if (status != MZ_OK)
            return status;
    }
    if (!param->grad)
        return mz_fail(MZ_ERR_INTERNAL, "parameter \"%s\": there is no memory for its gradient", param->spec.name);
    *accumulate = param->grad_written;
    return MZ_OK;
}
