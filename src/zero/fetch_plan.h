/* Stage 3's schedule of gathers and releases. The order in which units run is known, so the schedule is worked
 * out once, by playing it: which unit is gathered when and to which place of the pool, what is fetched
 * ahead, what is kept for its next use. Running it later needs no decisions, and its peak is the pool. */
#ifndef MZ_ZERO_FETCH_PLAN_H
#define MZ_ZERO_FETCH_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "mpizero/status.h"

typedef struct mz_fetch_options {
    int n_units;
    const int64_t *elements; /* [n_units] to gather for a unit; 0: nothing */
    const int *const *needs; /* [n_units] the units whose parameters a unit reads */
    const int *n_needs;
    bool training;     /* all units forward, then all backward; else forward only */
    int64_t prefetch;  /* elements fetched before their use at one time; the unit that crosses the limit still is */
    int64_t max_live;  /* elements gathered at one time; what a running unit needs is gathered regardless */
    int64_t max_reuse; /* a unit whose next use lies at most so many elements of other units away is kept */
} mz_fetch_options;

typedef enum mz_fetch_kind { MZ_FETCH_RELEASE, MZ_FETCH_DEMAND, MZ_FETCH_AHEAD } mz_fetch_kind;

typedef struct mz_fetch_action {
    mz_fetch_kind kind;
    int unit;
    int64_t offset; /* in the pool, elements */
} mz_fetch_action;

/* Before a unit runs: actions [first, first + n_before), then it waits for what it needs. After it: the n_after
 * that follow. Step p is unit p forward, or unit 2 * n_units - 1 - p backward. */
typedef struct mz_fetch_step {
    int first, n_before, n_after;
} mz_fetch_step;

typedef struct mz_fetch_plan {
    int n_steps, n_actions;
    mz_fetch_step *steps;
    mz_fetch_action *actions;
    int64_t pool;     /* elements that the pool must have */
    int64_t max_live; /* elements gathered at one time, at most */
} mz_fetch_plan;

/* Not collective. MZ_ERR_MEMORY. */
mz_status mz_fetch_plan_create(const mz_fetch_options *options, mz_fetch_plan **plan);
void mz_fetch_plan_destroy(mz_fetch_plan *plan);

#endif
