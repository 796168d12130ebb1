/* A model's inside: its units as the runner reads them. */
#ifndef MZ_MODEL_MODEL_H
#define MZ_MODEL_MODEL_H

#include "mpizero/model.h"

struct mz_model {
    char *name;
    mz_unit_spec *units; /* every pointer in them is owned */
    int n_units, capacity;
    mz_model_info info; /* its strings are owned */
};

/* The unit that owns parameter `name`, or -1; *index is its place in that unit. */
int mz_model_find_param(const mz_model *model, const char *name, int *index);

#endif
