/* What the files of this folder share. Nobody else includes it but the tests. */
#ifndef MZ_ZERO_INTERNAL_H
#define MZ_ZERO_INTERNAL_H

#include "zero/fetch_plan.h"
#include "zero/layout.h"
#include "zero/stall.h"
#include "zero/zero.h"

/* A segment at run time. Pointers are device memory; NULL where this stage, or this moment, has none. */
typedef struct mz_zero_segment {
    mz_layout_segment at;
    int64_t own_begin, own_count; /* elements whose master and state this rank keeps */
    uint8_t *full;                /* parameters; sharded ones in stage 3: while gathered */
    uint8_t *own;                 /* this rank's slice of the parameters */
    uint8_t *master;   /* own_count, master_dtype; where parameters are their own masters the same as own */
    uint8_t *state[2]; /* own_count, state_dtype */
    uint8_t *second;   /* hpZ: this rank's slice of the group's copy */
    bool second_fresh; /* it holds the present parameters */
    uint8_t *grad;     /* gradient of the whole segment, grad_dtype */
    uint8_t *grad_own; /* reduced gradient, own_count, shard_dtype */
} mz_zero_segment;

/* What happened since creation; the tests read it. */
typedef struct mz_zero_counters {
    int64_t n_reduces, reduced_elements, max_reduce_elements;
    int64_t n_gathers, gathered_elements, max_live_elements;
    int64_t second_elements; /* of the gathered ones, from hpZ's copy */
    int64_t prefetch_hits, prefetch_misses;
    int64_t n_refreshes, max_refresh_elements, n_broadcasts;
    int64_t n_optim_launches, max_optim_elements;
    int64_t n_bucket_switches;
} mz_zero_counters;

/* Of parameters and gradients between nodes, where they are quantised (ZeRO++). */
enum { MZ_ZERO_WEIGHT_BITS = 8, MZ_ZERO_GRADIENT_BITS = 4 };

enum { MZ_ZERO_SHARED = -1 };

/* Memory that gradients of stages 2 and 3 are written to before they are reduced. */
typedef struct mz_grad_buffer {
    uint8_t *memory;
    int64_t capacity, used; /* elements */
    bool closed;            /* its units are being reduced: nothing more is put in */
    mz_event *done;         /* the last reduction from it */
} mz_grad_buffer;

/* A part of a segment's gradient in one collective: elements [begin, begin + count) of each of `rows` rows. */
typedef struct mz_reduce_piece {
    mz_zero_segment *segment;
    uint8_t *grad; /* segment->grad at the time */
    int buffer;    /* of reducer.buffers; MZ_ZERO_SHARED in stages 0 and 1 */
    int64_t begin, count;
} mz_reduce_piece;

/* One collective being put together, or under way. */
typedef struct mz_reduce_slot {
    mz_reduce_piece *pieces; /* [n_segments] */
    int n_pieces;
    int64_t elements;
    uint8_t *wire; /* the pieces one after the other in the wire's dtype; NULL: sent from where they lie */
    mz_event *ready, *done;
    bool unfinished; /* launched, and something is to be done with what arrived */
    bool accumulate;
} mz_reduce_slot;

typedef struct mz_reducer {
    bool scatter;            /* each rank receives its slice only */
    int rows;                /* a segment is rows of row_length elements: slices when scattering, else 1 */
    int64_t limit;           /* elements of one collective */
    mz_grad_buffer *buffers; /* the shared ones first */
    int n_buffers, n_shared, current;
    int *unit_buffer;  /* [n_units] a unit's own buffer; MZ_ZERO_SHARED: it has none */
    bool *unit_open;   /* [n_units] its gradients have memory */
    int n_open_shared; /* units in shared buffers whose gradients are not complete */
    mz_reduce_slot slots[2];
    int slot;
    mz_segment *segments; /* scratch: what is handed to the collective */
} mz_reducer;

typedef struct mz_fetcher {
    mz_fetch_plan *plans[2]; /* evaluation, training */
    uint8_t *pool;
    mz_event **gathered; /* [n_units] */
    mz_event *ready;
    bool *ahead; /* [n_units] gathered before it was needed, and not used yet */
    mz_segment *segments;
} mz_fetcher;

