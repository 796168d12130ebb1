/* How the ranks of a node wait for each other in shared memory, and find out who is late, gone or elsewhere.
 *
 * Every rank counts steps: `ready` of them have their data in its slots, `done` of them it has read from the
 * others'. Both counters go on for ever (wrapping) and are futex words. Beside them each rank publishes which
 * collective it is in, on cards that it uses in turn: through shared memory a rank can be one collective ahead of
 * another and no more; of the collectives of GPUs, as many as watch.h lets it launch ahead. */
#ifndef MZ_COMM_SHM_SYNC_H
#define MZ_COMM_SHM_SYNC_H

#include <stdatomic.h>
#include <stdint.h>

#include "comm/shm_segment.h"
#include "comm/transport.h"

enum { MZ_SHM_ADDRESSES = 32, MZ_SHM_CARDS = 256 };

typedef struct mz_shm_card {
    uint64_t sequence, signature;
    int64_t count;
    char kind[24], label[72];
} mz_shm_card;

/* One rank's state in shared memory. The two words have a cache line each. */
typedef struct mz_shm_rank {
    _Alignas(64) _Atomic uint32_t ready;
    _Atomic uint32_t ready_sleepers;
    _Alignas(64) _Atomic uint32_t done;
    _Atomic uint32_t done_sleepers;
    _Alignas(64) _Atomic uint64_t entered; /* sequence number of the newest card, plus one */
    int32_t pid;
    uint64_t secret; /* see shm_direct.c */
    mz_shm_card cards[MZ_SHM_CARDS];
    const void *addresses[MZ_SHM_ADDRESSES]; /* in this rank's own memory, for the others to read from */
} mz_shm_rank;

/* The first failure on this node. */
typedef struct mz_shm_failure {
    _Atomic uint32_t state; /* 0 none, 1 being written, 2 readable */
    int32_t status;
    char message[1024];
} mz_shm_failure;

typedef struct mz_shm_sync {
    mz_shm_segment *segment;
    mz_members members;
    mz_shm_failure *failure;
    mz_shm_rank *ranks; /* [members.size] */
    uint64_t *checked;  /* [members.size]: sequence number, plus one, up to which a member's cards were compared */
    bool spin;          /* look actively before giving the core away */
} mz_shm_sync;

typedef enum mz_shm_word { MZ_SHM_READY, MZ_SHM_DONE } mz_shm_word;

/* Bytes of shared memory that `size` ranks need; *sync then lies over `memory`. */
size_t mz_shm_sync_bytes(int size);
void mz_shm_sync_attach(mz_shm_sync *sync, void *memory);

/* Publishes that this rank is in `op`. */
void mz_shm_sync_enter(mz_shm_sync *sync, const mz_op_info *op);
/* Sets one of this rank's words and wakes who waits for it. */
void mz_shm_sync_post(mz_shm_sync *sync, mz_shm_word word, uint32_t steps);
/* Waits until a member's word has reached `steps`; then sees that it is in the same collective.
 * Errors: MZ_ERR_TIMEOUT, MZ_ERR_MISMATCH, MZ_ERR_PEER, or what another rank failed with; all ranks get to know. */
mz_status mz_shm_sync_wait(mz_shm_sync *sync, const mz_op_info *op, int member, mz_shm_word word, uint32_t steps);
/* Publishes a failure, unless there is one, and wakes everybody. */
void mz_shm_sync_abort(mz_shm_sync *sync, mz_status status, const char *message);

/* For who waits elsewhere than in mz_shm_sync_wait. None of them waits. */

/* The failure that some rank published, or MZ_OK. */
mz_status mz_shm_sync_failure(const mz_shm_sync *sync);
/* Has the member entered this collective? */
bool mz_shm_sync_entered(const mz_shm_sync *sync, int member, const mz_op_info *op);
/* Sees that a member that has entered `op` is in the same collective: MZ_ERR_MISMATCH, which all get to know. */
mz_status mz_shm_sync_compare(mz_shm_sync *sync, const mz_op_info *op, int member);
/* `op` has been overdue for so many seconds: once it is clear who is to blame (board.h), publishes and returns
 * MZ_ERR_TIMEOUT. Names the members that have not entered it, or, if there are none, `waited_for`; but not those
 * that wait for others themselves, unless they do for too long. *doubted belongs to the wait: 0 when it begins. */
mz_status mz_shm_sync_overdue(mz_shm_sync *sync, const mz_op_info *op, int waited_for, double overdue,
                              double *doubted);
/* A member's process has ended: publishes and returns MZ_ERR_PEER. */
mz_status mz_shm_sync_gone(mz_shm_sync *sync, const mz_op_info *op, int member);

#endif
