/* Where a step's time goes on the device: events around every launch on the compute stream, by kernel family, and
 * around every unit. The profiled device runs the same kernels through a table that records; a step is profiled on
 * its own, since the events slow it down a little.
 *
 * A kernel has no argument that could name the profile, so the tables and the one that is open are mutable globals;
 * one may be open at a time in a process. Launches of other threads on streams of their own pass through untimed. */
#ifndef MZ_TRAIN_PROFILE_H
#define MZ_TRAIN_PROFILE_H

#include "mpizero/engine.h"

typedef enum mz_family {
    MZ_FAMILY_MATMUL = 0,
    MZ_FAMILY_ATTENTION,
    MZ_FAMILY_NORM,
    MZ_FAMILY_EMBEDDING,
    MZ_FAMILY_LOSS,
    MZ_FAMILY_ELEMENTWISE,   /* and sums of columns */
    MZ_FAMILY_OPTIMISER,     /* and the gradients' norm */
    MZ_FAMILY_COPIES,        /* and fills */
    MZ_FAMILY_COMMUNICATION, /* what the compute stream waited for, or did as part of it */
    MZ_N_FAMILIES
} mz_family;

/* "matmul", "attention", ... */
const char *mz_family_name(mz_family family);

typedef struct mz_unit_times {
    const char *name; /* borrowed from the model */
    double forward, backward;
} mz_unit_times;

typedef struct mz_profile_times {
    double step; /* seconds on the compute stream; what no family has is the host's and gaps between launches */
    double seconds[MZ_N_FAMILIES];
    int64_t launches[MZ_N_FAMILIES];
    mz_unit_times *units; /* [n_units]; owned */
    int n_units;
} mz_profile_times;

typedef struct mz_profile mz_profile;

/* From here to the end the engine's kernels are timed. Local; no work may be under way. */
mz_status mz_profile_begin(mz_engine *engine, mz_profile **profile);
/* Waits for the compute stream, gives the engine its own kernels back and adds up. Takes a NULL profile (and then
 * sets nothing); destroys it in any case. times may be NULL: not wanted. */
mz_status mz_profile_end(mz_profile *profile, mz_profile_times *times);
void mz_profile_times_free(mz_profile_times *times);

#endif
