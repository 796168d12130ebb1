/* What test_gradients.c checks: one small computation per operation and use of it. */
#ifndef TESTS_TENSOR_GRADIENT_CASES_H
#define TESTS_TENSOR_GRADIENT_CASES_H

#include "tests/tensor/rig.h"

enum { MAX_X = 3, MAX_P = 4 };

typedef struct bench {
    rig r;
    mz_tensor *x[MAX_X];
    mz_param p[MAX_P];
    mz_activation act; /* of the case */
} bench;

typedef struct grad_case {
    const char *name;
    mz_status (*build)(bench *b, mz_tensor **y);
    int64_t x[MAX_X][MZ_MAX_DIMS]; /* shapes, ended by 0 */
    int64_t p[MAX_P][2];           /* shapes; {n, 0}: a vector */
    bool loss;
} grad_case;

extern const grad_case gradient_cases[]; /* ended by a NULL name */
/* Run with each activation function. */
extern const grad_case gradient_cases_activated[];

#endif
