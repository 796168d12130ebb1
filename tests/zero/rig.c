#include "rig.h"

#include "core/half.h"
#include "core/rng.h"

int rig_n_failures;

/* ---- models ---- */

typedef struct layer {
    mz_weight_layout layout;
    mz_activation activation;
    bool has_unused, tied, is_last;
} layer;

static mz_status layer_forward(const mz_unit_call *call)
{
    const layer *self = call->self;
    mz_tensor *x = call->state[0] ? call->state[0] : call->inputs[MZ_INPUT_FEATURES], *y = NULL;
    mz_param *weight = self->tied ? call->shared[0] : call->params[0];
    mz_param *bias = self->tied ? call->params[0] : call->params[1];
    mz_status status = mz_linear(call->tape, x, weight, bias, self->layout, self->activation, &y);
    mz_tensor_release(call->state[0]);
    call->state[0] = y;
    if (status || !self->is_last || call->goal != MZ_GOAL_LOSS)
        return status;
    mz_tensor *loss = NULL;
    status = mz_mse_loss(call->tape, y, call->inputs[MZ_INPUT_TARGETS], &loss);
    mz_tensor_release(y);
    call->state[0] = loss;
    return status;
}

static mz_status activate_forward(const mz_unit_call *call)
{
    mz_tensor *y = NULL;
    mz_status status = mz_activate(call->tape, call->state[0], MZ_ACT_TANH, &y);
    mz_tensor_release(call->state[0]);
    call->state[0] = y;
    return status;
}

static void add_layer(mz_model *model, const char *name, int64_t in, int64_t out, const layer *self,
                      const char *uses)
{
    char weight[64], bias[64], unused[64];
    snprintf(weight, sizeof weight, "%s.weight", name);
    snprintf(bias, sizeof bias, "%s.bias", name);
    snprintf(unused, sizeof unused, "%s.unused", name);
    mz_param_spec params[3];
    int n = 0;
    if (!uses)
        params[n++] = (mz_param_spec){weight, 2, {out, in}, MZ_INIT_NORMAL, 0.2f};
    params[n++] = (mz_param_spec){bias, 1, {out}, MZ_INIT_NORMAL, 0.1f};
    if (self->has_unused)
        params[n++] = (mz_param_spec){unused, 2, {13, 10}, MZ_INIT_NORMAL, 0.1f};
    mz_unit_spec unit = {.name = name,
                         .params = params,
                         .n_params = n,
                         .uses = uses ? &uses : NULL,
                         .n_uses = uses ? 1 : 0,
                         .forward = layer_forward,
                         .self = self,
                         .self_bytes = sizeof *self,
                         .recomputable = true};
    REQUIRE(mz_model_add_unit(model, &unit));
}

static void make_mlp(mz_model **model)
{
    REQUIRE(mz_model_create("mlp", model));
    add_layer(*model, "first", RIG_FEATURES, 33, &(layer){.layout = MZ_WEIGHT_OUT_IN, .activation = MZ_ACT_TANH},
              NULL);
    add_layer(*model, "middle", 33, 19,
              &(layer){.layout = MZ_WEIGHT_OUT_IN, .activation = MZ_ACT_GELU_ERF, .has_unused = true}, NULL);
    REQUIRE(mz_model_add_unit(*model, &(mz_unit_spec){.name = "activation", .forward = activate_forward}));
    add_layer(*model, "back", 19, 33, &(layer){.layout = MZ_WEIGHT_IN_OUT, .tied = true}, "middle.weight");
    add_layer(*model, "last", 33, RIG_TARGETS, &(layer){.layout = MZ_WEIGHT_OUT_IN, .is_last = true}, NULL);
}

