/* mpizero estimate: what a rank would hold and send, and how long a step would take, without running. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/memory.h"
#include "train/engine_impl.h"
#include "train/predict.h"
#include "train/setup.h"

enum { MOST_RANKS = 1000000 };

#define GIB (1024.0 * 1024.0 * 1024.0)

void mz_estimate_options_default(mz_estimate_options *options)
{
    *options = (mz_estimate_options){.inner_us = -1, .outer_us = -1};
    mz_config_defaults_init(&options->flags);
}

typedef struct estimate {
    mz_model *model;
    mz_config config;
    mz_plan plan;
    int64_t block_size;
    int n_nodes, per_node, ranks;
    mz_rates rates;
    mz_prediction prediction;
    double tokens_per_second, efficiency; /* of all ranks; against as many that have nobody to talk to */
} estimate;

static mz_host_input ids_of(const estimate *e, mz_input_role role)
{
    return (mz_host_input){
        .role = role, .dtype = MZ_I32, .n_dims = 2, .shape = {e->config.micro_batch_size, e->block_size}};
}

static mz_status plan_activations(estimate *e)
{
    const mz_host_input inputs[] = {ids_of(e, MZ_INPUT_IDS), ids_of(e, MZ_INPUT_LABELS)};
    const mz_batch shapes = {.inputs = inputs, .n_inputs = 2, .n_samples = e->config.micro_batch_size};
    mz_recompute recompute = mz_plan_recompute(&e->config);
    mz_status st = mz_plan_step(e->model, &e->config, &shapes, true, recompute, &e->plan);
    double flops = e->plan.flops, limit = e->config.activation_memory * GIB;
    if (st == MZ_OK && limit > 0 && (double)e->plan.arena_bytes > limit)
        st = mz_plan_within(e->model, &e->config, &shapes, recompute, (size_t)limit, &recompute, &e->plan);
    e->plan.flops = flops;
    return st;
}

/* How many nodes of how many ranks. */
static mz_status find_cluster(const mz_estimate_options *o, estimate *e)
{
    int ranks = o->ranks > 0 ? o->ranks : 1;
    e->per_node = o->ranks_per_node > 0 ? o->ranks_per_node : o->nodes > 0 ? ranks / o->nodes : ranks;
    e->per_node = e->per_node > 0 ? e->per_node : 1;
    e->n_nodes = o->nodes > 0 ? o->nodes : ranks / e->per_node;
    int64_t all = (int64_t)e->n_nodes * e->per_node;
    if (all < 1 || all > MOST_RANKS || (o->ranks > 0 && all != o->ranks))
        return mz_fail(MZ_ERR_USAGE,
                       "--ranks %d --nodes %d --ranks-per-node %d: expected nodes with equally many ranks, at most "
                       "%d ranks in all",
                       o->ranks, o->nodes, o->ranks_per_node, MOST_RANKS);
    e->ranks = (int)all;
    return MZ_OK;
}

/* What was given on the command line comes before what files say. */
static mz_status find_rates(const mz_estimate_options *o, estimate *e)
{
    e->rates = (mz_rates){.flops = 1e12 * o->tflops,
                          .tokens = o->tokens,
                          .updates = 1e9 * o->updates,
                          .overlap_cost = o->overlap_cost,
                          .links = {.inner_bandwidth = 1e9 * o->inner_gb, .outer_bandwidth = 1e9 * o->outer_gb}};
    mz_status st = o->rates_paths ? mz_rates_read(o->rates_paths, &e->rates) : MZ_OK;
    mz_links *links = &e->rates.links;
    if (o->inner_us >= 0)
        links->inner_latency = 1e-6 * o->inner_us;
    if (o->outer_us >= 0)
        links->outer_latency = 1e-6 * o->outer_us;
    bool predicts = e->rates.flops > 0 || e->rates.tokens > 0;
    if (st == MZ_OK && predicts && e->per_node > 1 && links->inner_bandwidth <= 0)
        st = mz_fail(MZ_ERR_USAGE,
                     "%d ranks per node: expected the speed of collectives inside a node, by "
                     "--inner-bandwidth or a bench of collectives on one node in --rates",
                     e->per_node);
    if (st == MZ_OK && predicts && e->n_nodes > 1 && links->outer_bandwidth <= 0)
        st = mz_fail(MZ_ERR_USAGE,
                     "%d nodes: expected the speed of the links between them, by --outer-bandwidth or "
                     "a bench of collectives on several nodes in --rates",
                     e->n_nodes);
    return st;
}

