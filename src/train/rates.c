#include "train/rates.h"

#include <string.h>

#include "comm/voyage.h"
#include "core/error.h"
#include "core/json.h"
#include "core/memory.h"

static double number(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

static void keep(double *rate, double found)
{
    if (*rate == 0 && found > 0)
        *rate = found;
}

/* The smallest and the largest size of an operation: bytes of the whole, and seconds. */
typedef struct ends {
    double least, most, least_seconds, most_seconds;
} ends;

static ends find_ends(const json_t *results, const char *operation)
{
    ends e = {0};
    size_t i;
    json_t *row;
    json_array_foreach(results, i, row)
    {
        const char *name = json_string_value(json_object_get(row, "operation"));
        double bytes = number(row, "bytes"), seconds = number(row, "seconds");
        if (!name || strcmp(name, operation) != 0 || seconds <= 0)
            continue;
        if (e.least == 0 || bytes < e.least) {
            e.least = bytes;
            e.least_seconds = seconds;
        }
        if (bytes > e.most) {
            e.most = bytes;
            e.most_seconds = seconds;
        }
    }
    return e;
}

/* Seconds per byte that crosses a link, of which a whole of n parts has (n - 1) / n; and of a message without
 * bytes, of which a collective has `rounds` one after the other. */
static bool fit(const ends *e, double parts, double rounds, double *per_byte, double *latency)
{
    if (e->most <= e->least || e->most_seconds <= e->least_seconds)
        return false;
    double share = (parts - 1) / parts, left;
    *per_byte = (e->most_seconds - e->least_seconds) / ((e->most - e->least) * share);
    left = (e->least_seconds - e->least * share * *per_byte) / rounds;
    *latency = left > 0 ? left : 0;
    return true;
}

static mz_status read_collectives(const mz_json *json, mz_rates *rates)
{
    static const char *const operations[] = {"all_gather", "reduce_scatter"};
    const json_t *results = json_object_get(json->root, "results");
    double nodes = number(json->root, "nodes"), ranks = number(json->root, "ranks");
    double per_byte = 0, latency = 0;
    bool is_inner = nodes == 1;
    for (int i = 0; i < 2; i++) {
        ends e = find_ends(results, operations[i]);
        double one_per_byte, one_latency;
        double rounds = is_inner ? 1 : 1 + (nodes - 2) / MZ_LEG_WINDOW;
        if (!fit(&e, is_inner ? ranks : nodes, rounds, &one_per_byte, &one_latency))
            return mz_fail(MZ_ERR_CONFIG,
                           "%s: expected %s of a small and a large size, the large one slower; measure again with "
                           "--sizes 64KiB,64MiB or the like",
                           json->name, operations[i]);
        per_byte += one_per_byte / 2;
        latency += one_latency / 2;
    }
    keep(is_inner ? &rates->links.inner_bandwidth : &rates->links.outer_bandwidth, 1 / per_byte);
    keep(is_inner ? &rates->links.inner_latency : &rates->links.outer_latency, latency);
    return MZ_OK;
}

/* Forward and backward passes are what is left of a step without its optimiser and what it waited for. */
static mz_status read_train(const mz_json *json, mz_rates *rates)
{
    const json_t *root = json->root;
    const json_t *families = json_object_get(json_object_get(root, "profile"), "families");
    double update = 1e-3 * number(json_object_get(families, "optimiser"), "ms");
    double step = 1e-3 * number(json_object_get(root, "step_ms"), "median");
    double passes = step - update - 1e-3 * number(root, "exposed_communication_ms");
    double tokens =
        number(root, "micro_batch_size") * number(root, "gradient_accumulation_steps") * number(root, "block_size");
    double ranks = number(root, "ranks");
    double updated = number(root, "parameters") / (number(root, "zero_stage") > 0 && ranks > 1 ? ranks : 1);
    if (passes <= 0 || tokens <= 0 || number(root, "flops_per_token") <= 0)
        return mz_fail(MZ_ERR_CONFIG, "%s: expected the steps of bench train --json", json->name);
    keep(&rates->flops, number(root, "flops_per_token") * tokens / passes);
    if (update > 0)
        keep(&rates->updates, updated / update);
    return MZ_OK;
}

static mz_status read_file(const char *path, mz_rates *rates)
{
    mz_json json = {0};
    mz_status status = mz_json_read(path, &json);
    if (status)
        return status;
    if (json_object_get(json.root, "results"))
        status = read_collectives(&json, rates);
    else if (json_object_get(json.root, "tokens_per_second"))
        status = read_train(&json, rates);
    else
        status = mz_fail(MZ_ERR_CONFIG, "%s: expected what bench collectives --json or bench train --json printed",
                         path);
    mz_json_free(&json);
    return status;
}

mz_status mz_rates_read(const char *paths, mz_rates *rates)
{
    mz_status status = MZ_OK;
    for (const char *at = paths; *at && !status;) {
        int length = (int)strcspn(at, ",");
        char *path = mz_strprintf("%.*s", length, at);
        status = path ? read_file(path, rates) : MZ_ERR_MEMORY;
        mz_free(path);
        at += length + (at[length] == ',');
    }
    return status;
}
