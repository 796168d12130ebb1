/* mpizero generate: text from a model, with a cache of keys and values. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "comm/conclude.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/log.h"
#include "core/memory.h"
#include "data/tokenizer.h"
#include "train/engine_impl.h"
#include "train/sampling.h"
#include "train/train.h"

void mz_generate_options_default(mz_generate_options *options)
{
    *options =
        (mz_generate_options){.max_new_tokens = 100, .temperature = 1, .top_p = 1, .num_return_sequences = 1};
}

typedef struct generation {
    const mz_generate_options *options;
    mz_model *model;
    mz_tokenizer *tokenizer;
    mz_engine *engine;
    mz_kv_cache *cache;
    int64_t n, length, capacity; /* sequences; tokens in each; room in each */
    int64_t prompt_length, vocab;
    int32_t *tokens; /* [n][capacity] */
    int64_t *ends;   /* length of each sequence, -1 while it runs */
    int32_t *step_ids, *scratch;
    float *logits; /* [n][vocab] */
} generation;

static mz_status read_prompt(generation *g)
{
    const mz_generate_options *o = g->options;
    int64_t limit = mz_model_get_info(g->model)->max_positions, n = 0, room = 0;
    int32_t *ids = NULL;
    const char *prompt = o->prompt ? o->prompt : "";
    mz_status st = mz_tokenizer_encode(g->tokenizer, prompt, strlen(prompt), true, &ids, &n, &room);
    int32_t only = mz_tokenizer_end_id(g->tokenizer);
    if (st == MZ_OK && n == 0 && only < 0)
        st = mz_fail(MZ_ERR_USAGE, "--prompt: empty, and the tokenizer has no end-of-text token to start from");
    if (st == MZ_OK && n >= limit)
        st = mz_fail(MZ_ERR_USAGE, "--prompt: %lld tokens, but the model has %lld positions: nothing can follow",
                     (long long)n, (long long)limit);
    if (st != MZ_OK)
        goto out;
    g->length = g->prompt_length = n > 0 ? n : 1;
    g->capacity = g->length + o->max_new_tokens;
    if (g->capacity > limit) {
        mz_log(MZ_LOG_WARN, "the model has %lld positions: stopping after %lld new tokens", (long long)limit,
               (long long)(limit - g->length));
        g->capacity = limit;
    }
    g->n = o->num_return_sequences;
    g->tokens = mz_calloc((size_t)(g->n * g->capacity), sizeof *g->tokens);
    g->ends = mz_calloc((size_t)g->n, sizeof *g->ends);
    g->step_ids = mz_calloc((size_t)(g->n * g->length), sizeof *g->step_ids);
    g->scratch = mz_calloc((size_t)g->vocab, sizeof *g->scratch);
    g->logits = mz_calloc((size_t)(g->n * g->vocab), sizeof *g->logits);
    if (!g->tokens || !g->ends || !g->step_ids || !g->scratch || !g->logits)
        st = MZ_ERR_MEMORY;
    for (int64_t i = 0; st == MZ_OK && i < g->n; i++) {
        memcpy(g->tokens + i * g->capacity, n > 0 ? ids : &only, (size_t)g->length * sizeof *ids);
        g->ends[i] = -1;
    }
out:
    mz_free(ids);
    return st;
}

static mz_status open_all(mz_world *world, generation *g)
{
    const mz_generate_options *o = g->options;
    mz_config config;
    mz_config_defaults flags;
    mz_config_defaults_init(&flags);
    flags.micro_batch_size = 1;
    if (world->size != 1)
        return mz_fail(MZ_ERR_LAUNCH, "generate runs on one rank, not %d: start it without srun or mpirun",
                       world->size);
    if (!o->model)
        return mz_fail(MZ_ERR_USAGE, "--model: missing; give a folder with weights");
    mz_status st = mz_model_from_folder(o->model, &g->model);
    if (st == MZ_OK)
        st = mz_tokenizer_open(o->tokenizer ? o->tokenizer : o->model, &g->tokenizer);
    if (st == MZ_OK)
        st = mz_config_load(NULL, &flags, 1, &config);
    if (st != MZ_OK)
        return st;
    g->vocab = mz_model_get_info(g->model)->vocab;
    const mz_engine_options options = {.device = o->device, .n_threads = o->cpu_threads, .inference = true};
    st = mz_engine_create(world, &config, g->model, &options, &g->engine);
    if (st == MZ_OK)
        st = mz_engine_load_weights(g->engine, o->model);
    if (st == MZ_OK)
        st = read_prompt(g);
    if (st == MZ_OK)
        st = mz_engine_cache_create(g->engine, g->n, g->capacity, &g->cache);
    return st;
}