typedef struct mz_optim_group {
    int first, n; /* chunks */
    int64_t elements;
} mz_optim_group;

/* Scalars in device memory. */
typedef struct mz_zero_scalars {
    mz_optim_hyper hyper;
    double sum_squares;
    uint64_t nonfinite; /* counted */
    uint64_t never;     /* 0: whether to skip is known on the host */
    float grad_scale;
    mz_rng_state rounding;
} mz_zero_scalars;

typedef struct mz_zero_block {
    void *memory;
    size_t bytes;
} mz_zero_block;

enum { MZ_ZERO_PARAM_BLOCKS = 2 };

typedef struct mz_updater {
    mz_optim_chunk *chunks; /* device memory */
    mz_optim_group *groups;
    int n_groups;
    mz_zero_scalars *device, host;
    mz_event *ready;
    mz_event **refreshed;   /* [n_units] */
    int *mark;              /* [n_units] which of `refreshed` tells that the unit's parameters are whole again */
    int n_marked, n_waited; /* units of the last refresh; those that compute has waited for */
    mz_segment *segments;
} mz_updater;

/* The block that a chunk is in: its CRC among the parameters'; NULL where it is in none. */
typedef struct mz_checksum_target {
    uint32_t *crc;
    bool begins; /* the chunk holds the block's first element */
} mz_checksum_target;

typedef struct mz_checksums {
    mz_optim_chunk *chunks;      /* the updater's, cut at the blocks' ends; host memory */
    mz_checksum_target *targets; /* [n_chunks] */
    mz_optim_group *groups;      /* as many as the updater's */
    int n_chunks;
    uint32_t *crcs; /* n_blocks for each kind of shard */
    int64_t n_blocks;
    bool present; /* they are of the values as they are now */
} mz_checksums;

struct mz_zero {
    mz_config config;
    mz_device *device;
    mz_comm *comm;
    mz_stream *compute;
    mz_stream *transfer; /* of the collectives: a stream of its own (overlap), or compute */
    bool overlap;
    mz_runner *runner;
    int stage; /* 0 when there is one rank: nothing is divided then */
    int rank, size;
    /* groups.c: the ranks that share one copy of the model state (all, or those of a MiCS group), the ranks with
     * equal slices in other groups, and hpZ's groups */
    mz_comm *shard_comm, *replica_comm, *second_comm;
    int shard_rank, shard_size, replica, n_replicas;
    int second_rank, second_size;       /* 0: no second copy */
    mz_dtype dtype;                     /* of parameters */
    mz_dtype grad_dtype;                /* of param->grad */
    mz_dtype shard_dtype;               /* of reduced gradients */
    mz_dtype wire_dtype;                /* of gradients under way */
    mz_dtype master_dtype, state_dtype; /* fp32, or where no masters are kept bf16 */
    bool inference;
    int n_states; /* of the optimiser; 0 in inference */
    mz_layout *layout;
    mz_zero_segment *segments; /* as layout->segments */
    char **labels;             /* [n_units] for the collectives */
    int **needs;               /* [n_units] units whose parameters a unit reads, itself first */
    int *n_needs;              /* [n_units] */
    void **blocks;             /* device memory to free */
    int n_blocks, blocks_capacity;
    mz_zero_block param_blocks[MZ_ZERO_PARAM_BLOCKS]; /* what parameters are gathered from */
    mz_zero_memory memory;
    float *staging;      /* pinned, MZ_ZERO_STAGING elements */
    uint16_t *staging16; /* behind them: the same in 16 bits */
    mz_shard *shards;
    int64_t n_shards;

    mz_reducer reducer;
    mz_fetcher fetcher;
    mz_updater updater;
    mz_checksums checksums;
    mz_stall stall;
    mz_zero_counters counters;

    bool training, first, last; /* of the micro-batch under way */
    int position;               /* its next step: unit u forward, or 2 * n_units - 1 - u backward */
};

enum { MZ_ZERO_STAGING = 1 << 18 };
/* Buckets need not be larger than this to use the wire fully; a larger reduce_bucket_size costs no memory. */
#define MZ_ZERO_BUCKET_ELEMENTS (INT64_C(16) << 20)

