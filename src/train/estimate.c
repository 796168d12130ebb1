/* mpizero estimate: what a rank would hold and send, without running. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/memory.h"
#include "train/engine_impl.h"
#include "train/setup.h"

void mz_estimate_options_default(mz_estimate_options *options)
{
    *options = (mz_estimate_options){.ranks = 1};
    mz_config_defaults_init(&options->flags);
}

typedef struct estimate {
    mz_model *model;
    mz_config config;
    mz_zero_memory memory;
    mz_plan plan;
    int64_t block_size;
    double sent_per_rank, into_node; /* bytes per optimiser step */
} estimate;

/* The model state of rank 0 of `ranks`, laid out on the meta device. */
static mz_status plan_state(const mz_estimate_options *options, estimate *e)
{
    mz_device *device = NULL;
    mz_stream *stream = NULL;
    mz_runner *runner = NULL;
    mz_zero *zero = NULL;
    static const char *const no_decay[] = {"bias"};
    mz_status st = mz_device_open("meta", 0, 1, &device);
    if (st == MZ_OK)
        st = device->ops->stream_create(device, MZ_STREAM_COMPUTE, &stream);
    if (st == MZ_OK)
        st = mz_runner_create(e->model, e->config.dtype, e->config.grad_accum_dtype, &runner);
    if (st == MZ_OK) {
        const mz_zero_options zero_options = {.config = &e->config,
                                              .device = device,
                                              .compute = stream,
                                              .runner = runner,
                                              .no_decay = no_decay,
                                              .n_no_decay = 1,
                                              .plan_rank = 0,
                                              .plan_size = options->ranks};
        st = mz_zero_create(&zero_options, &zero);
    }
    if (st == MZ_OK)
        mz_zero_get_memory(zero, &e->memory);
    mz_zero_destroy(zero);
    mz_runner_destroy(runner);
    if (stream)
        device->ops->stream_destroy(stream);
    mz_device_close(device);
    return st;
}

static mz_status plan_activations(estimate *e)
{
    int64_t batch = e->config.micro_batch_size;
    const mz_host_input inputs[] = {
        {.role = MZ_INPUT_IDS, .dtype = MZ_I32, .n_dims = 2, .shape = {batch, e->block_size}},
        {.role = MZ_INPUT_LABELS, .dtype = MZ_I32, .n_dims = 2, .shape = {batch, e->block_size}},
    };
    const mz_batch shapes = {.inputs = inputs, .n_inputs = 2, .n_samples = batch};
    return mz_plan_step(e->model, &e->config, &shapes, true, e->config.recompute_cheap, &e->plan);
}

/* Bytes of the collectives of one optimiser step. Each all-gather or reduce-scatter of S bytes over N ranks sends
 * S (N-1)/N per rank and, over M nodes, brings S (M-1)/M into a node. */
static void count_communication(const mz_estimate_options *options, estimate *e)
{
    double params = (double)mz_model_n_params(e->model);
    double param_bytes = params * (double)mz_dtype_size(e->config.dtype);
    double grad_bytes = params * (double)mz_dtype_size(e->config.communication_data_type);
    double micro = (double)e->config.gradient_accumulation_steps;
    int n = options->ranks, per_node = options->ranks_per_node > 0 ? options->ranks_per_node : n;
    double nodes = (n + per_node - 1) / per_node;
    double gathered = 0, reduced = 0; /* bytes of whole tensors that take part */
    switch (e->config.zero.stage) {
    case 0: /* an all-reduce is a reduce-scatter and an all-gather of gradients */
        gathered = reduced = grad_bytes;
        break;
    case 1:
        gathered = param_bytes;
        reduced = grad_bytes;
        break;
    case 2:
        gathered = param_bytes;
        reduced = grad_bytes * micro;
        break;
    default: /* forward and backward gather */
        gathered = 2 * param_bytes * micro;
        reduced = grad_bytes * micro;
    }
    e->sent_per_rank = (gathered + reduced) * (n - 1) / n;
    e->into_node = (gathered + reduced) * (nodes - 1) / nodes;
}

