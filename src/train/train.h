/* What the commands do: train, evaluate, generate, consolidate, estimate. src/cli fills the options from
 * flags; everything here is collective over the world unless said otherwise. */
#ifndef MZ_TRAIN_TRAIN_H
#define MZ_TRAIN_TRAIN_H

#include <stdbool.h>
#include <stdio.h>

#include "comm/comm.h"
#include "mpizero/config.h"
#include "mpizero/engine.h"

/* The command line. Strings are borrowed; NULL or a negative number means not given. */
typedef struct mz_train_options {
    /* what */
    const char *model; /* Hugging Face folder or a config.json */
    const char *train_data, *validation_data;
    double validation_split; /* fraction of the training blocks held out; <= 0: none */
    const char *text_field;  /* of .jsonl files */
    const char *tokenizer;   /* "byte" or a folder; NULL: the model's folder */
    const char *config_path; /* DeepSpeed JSON or Accelerate YAML; NULL: none */
    const char *output_dir;  /* NULL: "run" */
    const char *resume;      /* "latest", a run's or a step's folder; NULL: from the model */
    int64_t block_size;      /* <= 0: the model's positions, 1024 at most */
    bool shuffle;            /* default true */
    /* how long and how */
    mz_config_defaults flags; /* batch sizes, learning rate ... as flags; completed here */
    int64_t eval_batch_size;  /* per rank; <= 0: as training */
    int64_t max_steps;        /* <= 0: by epochs */
    double num_train_epochs;  /* default 3, as the Trainer */
    double warmup_ratio;      /* used when warm-up steps are not given; <= 0: none */
    const char
        *scheduler; /* "constant", "constant_with_warmup", "linear", "cosine"; NULL: the file's, else constant */
    const char *no_decay; /* comma-separated substrings; NULL: the default */
    /* reporting and saving */
    int64_t logging_steps;     /* <= 0: 10 */
    int64_t eval_steps;        /* <= 0: at the end of training only, when there is validation data */
    int64_t save_steps;        /* 0: at the end only; < 0: 500 */
    int save_total_limit;      /* <= 0: all */
    bool save_async;           /* default true */
    bool save_weights;         /* write OUTPUT/weights at the end; default true */
    const char *weights_dtype; /* "bf16", "fp16", "fp32"; NULL: the training dtype, bf16 when fp32 */
    bool tensorboard;          /* event files under OUTPUT/tensorboard; default true */
    bool quiet;                /* no progress on standard output */
    bool json;                 /* eval, estimate: a JSON object on standard output */
    /* machine */
    const char *device; /* NULL: best */
    int cpu_threads;    /* <= 0: cores / ranks of the node */
} mz_train_options;

void mz_train_options_default(mz_train_options *options);

/* Trains as told; returns MZ_OK when done, MZ_STOPPED after a signal's save, an error otherwise. */
mz_status mz_train(mz_world *world, const mz_train_options *options);

/* Loss, perplexity and accuracy-free facts of a model on validation_data (or train_data's held-out split). `model`
 * may be a weights folder; `resume` a checkpoint. */
mz_status mz_evaluate(mz_world *world, const mz_train_options *options);

typedef struct mz_generate_options {
    const char *model, *tokenizer, *device;
    const char *prompt;        /* NULL: the end-of-text token alone */
    int64_t max_new_tokens;    /* default 100 */
    bool do_sample;            /* default: true when temperature, top_k or top_p was given */
    double temperature, top_p; /* default 1 */
    int64_t top_k;             /* 0: all */
    int64_t num_return_sequences;
    uint64_t seed;
    bool ignore_end; /* do not stop at the end token */
    bool json;
    int cpu_threads;
} mz_generate_options;
void mz_generate_options_default(mz_generate_options *options);
/* Not for several ranks: each rank would say the same. */
mz_status mz_generate(mz_world *world, const mz_generate_options *options, FILE *out);

typedef struct mz_estimate_options {
    const char *model, *config_path;
    mz_config_defaults flags;
    int64_t block_size;
    int ranks, nodes, ranks_per_node; /* data-parallel ranks; 0: as the others say, else 1 rank, on 1 node */
    const char *rates_paths;          /* as mz_rates_read; NULL: none */
    double tflops, tokens, updates;   /* of mz_rates, in 10^12, 1 and 10^9 per second; 0: not given */
    double inner_gb, outer_gb;        /* 10^9 bytes per second */
    double inner_us, outer_us;        /* latencies in microseconds; < 0: not given */
    double overlap_cost;              /* of mz_rates */
    bool json;
} mz_estimate_options;
void mz_estimate_options_default(mz_estimate_options *options);
/* Local: plays one rank's step on the meta device; memory by purpose, bytes communicated and, where rates of
 * compute are given, the time of a step. */
mz_status mz_estimate(const mz_estimate_options *options, FILE *out);

#endif
