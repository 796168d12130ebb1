/* Where each tensor lies: pure arithmetic, the same on every rank. A unit's tensors go to its sharded or its
 * persistent segment, those with weight decay first, each aligned; a segment is padded and cut evenly. */
#ifndef MZ_ZERO_LAYOUT_H
#define MZ_ZERO_LAYOUT_H

#include <stdbool.h>
#include <stdint.h>

#include "mpizero/status.h"

#define MZ_LAYOUT_ALIGN 64 /* elements */

/* The alignment of a run of so many consecutive elements: long ones begin at a page in fp32, where that costs
 * little, so that a checkpoint can write them past the system's cache, from where they lie. */
static inline int64_t mz_layout_align(int64_t n)
{
    return n >= 65536 ? 1024 : MZ_LAYOUT_ALIGN;
}

typedef struct mz_layout_input {
    int64_t numel;
    int64_t room; /* elements to keep for it; less than numel means numel */
    int unit;     /* ascending */
    bool decay;   /* takes weight decay */
} mz_layout_input;

typedef struct mz_layout_options {
    const mz_layout_input *tensors;
    int n_tensors, n_units;
    int n_ranks;
    int64_t persistence_threshold;       /* tensors with fewer elements persist; 0: none */
    int64_t model_persistence_threshold; /* and all of them together have at most so many */
} mz_layout_options;

typedef struct mz_layout_tensor {
    int segment;
    int64_t offset, numel; /* in the segment */
} mz_layout_tensor;

typedef struct mz_layout_segment {
    int unit;
    bool persistent;
    int64_t length;    /* a multiple of MZ_LAYOUT_ALIGN * n_ranks */
    int64_t slice;     /* length / n_ranks: what a rank owns; aligned as so long a run is */
    int64_t decay_end; /* elements [0, decay_end) take weight decay */
    int first, n;      /* its tensors: order[first .. first + n) */
} mz_layout_segment;

typedef struct mz_layout {
    int n_tensors, n_segments, n_units;
    mz_layout_tensor *tensors;   /* in the order given */
    mz_layout_segment *segments; /* by unit, the sharded one first */
    int *order;                  /* tensors by segment and offset */
    int *unit_first;             /* [n_units + 1] a unit's segments: unit_first[u] .. unit_first[u + 1] */
    int64_t elements;            /* sum of the lengths */
    int64_t persistent_elements; /* of the persistent ones */
} mz_layout;

/* Not collective. MZ_ERR_MEMORY. */
mz_status mz_layout_create(const mz_layout_options *options, mz_layout **layout);
void mz_layout_destroy(mz_layout *layout);

/* The part of elements [begin, begin + count) of a segment that belongs to tensor t, as elements
 * *offset .. *offset + *n of the flattened tensor; *n is 0 when they have nothing in common. */
void mz_layout_intersect(const mz_layout *layout, int t, int64_t begin, int64_t count, int64_t *offset, int64_t *n);

#endif
