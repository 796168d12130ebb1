/* Rows of a table by token id, plus rows of a second one by position. */
#include "tensor/node.h"

#include <inttypes.h>

#include "core/error.h"

enum { IDS = 0, POSITION_IDS = 1 }; /* saved */
enum { TABLE = 0, POSITIONS = 1 };  /* params */

static mz_status embedding_backward(mz_tape *tape, mz_node *node)
{
    mz_tensor *dy = mz_grad_take(node->outputs[0]);
    mz_param *table = node->params[TABLE], *positions = node->params[POSITIONS];
    bool with_table = table->trainable, with_positions = positions && positions->trainable;
    mz_embedding_grad_args args = {.n = node->saved[IDS]->numel,
                                   .cols = table->spec.shape[1],
                                   .vocab = table->spec.shape[0],
                                   .n_positions = positions ? positions->spec.shape[0] : 0,
                                   .ids = node->saved[IDS]->data,
                                   .position_ids =
                                       node->saved[POSITION_IDS] ? node->saved[POSITION_IDS]->data : NULL,
                                   .period = node->op.embedding.period,
                                   .position_offset = node->op.embedding.position_offset,
                                   .dy = dy->data,
                                   .dtype = dy->dtype,
                                   .dtype_grad = (with_table ? table : positions)->grad_dtype};
    mz_status status = MZ_OK;
    if (with_table) {
        status = mz_param_want_grad(tape, table, &args.accumulate_dtable);
        args.dtable = table->grad;
    }
    if (status == MZ_OK && with_positions) {
        status = mz_param_want_grad(tape, positions, &args.accumulate_dpositions);
        args.dpositions = positions->grad;
    }
    if (status == MZ_OK)
        status = mz_tape_kernels(tape)->embedding_grad(&args, tape->options.stream);
    if (status == MZ_OK && with_table)
        table->grad_written = true;
    if (status == MZ_OK && with_positions)
        positions->grad_written = true;
    mz_tensor_release(dy);
    return status;
}

static mz_status check(const mz_tape *tape, mz_tensor *ids, const mz_param *table, const mz_param *positions,
                       mz_tensor *position_ids, int64_t position_offset)
{
    mz_status status = mz_tensor_need(ids, "embedding: ids", MZ_I32);
    if (status == MZ_OK && (ids->n_dims < 1 || ids->n_dims >= MZ_MAX_DIMS))
        status = mz_fail(MZ_ERR_ARGUMENT, "embedding: expected ids with 1 to %d dimensions, found %s",
                         MZ_MAX_DIMS - 1, mz_tensor_shape(ids).s);
    if (status == MZ_OK)
        status = mz_param_check(tape, table, "embedding: table", 2, -1, -1);
    if (status == MZ_OK && positions)
        status = mz_param_check(tape, positions, "embedding: positions", 2, -1, table->spec.shape[1]);
    if (status == MZ_OK && positions == table)
        status = mz_fail(MZ_ERR_ARGUMENT, "embedding: \"%s\" is both table and positions; these are two parameters",
                         table->spec.name);
    if (status == MZ_OK && positions && positions->grad_dtype != table->grad_dtype)
        status = mz_fail(MZ_ERR_ARGUMENT, "embedding: gradients of \"%s\" and \"%s\" differ in type",
                         table->spec.name, positions->spec.name);
    if (status != MZ_OK || !positions)
        return status;
    if (position_ids) {
        status = mz_tensor_need(position_ids, "embedding: position ids", MZ_I32);
        return status != MZ_OK ? status : mz_tensor_need_same(ids, position_ids, "embedding: ids and position ids");
    }
    int64_t last = position_offset + mz_tensor_dim(ids, -1);
    if (position_offset < 0 || last > positions->spec.shape[0])
        return mz_fail(MZ_ERR_ARGUMENT,
                       "embedding: positions %" PRId64 " to %" PRId64 " are wanted, but \"%s\" has %" PRId64
                       "; use shorter sequences",
                       position_offset, last - 1, positions->spec.name, positions->spec.shape[0]);
    return MZ_OK;
}

mz_status mz_embedding(mz_tape *tape, mz_tensor *ids, mz_param *table, mz_param *positions, mz_tensor *position_ids,
                       int64_t position_offset, mz_tensor **out)
{
    mz_tensor *y;
    mz_status status = check(tape, ids, table, positions, position_ids, position_offset);
    if (status != MZ_OK)
        return status;
    bool tracks = mz_tape_tracks(tape, NULL, 0, (mz_param *[]){table, positions}, 2);
    int64_t shape[MZ_MAX_DIMS];
    for (int i = 0; i < ids->n_dims; i++)
        shape[i] = ids->shape[i];
    shape[ids->n_dims] = table->spec.shape[1];
    if (tracks)
        status = mz_tape_reserve(tape);
    if (status == MZ_OK)
        status = mz_tensor_create(tape, tape->options.dtype, ids->n_dims + 1, shape, &y);
    if (status != MZ_OK)
        return status;
    mz_embedding_args args = {.n = ids->numel,
                              .cols = table->spec.shape[1],
                              .vocab = table->spec.shape[0],
                              .ids = ids->data,
                              .table = table->data,
                              .position_ids = position_ids ? position_ids->data : NULL,
                              .period = mz_tensor_dim(ids, -1),
                              .position_offset = position_offset,
                              .positions = positions ? positions->data : NULL,
                              .y = y->data,
                              .dtype = y->dtype};
    status = mz_tape_kernels(tape)->embedding(&args, tape->options.stream);
    if (status != MZ_OK) {
        mz_tensor_release(y);
        return status;
    }
    if (tracks)
        mz_tape_push(tape, &(mz_node){.backward = embedding_backward,
                                      .outputs = {y},
                                      .saved = {[IDS] = ids, [POSITION_IDS] = position_ids},
                                      .params = {[TABLE] = table, [POSITIONS] = positions},
                                      .op.embedding = {args.period, position_offset}});
    *out = y;
    return MZ_OK;
}
