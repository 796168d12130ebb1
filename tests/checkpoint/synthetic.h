/* A made-up training state: random tensors, cut at random places and dealt to ranks at random, with values that
 * follow from name, kind, element and step, so that any reader can check any range. Some tensors and kinds are in
 * bf16. */
#ifndef MZ_TESTS_SYNTHETIC_H
#define MZ_TESTS_SYNTHETIC_H

#include "checkpoint/checkpoint.h"

enum { SYNTHETIC_TENSORS = 10 };

typedef struct synthetic {
    char names[SYNTHETIC_TENSORS][40];
    int n_dims[SYNTHETIC_TENSORS];
    int64_t shapes[SYNTHETIC_TENSORS][MZ_MAX_DIMS], numel[SYNTHETIC_TENSORS];
    int n_tensors;
    mz_shard *shards; /* this rank's */
    int64_t n_shards;
    uint64_t seed;
} synthetic;

/* The same tensors for the same seed, whatever rank and size are. scale: elements of the larger tensors, about. */
void synthetic_create(synthetic *s, uint64_t seed, int rank, int size, int64_t scale);
void synthetic_destroy(synthetic *s);
/* Sets the values of a step. */
void synthetic_fill(synthetic *s, int64_t step);
mz_dtype synthetic_dtype(int tensor, mz_shard_kind kind);
float synthetic_value(const synthetic *s, int tensor, mz_shard_kind kind, int64_t element, int64_t step);

/* Reads elements offset .. offset+count and compares them with what step had. MZ_OK: read and right; else the
 * status of the read. Values that are wrong without an error end the test. */
mz_status synthetic_check_range(const synthetic *s, mz_checkpoint *checkpoint, int tensor, mz_shard_kind kind,
                                int64_t offset, int64_t count);
/* All of it, as `parts` loaders would take it. */
mz_status synthetic_check(const synthetic *s, mz_checkpoint *checkpoint, int parts);

/* A world of one rank without MPI, for tests that fork. */
extern mz_world synthetic_world;

#endif