void rig_model(const char *kind, int blocks, mz_model **model)
{
    char json[512];
    if (strcmp(kind, "mlp") == 0) {
        make_mlp(model);
        return;
    }
    snprintf(json, sizeof json,
             "{\"model_type\": \"gpt2\", \"vocab_size\": %d, \"n_positions\": 16, \"n_embd\": 24, \"n_layer\": %d, "
             "\"n_head\": 3, \"attn_pdrop\": 0, \"embd_pdrop\": 0, \"resid_pdrop\": 0, \"bos_token_id\": 0, "
             "\"eos_token_id\": 0, \"tie_word_embeddings\": %s}",
             RIG_VOCAB, blocks, strncmp(kind, "untied", 6) ? "true" : "false");
    REQUIRE(mz_model_from_config("test", json, model));
}

/* ---- values of parameters ---- */

int64_t rig_elements(const mz_model *model)
{
    return mz_model_n_params(model);
}

static int64_t spec_numel(const mz_param_spec *spec)
{
    int64_t n = 1;
    for (int d = 0; d < spec->n_dims; d++)
        n *= spec->shape[d];
    return n;
}

/* Where a tensor begins among all elements in the model's order. */
static int64_t place_of(const mz_model *model, const char *name)
{
    int64_t at = 0;
    for (int u = 0; u < mz_model_n_units(model); u++)
        for (int p = 0; p < mz_model_unit(model, u)->n_params; p++) {
            const mz_param_spec *spec = &mz_model_unit(model, u)->params[p];
            if (strcmp(spec->name, name) == 0)
                return at;
            at += spec_numel(spec);
        }
    return -1;
}

mz_status rig_source(void *context, const mz_param_spec *spec, int64_t offset, int64_t count, float *dst)
{
    const rig_values *v = context;
    memcpy(dst, v->values + place_of(v->model, spec->name) + offset, (size_t)count * sizeof *dst);
    return MZ_OK;
}

static mz_status draw(void *context, const mz_param_spec *spec, int64_t offset, int64_t count, float *dst)
{
    (void)context;
    mz_rng_fill_normal(11, mz_rng_site(spec->name, 0), offset, count, dst);
    for (int64_t i = 0; i < count; i++)
        dst[i] = spec->init == MZ_INIT_ONES    ? 1
                 : spec->init == MZ_INIT_ZEROS ? 0.02f * dst[i]
                                               : (spec->init_scale < 0.1f ? 0.1f : spec->init_scale) * dst[i];
    return MZ_OK;
}