/* Plays the step of one rank alone, then that of the cluster. Tokens per second of a rank alone are turned into the
 * rate of its passes: what its update takes is left out. */
static mz_status predict(estimate *e)
{
    const mz_host_input inputs[] = {ids_of(e, MZ_INPUT_IDS), ids_of(e, MZ_INPUT_LABELS)};
    const mz_batch shapes = {.inputs = inputs, .n_inputs = 2, .n_samples = e->config.micro_batch_size};
    double tokens = (double)(e->config.micro_batch_size * e->config.gradient_accumulation_steps * e->block_size);
    double params = (double)mz_model_n_params(e->model);
    if (e->rates.tokens > 0) {
        double passes = tokens / e->rates.tokens - (e->rates.updates > 0 ? params / e->rates.updates : 0);
        if (passes <= 0)
            return mz_fail(MZ_ERR_USAGE,
                           "%g tokens/s and %g parameters/s: the update alone takes longer than a step does",
                           e->rates.tokens, e->rates.updates);
        e->rates.flops = mz_flops_per_token(e->model, e->block_size) * tokens / passes;
    }
    mz_status st =
        mz_predict_step(e->model, &e->config, &shapes, e->n_nodes, e->per_node, &e->rates, &e->prediction);
    if (st != MZ_OK || e->rates.flops <= 0)
        return st;
    e->tokens_per_second = tokens * e->ranks / e->prediction.step;
    mz_prediction alone;
    mz_config config = e->config;
    config.zero.stage = 0;
    st = mz_predict_step(e->model, &config, &shapes, 1, 1, &e->rates, &alone);
    e->efficiency = alone.step / e->prediction.step;
    return st;
}

static json_t *prediction_json(const estimate *e)
{
    const mz_prediction *p = &e->prediction;
    const mz_links *links = &e->rates.links;
    if (e->rates.flops <= 0)
        return json_null();
    json_t *rates =
        json_pack("{s:f, s:f, s:f, s:f, s:f, s:f}", "flops", e->rates.flops, "updates", e->rates.updates,
                  "inner_bandwidth", links->inner_bandwidth, "inner_latency", links->inner_latency,
                  "outer_bandwidth", links->outer_bandwidth, "outer_latency", links->outer_latency);
    return json_pack("{s:f, s:f, s:f, s:f, s:f, s:o}", "step_seconds", p->step, "exposed_communication_seconds",
                     p->exposed, "communication_seconds", p->communication, "tokens_per_second",
                     e->tokens_per_second, "efficiency", e->efficiency, "rates", rates);
}