static json_t *to_json(const mz_estimate_options *options, const estimate *e)
{
    const mz_zero_memory *m = &e->memory;
    size_t state = m->params + m->grads + m->master + m->optimizer;
    size_t buffers = m->gather_buffers + m->reduce_buffers + m->other;
    json_t *memory =
        json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "params", (json_int_t)m->params, "grads",
                  (json_int_t)m->grads, "master", (json_int_t)m->master, "optimizer", (json_int_t)m->optimizer,
                  "model_state", (json_int_t)state, "buffers", (json_int_t)buffers, "activations",
                  (json_int_t)e->plan.arena_bytes, "total", (json_int_t)(state + buffers + e->plan.arena_bytes));
    return json_pack(
        "{s:s, s:I, s:s, s:i, s:i, s:i, s:I, s:I, s:I, s:o, s:f, s:f, s:f}", "model",
        mz_model_get_info(e->model)->family, "parameters", (json_int_t)mz_model_n_params(e->model), "dtype",
        mz_dtype_name(e->config.dtype), "zero_stage", e->config.zero.stage, "ranks", options->ranks,
        "ranks_per_node", options->ranks_per_node > 0 ? options->ranks_per_node : options->ranks,
        "micro_batch_size", (json_int_t)e->config.micro_batch_size, "gradient_accumulation_steps",
        (json_int_t)e->config.gradient_accumulation_steps, "block_size", (json_int_t)e->block_size, "memory_bytes",
        memory, "flops_per_step_per_rank", e->plan.flops * (double)e->config.gradient_accumulation_steps,
        "bytes_sent_per_rank_per_step", e->sent_per_rank, "bytes_into_node_per_step", e->into_node);
}

static void print_text(const mz_estimate_options *options, const estimate *e, FILE *out)
{
    const double gib = 1 << 30;
    const mz_zero_memory *m = &e->memory;
    size_t state = m->params + m->grads + m->master + m->optimizer;
    const struct {
        const char *name;
        size_t bytes;
    } rows[] = {{"parameters", m->params},
                {"gradients", m->grads},
                {"master weights", m->master},
                {"optimiser state", m->optimizer},
                {"model state", state},
                {"gather buffers", m->gather_buffers},
                {"reduce buffers", m->reduce_buffers},
                {"other", m->other},
                {"activations", e->plan.arena_bytes}};
    size_t total = state + m->gather_buffers + m->reduce_buffers + m->other + e->plan.arena_bytes;
    fprintf(out, "%s, %.1f M parameters, %s, ZeRO-%d over %d ranks, micro-batch %lld x %lld tokens\n",
            mz_model_get_info(e->model)->family, 1e-6 * (double)mz_model_n_params(e->model),
            mz_dtype_name(e->config.dtype), e->config.zero.stage, options->ranks,
            (long long)e->config.micro_batch_size, (long long)e->block_size);
    fprintf(out, "memory per rank\n");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        fprintf(out, "  %-16s %10.3f GiB%s\n", rows[i].name, (double)rows[i].bytes / gib,
                i == 4 ? "   (the sum of the above)" : "");
    fprintf(out, "  %-16s %10.3f GiB\n", "total", (double)total / gib);
    fprintf(out, "communication per optimiser step: %.3f GiB sent by each rank, %.3f GiB into each node\n",
            e->sent_per_rank / gib, e->into_node / gib);
    fprintf(out, "work per optimiser step: %.3f TFLOP per rank\n",
            1e-12 * e->plan.flops * (double)e->config.gradient_accumulation_steps);
}

mz_status mz_estimate(const mz_estimate_options *options, FILE *out)
{
    estimate e = {0};
    mz_config_defaults flags = options->flags;
    bool is_folder;
    mz_status st =
        options->ranks < 1 ? mz_fail(MZ_ERR_USAGE, "--ranks %d: expected at least 1", options->ranks) : MZ_OK;
    if (st == MZ_OK)
        st = mz_setup_open_model(options->model, &is_folder, &e.model);
    if (st == MZ_OK) {
        int64_t most = mz_model_get_info(e.model)->max_positions;
        flags.hidden_size = mz_model_get_info(e.model)->hidden;
        e.block_size = options->block_size > 0 ? options->block_size : most < 1024 ? most : 1024;
        if (e.block_size > most)
            st = mz_fail(MZ_ERR_USAGE, "--block-size %lld: the model has %lld positions", (long long)e.block_size,
                         (long long)most);
    }
    if (st == MZ_OK)
        st = mz_config_load(options->config_path, &flags, options->ranks, &e.config);
    if (st == MZ_OK)
        st = plan_state(options, &e);
    if (st == MZ_OK)
        st = plan_activations(&e);
    if (st == MZ_OK) {
        count_communication(options, &e);
        if (options->json) {
            json_t *root = to_json(options, &e);
            char *text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
            fprintf(out, "%s\n", text ? text : "{}");
            free(text);
            json_decref(root);
        } else {
            print_text(options, &e, out);
        }
    }
    mz_model_destroy(e.model);
    return st;
}
