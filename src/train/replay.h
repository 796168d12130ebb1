/* Micro-batches whose launches are recorded once and replayed. A step of training gives the device the same work
 * each time: the same kernels, on the same addresses, with what changes (batch, step, loss scale) in device memory.
 * Where the device has graphs, the forward and the backward pass of a micro-batch are recorded after a few that
 * were launched kernel by kernel, and from then on are one launch each.
 *
 * Micro-batches are of the same kind when their inputs have the same roles, types and shapes, and they begin with
 * the same gradients to add to and are alike the first or last of their step. Those in which ranks communicate are
 * never recorded: a collective is more than what it gives to the stream. What cannot be recorded is launched as
 * ever. */
#ifndef MZ_TRAIN_REPLAY_H
#define MZ_TRAIN_REPLAY_H

#include "model/runner.h"
#include "mpizero/engine.h"

typedef struct mz_replay mz_replay;

/* *replay is NULL where nothing is to be replayed: not wanted, in inference, or with a model that does not say that
 * its units do the same each time. */
mz_status mz_replay_create(mz_engine *engine, mz_replay **replay);
void mz_replay_destroy(mz_replay *replay);

/* Addresses have changed, or are about to: nothing recorded is used any more. NULL is legal. */
void mz_replay_forget(mz_replay *replay);

typedef enum mz_replay_verdict {
    MZ_REPLAY_LAUNCH, /* run the passes kernel by kernel */
    MZ_REPLAY_READY,  /* replay them */
    MZ_REPLAY_SPOILED /* begin the micro-batch anew, then launch: a recording failed, of which nothing was done */
} mz_replay_verdict;

/* To be asked when a micro-batch has begun, with its inputs on their way to the device, and before its forward
 * pass. Records both passes when they are due. A NULL replay says MZ_REPLAY_LAUNCH. */
mz_replay_verdict mz_replay_prepare(mz_replay *replay, const mz_batch *batch, mz_run *run);

/* The passes of the micro-batch that mz_replay_prepare found ready. Stream-ordered. */
mz_status mz_replay_forward(mz_replay *replay);
mz_status mz_replay_backward(mz_replay *replay);

/* Passes replayed since creation, for tests and messages. NULL: 0. */
int64_t mz_replay_count(const mz_replay *replay);

#endif