static json_t *to_json(const estimate *e)
{
    const mz_zero_memory *m = &e->prediction.memory;
    size_t state = m->params + m->grads + m->master + m->optimizer;
    size_t buffers = m->gather_buffers + m->reduce_buffers + m->other;
    json_t *memory =
        json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "params", (json_int_t)m->params, "grads",
                  (json_int_t)m->grads, "master", (json_int_t)m->master, "optimizer", (json_int_t)m->optimizer,
                  "model_state", (json_int_t)state, "buffers", (json_int_t)buffers, "activations",
                  (json_int_t)e->plan.arena_bytes, "total", (json_int_t)(state + buffers + e->plan.arena_bytes));
    return json_pack(
        "{s:s, s:I, s:s, s:i, s:i, s:i, s:i, s:I, s:I, s:I, s:o, s:f, s:f, s:f, s:o}", "model",
        mz_model_get_info(e->model)->family, "parameters", (json_int_t)mz_model_n_params(e->model), "dtype",
        mz_dtype_name(e->config.dtype), "zero_stage", e->config.zero.stage, "ranks", e->ranks, "nodes", e->n_nodes,
        "ranks_per_node", e->per_node, "micro_batch_size", (json_int_t)e->config.micro_batch_size,
        "gradient_accumulation_steps", (json_int_t)e->config.gradient_accumulation_steps, "block_size",
        (json_int_t)e->block_size, "memory_bytes", memory, "flops_per_step_per_rank",
        e->plan.flops * (double)e->config.gradient_accumulation_steps, "bytes_sent_per_rank_per_step",
        e->prediction.sent, "bytes_into_node_per_step", e->prediction.received, "prediction", prediction_json(e));
}

static void print_prediction(const estimate *e, FILE *out)
{
    const mz_prediction *p = &e->prediction;
    const mz_links *links = &e->rates.links;
    fprintf(out,
            "predicted step: %.3f ms, %.0f tokens/s over %d nodes of %d; %.1f %% of ranks that need not talk\n",
            1e3 * p->step, e->tokens_per_second, e->n_nodes, e->per_node, 100 * e->efficiency);
    fprintf(out, "  communication    %10.3f ms, of which compute does not hide %.3f ms\n", 1e3 * p->communication,
            1e3 * p->exposed);
    fprintf(out, "  from %.4g TFLOP/s, %.4g G updates/s per rank", 1e-12 * e->rates.flops, 1e-9 * e->rates.updates);
    if (e->per_node > 1)
        fprintf(out, "; inside a node %.4g GB/s, %.3g us", 1e-9 * links->inner_bandwidth,
                1e6 * links->inner_latency);
    if (e->n_nodes > 1)
        fprintf(out, "; between nodes %.4g GB/s, %.3g us", 1e-9 * links->outer_bandwidth,
                1e6 * links->outer_latency);
    fputc('\n', out);
}

static void print_text(const estimate *e, FILE *out)
{
    const double gib = 1 << 30;
    const mz_zero_memory *m = &e->prediction.memory;
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
            mz_dtype_name(e->config.dtype), e->config.zero.stage, e->ranks, (long long)e->config.micro_batch_size,
            (long long)e->block_size);
    fprintf(out, "memory per rank\n");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        fprintf(out, "  %-16s %10.3f GiB%s\n", rows[i].name, (double)rows[i].bytes / gib,
                i == 4 ? "   (the sum of the above)" : "");
    fprintf(out, "  %-16s %10.3f GiB\n", "total", (double)total / gib);
    fprintf(out, "communication per optimiser step: %.3f GiB sent by each rank, %.3f GiB into each node\n",
            e->prediction.sent / gib, e->prediction.received / gib);
    fprintf(out, "work per optimiser step: %.3f TFLOP per rank\n",
            1e-12 * e->plan.flops * (double)e->config.gradient_accumulation_steps);
    if (e->rates.flops > 0)
        print_prediction(e, out);
}

mz_status mz_estimate(const mz_estimate_options *options, FILE *out)
{
    estimate e = {0};
    mz_config_defaults flags = options->flags;
    bool is_folder;
    mz_status st = find_cluster(options, &e);
    if (st == MZ_OK)
        st = find_rates(options, &e);
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
        st = mz_config_load(options->config_path, &flags, e.ranks, &e.config);
    if (st == MZ_OK)
        st = predict(&e);
    if (st == MZ_OK)
        st = plan_activations(&e);
    if (st == MZ_OK) {
        if (options->json) {
            json_t *root = to_json(&e);
            char *text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
            fprintf(out, "%s\n", text ? text : "{}");
            free(text);
            json_decref(root);
        } else {
            print_text(&e, out);
        }
    }
    mz_model_destroy(e.model);
    return st;
}
