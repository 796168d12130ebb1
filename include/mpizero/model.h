/* Models: a list of units, each a parameter specification and a forward function.
 *
 * The unit is the grain of everything: ZeRO-3 gathers and frees by unit, activation checkpointing
 * recomputes by unit, offload moves by unit, profiles report by unit. For a transformer: the embeddings,
 * each block, the head. */
#ifndef MPIZERO_MODEL_H
#define MPIZERO_MODEL_H

#include "mpizero/nn.h"
#include "mpizero/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum mz_init_kind { MZ_INIT_ZEROS, MZ_INIT_ONES, MZ_INIT_NORMAL, MZ_INIT_UNIFORM } mz_init_kind;

typedef struct mz_param_spec {
    const char *name; /* full name in the weights file: "transformer.h.0.attn.c_attn.weight" */
    int n_dims;
    int64_t shape[MZ_MAX_DIMS];
    mz_init_kind init;
    float init_scale; /* NORMAL: standard deviation; UNIFORM: half width */
} mz_param_spec;

/* A parameter at run time. Opaque to models; the engine sets where its data lies. */
const mz_param_spec *mz_param_get_spec(const mz_param *param);

/* What a micro-batch can hold, by role. A model uses those it needs. */
typedef enum mz_input_role {
    MZ_INPUT_IDS = 0,   /* int32 [B, T] token ids */
    MZ_INPUT_LABELS,    /* int32 [B, T] the token each position is to predict; -100: none */
    MZ_INPUT_MASK,      /* uint8 [B, T] 1 = a real token */
    MZ_INPUT_POSITIONS, /* int32 [B, T] */
    MZ_INPUT_FEATURES,  /* float [B, ..] */
    MZ_INPUT_TARGETS,   /* float [B, ..] for mz_mse_loss, or int32 [B] classes */
    MZ_INPUT_IDS2,      /* a second sequence (decoder) and its like */
    MZ_INPUT_MASK2,
    MZ_INPUT_TYPES,
    MZ_N_INPUTS
} mz_input_role;

typedef enum mz_goal {
    MZ_GOAL_LOSS,  /* the last unit leaves the scalar loss in state[0] */
    MZ_GOAL_LOGITS /* the last unit leaves logits [B, T, V] in state[0] */
} mz_goal;

#define MZ_STATE_MAX 4

/* One call of a unit's forward. `state` holds the tensors that pass from unit to unit (NULL where none);
 * the unit takes over the references in it, releases what it replaces and leaves what the next one needs. When it
 * fails, whatever is in `state` is released for it. */
typedef struct mz_unit_call {
    mz_tape *tape;
    const void *self;           /* the unit's own settings, from its specification */
    mz_param *const *params;    /* the unit's parameters, in the order of its specification */
    mz_param *const *shared;    /* the parameters it names in `uses`, in order */
    mz_tensor *const *inputs;   /* by mz_input_role; NULL where absent */
    mz_tensor **state;          /* MZ_STATE_MAX */
    mz_goal goal;
    bool training;              /* dropout is active */
    bool last_position_only;    /* LOGITS: only the last position is wanted, [B, 1, V] */
    mz_kv_cache *cache;         /* generation; NULL otherwise */
    int64_t position_offset;    /* positions already in the cache */
} mz_unit_call;

typedef mz_status (*mz_unit_forward)(const mz_unit_call *call);

typedef struct mz_unit_spec {
    const char *name; /* "transformer.h.3" */
    const mz_param_spec *params;
    int n_params;
    const char *const *uses; /* names of other units' parameters that forward uses too (tied weights) */
    int n_uses;
    mz_unit_forward forward;
    const void *self;         /* copied, self_bytes */
    size_t self_bytes;
    bool recomputable;        /* activation checkpointing may drop and redo it; blocks say yes */
    double flops_per_token;   /* of the forward's matrix products, for MFU; 0: counted by a planned step */
    bool replayable;          /* given the same shapes, goal and mode, forward calls the same operations with the same
                               * settings, and does nothing else that matters: where all units say so, a GPU's steps
                               * may be recorded and replayed without calling it */
} mz_unit_spec;

typedef struct mz_model mz_model;

/* An empty model. `name` is copied. */
mz_status mz_model_create(const char *name, mz_model **model);
/* Adds a unit; the specification and all it points to are copied. MZ_ERR_ARGUMENT when a parameter name is
 * taken, or `uses` names one that no earlier unit has. */
mz_status mz_model_add_unit(mz_model *model, const mz_unit_spec *unit);
void mz_model_destroy(mz_model *model);

int mz_model_n_units(const mz_model *model);
const mz_unit_spec *mz_model_unit(const mz_model *model, int unit); /* borrowed */
int64_t mz_model_n_params(const mz_model *model);                   /* elements, tied ones once */

/* A model from a Hugging Face folder's config.json. Families: "gpt2". The message for another model_type lists
 * them. */
mz_status mz_model_from_folder(const char *folder, mz_model **model);
/* The same from a config.json text; `name` is used in messages. */
mz_status mz_model_from_config(const char *name, const char *config_json, mz_model **model);

/* Facts about a model that came from a configuration; 0 or NULL in a model of one's own that sets none. */
typedef struct mz_model_info {
    const char *family;      /* "gpt2" */
    const char *config_json; /* what to write beside the weights */
    int64_t vocab, max_positions, hidden, layers, heads, head_size;
    int32_t bos_id, eos_id, pad_id; /* -1: none */
} mz_model_info;
const mz_model_info *mz_model_get_info(const mz_model *model);
mz_status mz_model_set_info(mz_model *model, const mz_model_info *info); /* strings copied */

#ifdef __cplusplus
}
#endif
#endif