/* Logits after positions [from, length) of all sequences, whose earlier ones are in the cache. */
static mz_status run_positions(generation *g, int64_t from)
{
    int64_t width = g->length - from;
    for (int64_t i = 0; i < g->n; i++)
        memcpy(g->step_ids + i * width, g->tokens + i * g->capacity + from, (size_t)width * sizeof *g->step_ids);
    const mz_host_input ids = {
        .role = MZ_INPUT_IDS, .dtype = MZ_I32, .n_dims = 2, .shape = {g->n, width}, .data = g->step_ids};
    const mz_batch batch = {.inputs = &ids, .n_inputs = 1, .n_samples = g->n};
    return mz_engine_logits(g->engine, &batch, g->cache, true, g->logits);
}

static mz_status generate_tokens(generation *g)
{
    const mz_generate_options *o = g->options;
    const mz_sampling sampling = {
        .temperature = o->do_sample ? o->temperature : 0, .top_k = o->top_k, .top_p = o->top_p, .seed = o->seed};
    int32_t end = mz_tokenizer_end_id(g->tokenizer);
    int64_t n_known = mz_tokenizer_vocab(g->tokenizer), running = g->n, from = 0;
    mz_status st = MZ_OK;
    while (g->length < g->capacity && running > 0) {
        st = run_positions(g, from);
        if (st != MZ_OK)
            return st;
        from = g->length;
        for (int64_t i = 0; i < g->n; i++) {
            int32_t token = end >= 0 ? end : 0;
            if (g->ends[i] < 0)
                token =
                    mz_sample_token(&sampling, g->logits + i * g->vocab, n_known < g->vocab ? n_known : g->vocab,
                                    (uint32_t)i, (uint64_t)g->length, g->scratch);
            g->tokens[i * g->capacity + g->length] = token;
            if (g->ends[i] < 0 && token == end && !o->ignore_end) {
                g->ends[i] = g->length;
                running--;
            }
        }
        g->length++;
    }
    return st;
}

static mz_status print_sequence(const generation *g, int64_t i, FILE *out)
{
    char *text = NULL;
    size_t bytes = 0;
    int64_t n = g->ends[i] >= 0 ? g->ends[i] : g->length;
    const int32_t *ids = g->tokens + i * g->capacity;
    int64_t skip = !g->options->prompt || !*g->options->prompt ? 1 : 0; /* the lone start token is not text */
    mz_status st = mz_tokenizer_decode(g->tokenizer, ids + skip, n - skip, &text, &bytes);
    if (st != MZ_OK)
        return st;
    if (g->options->json) {
        json_t *list = json_array();
        for (int64_t t = 0; t < n; t++)
            json_array_append_new(list, json_integer(ids[t]));
        json_t *string = json_stringn(text, bytes); /* NULL when the bytes are not UTF-8 */
        json_t *root = json_pack("{s:o, s:o, s:I, s:b}", "text", string ? string : json_null(), "ids", list,
                                 "prompt_tokens", (json_int_t)g->prompt_length, "ended", g->ends[i] >= 0);
        char *line = root ? json_dumps(root, JSON_COMPACT) : NULL;
        fprintf(out, "%s\n", line ? line : "{}");
        free(line);
        json_decref(root);
    } else {
        if (g->n > 1)
            fprintf(out, "--- %lld\n", (long long)(i + 1));
        fwrite(text, 1, bytes, out);
        fputc('\n', out);
    }
    mz_free(text);
    return MZ_OK;
}

mz_status mz_generate(mz_world *world, const mz_generate_options *options, FILE *out)
{
    generation g = {.options = options};
    mz_status st = open_all(world, &g);
    double begin = mz_clock_seconds();
    if (st == MZ_OK)
        st = generate_tokens(&g);
    double seconds = mz_clock_seconds() - begin;
    for (int64_t i = 0; st == MZ_OK && i < g.n; i++)
        st = print_sequence(&g, i, out);
    if (st == MZ_OK)
        mz_log(MZ_LOG_INFO, "%lld new tokens in %.2f s, %.1f tokens/s",
               (long long)(g.n * (g.length - g.prompt_length)), seconds,
               (double)(g.n * (g.length - g.prompt_length)) / seconds);
    mz_conclude_early(world, st);
    mz_engine_cache_destroy(g.cache);
    mz_engine_destroy(g.engine);
    mz_tokenizer_close(g.tokenizer);
    mz_model_destroy(g.model);
    mz_free(g.tokens);
    mz_free(g.ends);
    mz_free(g.step_ids);
    mz_free(g.scratch);
    mz_free(g.logits);
    return st;
}
