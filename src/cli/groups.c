/* Options that several commands have. */
#include "cli/cli.h"

#include "mpizero/config.h"

#define AT(field)   offsetof(mz_cli_common, field)
#define FLAG(field) offsetof(mz_config_defaults, field)
#define N(table)    ((int)(sizeof(table) / sizeof((table)[0])))

static const mz_option common[] = {
    MZ_WORD("log-level", "LEVEL", "info", "error|warning|info|debug", AT(log_level),
            "error, warning, info or debug"),
};
const mz_option_group mz_group_common = {"Messages", common, N(common)};

static const mz_option launch[] = {
    MZ_INT("ranks-per-node", "N", "as found", 1, 1e6, AT(ranks_per_node),
           "cut the ranks of a machine into nodes of N ranks"),
    MZ_WORD("wire", "NAME", "as $MPIZERO_WIRE says, else ucx where built with it", "ucx|mpi", AT(wire),
            "what moves data between nodes: ucx or mpi"),
    MZ_DOUBLE("timeout", "SECONDS", "1800", 0.001, 1e9, AT(timeout_seconds),
              "how long a rank waits for another one before it ends the job"),
};
const mz_option_group mz_group_launch = {"Launch", launch, N(launch)};

static const mz_option training[] = {
    MZ_INT64("per-device-train-batch-size", "N", "8", 1, 2147483647, FLAG(micro_batch_size),
             "samples of a micro-batch, per rank"),
    MZ_INT64("gradient-accumulation-steps", "N", "1", 1, 2147483647, FLAG(gradient_accumulation_steps),
             "micro-batches per optimiser step"),
    MZ_DOUBLE("learning-rate", "RATE", "5e-5", 0, 1e9, FLAG(learning_rate), "the optimiser's learning rate"),
    MZ_DOUBLE("weight-decay", "RATE", "0", 0, 1e9, FLAG(weight_decay),
              "weight decay of the parameters that --no-decay does not name"),
    MZ_DOUBLE("adam-beta1", "BETA", "0.9", 0, 1, FLAG(adam_beta1), "decay of Adam's first moment"),
    MZ_DOUBLE("adam-beta2", "BETA", "0.999", 0, 1, FLAG(adam_beta2), "decay of Adam's second moment"),
    MZ_DOUBLE("adam-epsilon", "EPS", "1e-8", 0, 1, FLAG(adam_epsilon), "what Adam adds to the denominator"),
    MZ_DOUBLE("max-grad-norm", "NORM", "1", 0, 1e30, FLAG(gradient_clipping),
              "clip gradients to this global norm; 0 does not clip"),
    MZ_INT64_ALSO("num-warmup-steps", "warmup-steps", "N", "0", 0, 9e18, FLAG(warmup_steps),
                  "steps over which the learning rate rises"),
    MZ_WORD("mixed-precision", "TYPE", "no", "no|fp16|bf16", FLAG(mixed_precision), "no, fp16 or bf16; no is fp32"),
    MZ_CHOICE("gradient-checkpointing", NULL, FLAG(gradient_checkpointing),
              "keep only the inputs of blocks and recompute the rest in the backward pass"),
    MZ_CHOICE(
        "recompute-cheap", NULL, FLAG(recompute_cheap),
        "recompute what is cheap, the outputs of activation functions and layer norms: a third less memory for "
        "activations; done without being asked for where a step does not fit otherwise"),
    MZ_CHOICE("tf32", NULL, FLAG(tf32),
              "in fp32, let a GPU round the operands of matrix products to TF32 (10 bits): several times as fast"),
    MZ_CHOICE("stochastic-rounding", NULL, FLAG(stochastic_rounding),
              "without fp32 master weights (bf16.bf16_master_weights_and_grads), round updated weights to bf16 "
              "stochastically, so that small updates count on average"),
    MZ_DOUBLE(
        "activation-memory", "GIB", "0", 0, 1e6, FLAG(activation_memory),
        "what the activations of a micro-batch may take; recomputes as little of what is cheap as that needs; 0 "
        "is no limit"),
    MZ_INT("zero-stage", "STAGE", "0, or 2 for \"auto\"", 0, 3, FLAG(zero_stage),
           "what is sharded: 0 nothing, 1 optimiser state, 2 and gradients, 3 and parameters"),
    MZ_INT64("seed", "N", "42", 0, 9e18, FLAG(seed), "of initialisation, dropout and the order of samples"),
};
const mz_option_group mz_group_training = {"Training", training, N(training)};
