/* Pieces of the matrix product, private to gemm*.c and matmul.c: what is being computed, packing, the epilogue. */
#ifndef MZ_KERNELS_CPU_GEMM_H
#define MZ_KERNELS_CPU_GEMM_H

#include "kernels/cpu/family.h"
#include "kernels/cpu/gemm_micro.h"

/* Where sums of products stand until k is through. */
typedef enum mz_gemm_sink {
    MZ_SINK_C,       /* in C itself */
    MZ_SINK_AUX,     /* in aux: the pre-activation is kept anyway */
    MZ_SINK_PARTIAL, /* in a buffer: C or aux has 16 bits, or C is still needed for adding to */
    MZ_SINK_TILE     /* nowhere: one pass does all of k */
} mz_gemm_sink;

typedef struct mz_gemm mz_gemm;

/* How operands are packed, and the micro-kernels that multiply them so. A step of k is what one 32-bit word of a
 * packed operand holds: one element as fp32, or a pair of bf16 elements next to each other along k. */
typedef struct mz_gemm_form {
    int elements; /* of k in a step */
    /* Packs rows i0..i0+m of alpha * op(A) for the block's k, MZ_MR rows to a panel, in the micro-kernel's panel
     * form when A is transposed and in its block form when not. */
    void (*pack_a)(const mz_gemm *g, int64_t i0, int64_t m, float *out);
    /* Packs columns j..j+n of op(B) for the block's k, MZ_NR to a panel: word [p][j], row stride MZ_NR, filled up
     * to whole vectors with 0. Adds the columns to sums[n] unless NULL; then op must not transpose. */
    void (*pack_b)(const mz_gemm *g, int64_t j, int64_t n, float *out, float *sums);
    const mz_micro_fn (*panel)[MZ_NV + 1], (*block)[MZ_NV + 1]; /* as in gemm_micro.h */
} mz_gemm_form;

extern const mz_gemm_form MZ_CPU(gemm_floats);
#ifdef MZ_HAS_PAIRS
extern const mz_gemm_form MZ_CPU(gemm_pairs); /* for bf16 with alpha = 1 */
#endif

struct mz_gemm {
    const mz_matmul_args *args;
    const mz_gemm_form *form;
    const void *a, *b; /* of this matrix of the batch */
    void *c;

    mz_gemm_sink sink;
    bool reads_b;             /* B is read where it lies: not transposed, fp32, whole vectors */
    int64_t steps;            /* of k in all */
    int64_t kc, mc, nc;       /* largest block of each index that is packed at once; kc in steps */
    int64_t a_panel, b_panel; /* distances between packed panels: not a multiple of the cache's way */
    bool owns_b;              /* each thread packs the whole block of B for itself */
    int64_t packed_a_size;    /* in a thread's room packed A comes first, then what it packs of B alone */
    mz_cpu_rooms rooms;
    float *packed_b;    /* of one block, shared by threads */
    float *partial;     /* [m][nc] */
    float *column_sums; /* [n]: of op(B), for the bias gradient; NULL: not taken while packing */

    /* The block in hand; p0 and k in steps. */
    int64_t j0, n, p0, k;
    bool first, last; /* of the blocks of k */
};

/* The tile at (i, j), mr x n: its sums lie at `from` (row stride ld), bias included when the epilogue has one.
 * Applies the rest of the epilogue and writes C and aux. */
void MZ_CPU(finish_tile)(const mz_gemm *g, int64_t i, int64_t j, int mr, int64_t n, const float *from, int64_t ld);

/* The bias gradient of the epilogues that have one, apart from the product. */
void MZ_CPU(matmul_bias_grad)(const mz_matmul_args *a, mz_threads *threads);

/* Work space of a product, in floats. */
typedef struct mz_gemm_space {
    int64_t room;   /* of each thread */
    int64_t shared; /* of all together */
} mz_gemm_space;

/* Fills in the blocking of a product over n_threads threads; returns the work space it takes. */
mz_gemm_space MZ_CPU(gemm_plan)(const mz_matmul_args *a, int n_threads, mz_gemm *g);

/* Runs it, for every matrix of the batch, in that much work space. True when the bias gradient came with packing;
 * else the caller owes it. */
bool MZ_CPU(gemm_run)(mz_gemm *g, mz_threads *threads, mz_cpu_rooms rooms, float *shared);

#endif