/* True when there is somebody to talk to; false with one rank and when planning. */
static inline bool mz_zero_talks(const mz_zero *z)
{
    return z->comm && z->size > 1;
}

/* The parameters are their own masters: in fp32 training, and in bf16 without master weights. */
static inline bool mz_zero_is_master(const mz_zero *z)
{
    return z->dtype == z->master_dtype;
}

static inline mz_dtype mz_zero_kind_dtype(const mz_zero *z, mz_shard_kind kind)
{
    return kind == MZ_SHARD_PARAM ? z->master_dtype : z->state_dtype;
}

/* groups.c */
mz_status mz_zero_groups_choose(mz_zero *z); /* sizes, from z->rank, size, stage and config */
mz_status mz_zero_groups_create(mz_zero *z); /* collective: their comms */
void mz_zero_groups_free(mz_zero *z);

/* memory.c: device memory, cleared, counted in *category, freed with z. No elements: NULL. */
mz_status mz_zero_alloc(mz_zero *z, int64_t n, size_t element_bytes, size_t *category, void **memory);
mz_status mz_zero_alloc_segments(mz_zero *z);
/* Collective: the ranks may gather parameters from each other's memory. */
mz_status mz_zero_share_params(mz_zero *z);
void mz_zero_free_blocks(mz_zero *z);

/* Orders the compute stream behind `event` and counts the time that takes. */
mz_status mz_zero_wait(mz_zero *z, mz_event *event);
/* Around a collective on z->transfer: orders it behind what compute has done so far, and times it when it
 * runs on the compute stream itself. `done` may be NULL. */
mz_status mz_zero_transfer_begin(mz_zero *z, mz_event *ready);
mz_status mz_zero_transfer_end(mz_zero *z, mz_event *done);
/* Collective: every rank fails when one did. */
mz_status mz_zero_agree(mz_zero *z, mz_status mine, const char *where);

/* reduce.c */
int64_t mz_zero_bucket_limit(const mz_zero *z); /* elements that gradients are put together up to, if they can */
mz_status mz_zero_reducer_create(mz_zero *z);
void mz_zero_reducer_free(mz_zero *z);
mz_status mz_zero_reduce_segment(mz_zero *z, mz_zero_segment *s); /* s->grad joins the next collective */
mz_status mz_zero_reduce_flush(mz_zero *z);                       /* sends what has been put together */
mz_status mz_zero_reduce_finish_slot(mz_zero *z, mz_reduce_slot *slot);
mz_status mz_zero_reduce_finish(mz_zero *z); /* compute waits for all of it */

/* buckets.c */
mz_status mz_zero_buffers_create(mz_zero *z);
void mz_zero_grads_begin(mz_zero *z);                   /* a micro-batch starts */
mz_status mz_zero_grads_complete(mz_zero *z, int unit); /* all contributions are written */

/* fetch.c */
mz_status mz_zero_fetcher_create(mz_zero *z);
void mz_zero_fetcher_free(mz_zero *z);
mz_status mz_zero_fetch_before(mz_zero *z, int step, int unit);
mz_status mz_zero_fetch_after(mz_zero *z, int step);
void mz_zero_fetch_reset(mz_zero *z); /* nothing is gathered any more */
void mz_zero_fetch_stale(mz_zero *z); /* hpZ's copies are not the present parameters any more */

/* update.c, refresh.c */
mz_status mz_zero_updater_create(mz_zero *z);
void mz_zero_updater_free(mz_zero *z);
mz_status mz_zero_refresh(mz_zero *z);                /* whole parameters from the ranks' slices */
mz_status mz_zero_refresh_wait(mz_zero *z, int unit); /* before a unit's are read */
mz_status mz_zero_refresh_wait_all(mz_zero *z);

/* checksums.c: takes in what the update has just written; the kernel's callback, with z as its context. */
void mz_zero_checksums_add(void *zero, const mz_optim_chunk *chunk, int64_t begin, int64_t end);
void mz_zero_checksums_free(mz_zero *z);

/* state.c */
mz_status mz_zero_shards_create(mz_zero *z);
void mz_zero_shards_free(mz_zero *z);

#endif