float *rig_gather(const rig *r, const mz_model *model, mz_shard_kind kind, int **counts)
{
    int64_t n = rig_elements(model), n_shards = 0;
    float *values = calloc((size_t)n, sizeof *values);
    int *listed = calloc((size_t)n, sizeof *listed);
    const mz_shard *shards = NULL;
    if (r)
        REQUIRE(mz_zero_shards(r->zero, &shards, &n_shards));
    for (int64_t i = 0; i < n_shards; i++)
        for (int64_t k = 0; shards[i].kind == kind && k < shards[i].count; k++) {
            int64_t at = place_of(model, shards[i].name) + shards[i].offset + k;
            values[at] += mz_load_f32(shards[i].data, shards[i].dtype, k);
            listed[at]++;
        }
    MPI_Allreduce(MPI_IN_PLACE, values, (int)n, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
    MPI_Allreduce(MPI_IN_PLACE, listed, (int)n, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    if (counts)
        *counts = listed;
    else
        free(listed);
    return values;
}

/* ---- a rig ---- */

void rig_config(mz_config *c)
{
    *c = (mz_config){
        .dtype = MZ_F32,
        .grad_accum_dtype = MZ_F32,
        .communication_data_type = MZ_F32,
        .bf16_check_grad_overflow = true,
        .zero =
            {
                .contiguous_gradients = true,
                .reduce_scatter = true,
                .allgather_partitions = true,
                .reduce_bucket_size = 500000000,
                .allgather_bucket_size = 500000000,
                .sub_group_size = 1000000000,
                .stage3_prefetch_bucket_size = 50000000,
                .stage3_param_persistence_threshold = 100,
                .stage3_model_persistence_threshold = INT64_MAX,
                .stage3_max_live_parameters = 1000000000,
                .stage3_max_reuse_distance = 1000000000,
                .zero_hpz_partition_size = 1,
                .mics_shard_size = -1,
            },
        .optimizer = {.kind = MZ_OPTIM_ADAMW,
                      .lr = 3e-3,
                      .beta1 = 0.9,
                      .beta2 = 0.999,
                      .eps = 1e-8,
                      .weight_decay = 0.1,
                      .bias_correction = true},
        .gradient_clipping = 1,
        .gradient_predivide_factor = 1,
    };
}

static mz_status create_tape(rig *r)
{
    void *weights;
    mz_status status = r->device->ops->alloc(r->device, 2 * sizeof(float), &weights);
    if (status)
        return status;
    r->weights = weights;
    status = mz_arena_create(r->device, 0, &r->arena);
    if (status)
        return status;
    mz_tape_options options = {.device = r->device,
                               .stream = r->stream,
                               .arena = r->arena,
                               .dtype = r->config.dtype,
                               .grad_request = mz_zero_grad_request,
                               .grad_context = r->zero,
                               .loss_weight = r->weights,
                               .grad_weight = r->weights + 1};
    return mz_tape_create(&options, &r->tape);
}

mz_status rig_create(mz_device *device, mz_comm *comm, const mz_config *config, const mz_model *model, rig **out)
{
    static const char *const no_decay[] = {"bias", "ln_"};
    rig *r = mz_calloc(1, sizeof *r);
    *r = (rig){.config = *config,
               .device = device,
               .comm = comm,
               .size = 1,
               .loss_scale = 1,
               .n_micro = RIG_MICRO,
               .poison_step = -1};
    if (comm) {
        r->rank = mz_comm_rank(comm);
        r->size = mz_comm_size(comm);
    }
    mz_status status = device->ops->stream_create(device, MZ_STREAM_COMPUTE, &r->stream);
    if (!status)
        status = mz_runner_create(model, config->dtype, config->grad_accum_dtype, &r->runner);
    mz_zero_options options = {.config = &r->config,
                               .device = device,
                               .comm = comm,
                               .compute = r->stream,
                               .runner = r->runner,
                               .no_decay = no_decay,
                               .n_no_decay = 2};
    if (!status)
        status = mz_zero_create(&options, &r->zero);
    if (!status)
        status = mz_zero_load_params(r->zero, draw, NULL);
    if (!status)
        status = create_tape(r);
    if (status) {
        rig_destroy(r);
        return status;
    }
    mz_runner_hooks hooks;
    mz_zero_hooks(r->zero, &hooks);
    mz_runner_set_hooks(r->runner, &hooks);
    *out = r;
    return MZ_OK;
}

void rig_destroy(rig *r)
{
    if (!r)
        return;
    mz_tape_destroy(r->tape);
    mz_arena_destroy(r->arena);
    mz_zero_destroy(r->zero);
    mz_runner_destroy(r->runner);
    if (r->weights)
        r->device->ops->free(r->device, r->weights);
    if (r->stream)
        r->device->ops->stream_destroy(r->stream);
    mz_free(r);
}

/* ---- a step ---- */

typedef struct batch {
    int32_t ids[RIG_SAMPLES * RIG_TOKENS];
    float features[RIG_SAMPLES * RIG_FEATURES], targets[RIG_SAMPLES * RIG_TARGETS];
    uint16_t features16[RIG_SAMPLES * RIG_FEATURES], targets16[RIG_SAMPLES * RIG_TARGETS];
} batch;

/* Samples first .. first + n of the global batch of this step: tokens that follow a pattern, and a function. */
static void fill_batch(batch *b, int64_t step, int64_t first, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        uint64_t sample = (uint64_t)(step * RIG_SAMPLES + first + i);
        uint32_t start = mz_rng_u32(5, 1, 0, sample) % RIG_VOCAB, stride = 1 + mz_rng_u32(5, 2, 0, sample) % 3;
        for (uint32_t t = 0; t < RIG_TOKENS; t++)
            b->ids[i * RIG_TOKENS + t] = (int32_t)((start + stride * t) % RIG_VOCAB);
        float *x = b->features + i * RIG_FEATURES, *y = b->targets + i * RIG_TARGETS;
        mz_rng_fill_normal(5, 3, (int64_t)sample * RIG_FEATURES, RIG_FEATURES, x);
        for (int k = 0; k < RIG_TARGETS; k++)
            y[k] = sinf(x[k]) + x[k + 1] * x[k + 2];
    }
}

static void borrow(rig *r, mz_run *run, mz_input_role role, int64_t n, int64_t width, mz_dtype dtype, void *data)
{
    const int64_t shape[2] = {n, width};
    REQUIRE(mz_tensor_borrow(r->tape, dtype, 2, shape, data, &run->inputs[role]));
}

static void run_micro(rig *r, int64_t step, int64_t micro, bool training, double *loss)
{
    static batch b;
    int64_t n = RIG_SAMPLES / (r->n_micro * r->size);
    fill_batch(&b, step, (micro * r->size + r->rank) * n, n);
    mz_convert(b.features16, r->config.dtype == MZ_F32 ? MZ_BF16 : r->config.dtype, b.features, MZ_F32,
               n * RIG_FEATURES);
    mz_convert(b.targets16, r->config.dtype == MZ_F32 ? MZ_BF16 : r->config.dtype, b.targets, MZ_F32,
               n * RIG_TARGETS);
    bool wide = r->config.dtype == MZ_F32;
    mz_run run = {.goal = MZ_GOAL_LOSS, .training = training};
    mz_tensor *result = NULL;
    borrow(r, &run, MZ_INPUT_IDS, n, RIG_TOKENS, MZ_I32, b.ids);
    borrow(r, &run, MZ_INPUT_LABELS, n, RIG_TOKENS, MZ_I32, b.ids);
    borrow(r, &run, MZ_INPUT_FEATURES, n, RIG_FEATURES, r->config.dtype, wide ? (void *)b.features : b.features16);
    borrow(r, &run, MZ_INPUT_TARGETS, n, RIG_TARGETS, r->config.dtype, wide ? (void *)b.targets : b.targets16);
    REQUIRE(mz_zero_begin_micro(r->zero, training, micro == 0, micro == r->n_micro - 1));
    REQUIRE(mz_runner_forward(r->runner, r->tape, &run, &result));
    float value;
    REQUIRE(r->device->ops->copy(r->stream, &value, mz_tensor_data(result), sizeof value));
    if (training)
        REQUIRE(mz_runner_backward(r->runner, r->tape));
    REQUIRE(r->device->ops->stream_sync(r->stream));
    mz_tensor_release(result);
    REQUIRE(mz_zero_end_micro(r->zero));
    mz_tape_reset(r->tape);
    *loss += value;
}

static double run_all(rig *r, int64_t step, bool training)
{
    double loss = 0, weight = 1.0 / (RIG_SAMPLES * (RIG_TOKENS - 1));
    float poison = step == r->poison_step && r->rank == r->size - 1 ? INFINITY : 1;
    float weights[2] = {(float)weight,
                        (float)(weight * r->loss_scale * mz_zero_grad_weight_factor(r->zero)) * poison};
    REQUIRE(r->device->ops->copy(r->stream, r->weights, weights, sizeof weights));
    for (int64_t micro = 0; micro < r->n_micro; micro++)
        run_micro(r, step, micro, training, &loss);
    if (r->size > 1)
        REQUIRE(mz_all_reduce_host(r->comm, &loss, 1, false, "loss"));
    return loss;
}

void rig_step(rig *r, int64_t step, double *loss, mz_zero_step_info *info)
{
    *loss = run_all(r, step, true);
    info->lr = r->config.optimizer.lr;
    info->beta1 = r->config.optimizer.beta1;
    info->loss_scale = r->loss_scale;
    info->clip = r->config.gradient_clipping;
    info->step = step + 1;
    REQUIRE(mz_zero_update(r->zero, info));
}

double rig_eval(rig *r, int64_t step)
{
    return run_all(r, step, false);
}
