/* mpizero bench train: how fast a model trains here, on synthetic tokens, and where the time goes. */
#ifndef MZ_TRAIN_BENCH_H
#define MZ_TRAIN_BENCH_H

#include <stdio.h>

#include "comm/comm.h"
#include "mpizero/config.h"

typedef struct mz_bench_options {
    const char *model;        /* Hugging Face folder or a config.json; weights are not read */
    const char *config_path;  /* DeepSpeed JSON or Accelerate YAML; NULL: none */
    mz_config_defaults flags; /* as of training */
    int64_t block_size;       /* <= 0: the model's positions, 1024 at most */
    int64_t steps, warmup;    /* default 20 and 5 */
    const char *device;       /* NULL: best */
    int cpu_threads;          /* <= 0: cores / ranks of the node */
    bool json;
} mz_bench_options;

void mz_bench_options_default(mz_bench_options *options);

/* Collective. Trains from the model's initialisation on random tokens: `warmup` steps, `steps` timed ones, and one
 * that is profiled. Rank 0 prints. Writes no files. */
mz_status mz_bench_train(mz_world *world, const mz_bench_options *options, FILE *out);

#endif
